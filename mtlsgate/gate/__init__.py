"""
The gate: what happens to a connection from accept to close.

Imports `tls`, `admission` and `proxyprotocol`.  Begin with `stages` and `connection`;
then `listener`, which accepts connections, and `connections`, which tracks them.
"""
