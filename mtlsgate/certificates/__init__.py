"""
Bytes to certificates and keys, and the names in them.

Imports only `mtlsgate.text` and `mtlsgate.errors`.  Begin with `parsing`, which
reads PEM and DER; `development_ca` makes certificates for tests and demos.
"""
