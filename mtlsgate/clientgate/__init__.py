"""
The other end of the wire: a gate for programs that cannot present a client certificate.

A client gate listens in plaintext on this machine only, and connects to a target with
TLS and its own client certificate.  Nothing that the program sends leaves before the
target is verified.

Imports `upstream` and `gate`.  Begin with `connection`; `entrance` makes connections of what
a listener accepts, and `gate` is a client gate as a value.
"""
