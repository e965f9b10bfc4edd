"""
Gates in Python: `Gate`, `Rule` and the endpoints of Twisted applications.

Imports `run` and `load`.  Begin with `gate.Gate`; `values` has what rules are written
with, `reading` turns them into the blocks that a configuration file would hold.
"""
