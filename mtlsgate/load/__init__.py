"""
From a configuration file to an epoch: all that is built from it.

Imports `config`, `gate` and `protocols`.  Begin with `epoch.load`.
"""
