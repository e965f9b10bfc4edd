"""
asyncio behind the gate: ``protocol "asyncio"``, and what other protocols that use asyncio
are built on.

===========  ============================================================
`transport`  an `asyncio.Transport` on the gate's connection
`receiving`  its half that passes received bytes on
`connection` what it needs of that
`facts`      what it tells of the connection: ``ssl_object``, ``socket``
`streams`    runs a coroutine for each connection, with asyncio's streams
`factory`    gives each connection a protocol
`prepared`   servers whose application starts before their first connection
`context`    those of a protocol factory that has to be made first
`plugin`     ``protocol "asyncio"``
===========  ============================================================
"""
