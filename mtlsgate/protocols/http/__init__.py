"""
``protocol "http"``: a reverse proxy that tells who the client is.

================  ==========================================================
`configuration`   the block's attributes
`authority`       request targets, ``Host`` and the server name (pure)
`fields`          which header fields pass, and which are the gate's (pure)
`identity`        the client in header fields: RFC 9440, Envoy's, one's own (pure)
`channel`         the client's connection, on twisted.web: framing and time limits
`outgoing`        a request, written anew for the target
`exchange`        one request and its response
`refusal`         what the gate answers in a target's place (pure)
`response`        reading a target's response (pure)
`connection`      a connection to a target
`pool`            the connections to targets that are kept
`backpressure`    who does not read stops who sends
`tunnel`          bytes both ways after an upgrade
`access`          the access log
`plugin`          puts them together
================  ==========================================================
"""
