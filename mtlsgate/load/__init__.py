"""
Turns a configuration, from a file or from Python values, into an epoch.

Imports `config`, `gate` and `protocols`.  Begin with `epoch.load`; `servers` builds one
server's gate.
"""
