"""
The admin endpoint: HTTP to look at a running gate and to control it.

Imports `run` and `http`.  `sockets` binds it, `guard` decides which requests it answers,
`resource` answers them, `site` keeps connections short, and `service` runs it.
"""
