"""
Everything that concerns OpenSSL: contexts, the verify callback, the search for
other paths, the ClientHello.

Only this package imports ``OpenSSL.SSL``.  It imports `admission` and
`certificates`.  Begin with `server`.
"""
