"""
HTTP/2 (RFC 9113): connections of many requests.  As a server for every protocol that speaks
HTTP; as a client the parts without I/O, of which `mtlsgate.protocols.http` makes connections to
targets.

The library ``h2`` knows frames, header compression and the states of streams.  This package
holds clients to limits, controls the flow, and makes of each stream the client's side of an
exchange (`mtlsgate.http.sides`).  It imports `http`; begin with `connection`.

=============  ===================================================================
`faults`       what a client did wrong: to its connection, or in one request
`frames`       frames out of bytes, before ``h2`` reads them (sans-I/O)
`budgets`      how much a client may send that carries nothing (pure)
`compression`  HPACK with bounds
`events`       what an end of a connection reads
`wire`         frames into events, and messages into frames: what both ends share (sans-I/O)
`session`      the server's end (sans-I/O)
`requesting`   the client's end (sans-I/O)
`heads`        header fields to requests, and from responses (pure)
`responses`    header fields from requests, and to responses (pure)
`reading`      the requests of one connection, out of header fields
`inbox`        what came of a message's body
`outbox`       what waits to be sent of a message
`timing`       how long a client may take with a stream
`carrier`      a connection, as its streams see it
`stream`       one stream: the client's side of an exchange
`turns`        whose turn it is to write
`farewell`     how the server says that it wants no more requests
`connection`   a client's connection
`versions`     which versions of HTTP a server offers
=============  ===================================================================
"""
