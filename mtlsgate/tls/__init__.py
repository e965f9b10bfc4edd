"""
Everything that concerns OpenSSL: contexts, the verify callback, the search for
other paths, the ClientHello.

The only room that imports ``OpenSSL.SSL``; it imports `admission` and
`certificates`.  Begin with `server`.
"""
