"""
The command line: ``mtlsgate init``, ``check``, ``explain`` and the rest.

May import every other package.  Begin with `cli`, which has a function for each
command.
"""
