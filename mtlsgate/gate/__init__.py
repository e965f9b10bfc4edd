"""
The door: what happens to a connection from accept to close.

Imports `tls`, `admission` and `proxyprotocol`.  Begin with `factory`, then
`connection`.
"""
