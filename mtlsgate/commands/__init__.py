"""
The command line: ``mtlsgate init``, ``check``, ``explain`` and the rest.

May import every other room.  Begin with `cli`, which has a function for each
command.
"""
