"""
Connections to targets behind the gate: addresses, TLS, and the choice between
several targets.  All protocols that connect to a target use it.

Imports `gate` and `tls`.  Begin with `backends`, which connects to the next reachable target;
`verified` is the connection by TLS, `relay` what joins it to a client's.
"""
