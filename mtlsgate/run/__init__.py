"""
The running service: listening, reloads, judging again, signals, self-test.

Imports `load` and `observe`.  Begin with `service`.
"""
