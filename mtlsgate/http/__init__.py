"""
HTTP/1.1 as a server: what every protocol that speaks HTTP is built on.

Begin with `sides`, which defines who talks to whom.  This package imports interfaces, text
and certificate names; it knows nothing about configuration and targets.

============  ====================================================================
`sides`       an exchange and its client's side: small interfaces
`fields`      names and values of header fields (pure)
`authority`   request targets, ``Host`` and the server name (pure)
`refusal`     what a server answers when it does not pass a request on (pure)
`checks`      whether a request is answered at all (pure)
`bodies`      heads and bodies out of bytes, strictly (sans-I/O)
`reading`     requests out of bytes (sans-I/O)
`framing`     responses into bytes (sans-I/O)
`stages`      what a connection waits for, and for how long: a table
`limits`      what clients are held to
`next_turn`   something to do in the reactor's next turn
`valve`       lets a transport read, or not
`deadline`    a time limit that is put off often
`connection`  a client's connection
`server`      the factory of connections: limits, ALPN, retirement
`headers`     request headers for twisted.web that nothing remembers
`forms`       HTML forms out of request bodies, with bounds (pure)
`resources`   twisted.web resources as exchanges
============  ====================================================================
"""
