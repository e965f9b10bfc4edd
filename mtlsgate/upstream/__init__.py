"""
Connections to targets behind the gate: addresses, TLS, and the choice between
several targets.  All protocols that connect to a target use it.
"""
