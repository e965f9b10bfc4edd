"""
Registries: stores of devices that many gates share.

`store` is the interface of every store, in asyncio, and knows nothing of gates: the
command line uses the same stores.  `mtlsgate.admission.devices` has the values.
"""
