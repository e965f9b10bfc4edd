"""
From a configuration, a file or values in Python, to an epoch: all that is built from it.

Imports `config`, `gate` and `protocols`.  Begin with `epoch.load`; `servers` builds one
server's gate.
"""
