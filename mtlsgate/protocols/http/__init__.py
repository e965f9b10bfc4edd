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
`target_side`        the target's side of a request, whatever HTTP the target speaks
`target_connection`  a connection of HTTP/1.1 to a target
`target_pool`        those that are kept
`target_stream`      one request on a connection of HTTP/2
`target_http2`       a connection of HTTP/2 to a target
`shared_pool`        those that there are, which requests share
`pools`              from the block's attributes to one of these pools
`target_check`       checks of targets by a request, and ``_http2`` for HTTP/2
`capacity`           how many requests and WebSockets there may be
`access`             the access log
===================  =======================================================
"""
