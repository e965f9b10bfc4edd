"""
``mtlsgate registry``: looks at a registry's devices, and changes them.

Begin with `cli`, which has a function for each command.  The stores are those of the
gate, in `mtlsgate.registry`; what is here runs in asyncio, without Twisted's reactor.
"""
