"""
Several processes that share the gate's addresses: one supervisor and its workers.

Imports `admin` and `run`.  Begin with `supervisor`, which the program's process runs: it binds
addresses, starts the workers, hands reloads, drains and signals on to them, and answers
for all of them together.  `spawner` is the process that forks workers, `process` what
each of them runs.  Without ``workers`` in the configuration nothing of this is used.
"""
