"""
The running service: listening, reloads, judging again, signals, self-test.

Imports `load` and `observe`.  Begin with `epoch_runner`, which knows nothing of twistd;
`service` runs it there.
"""
