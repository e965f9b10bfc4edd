"""
HTTP/1.1 as a server: what every protocol that speaks HTTP is built on.

Begin with `sides`, which says who talks to whom.  This package imports interfaces, text
and certificate names; it knows no configuration and no targets.

============  ====================================================================
`sides`       an exchange and its client's side: two small interfaces
`reading`     requests and bodies out of bytes, strictly, without any I/O
`fields`      names and values of header fields (pure)
`authority`   request targets, ``Host`` and the server name (pure)
`refusal`     what a server answers when it does not pass a request on (pure)
`connection`  a client's connection: stages, time limits, framing of responses
`server`      the factory of connections: limits, ALPN, retirement
`headers`     request headers for twisted.web that nothing remembers
`forms`       HTML forms out of request bodies, with bounds (pure)
`resources`   twisted.web resources as exchanges
============  ====================================================================
"""
