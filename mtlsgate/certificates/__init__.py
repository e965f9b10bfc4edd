"""
Reads certificates, keys and revocation lists from bytes, and the names in them.

Imports only `mtlsgate.text` and `mtlsgate.errors`.  Begin with `certificate`, a
certificate as its DER; `parsing` reads files, and `development_ca` makes
certificates for tests and demos.
"""
