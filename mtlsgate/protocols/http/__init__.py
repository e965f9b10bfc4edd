"""
``protocol "http"``: a reverse proxy that tells who the client is.

It is built on `mtlsgate.http`, which reads requests; begin with `exchange`.

===================  =======================================================
`plugin`             from the block's attributes to a server
`configuration`      the block's attributes
`exchange`           one request and its response, between the two sides
`outgoing`           a request, written anew for the target (pure)
`forwarding`         which header fields pass, which are the gate's (pure)
`identity`           the client in header fields: RFC 9440, Envoy's, one's own (pure)
`response`           reading a target's response (sans-I/O)
`target_connection`  a connection to a target
`target_pool`        the connections to targets that are kept
`capacity`           how many requests and WebSockets there may be
`access`             the access log
===================  =======================================================
"""
