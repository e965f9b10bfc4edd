"""
The SPIFFE Workload API: what an agent delivers, and how to ask it.

`messages` reads what comes, `call` speaks gRPC without I/O, `subscription` keeps a stream
open over a unix socket, and `agents` holds what was delivered last, for all epochs.

gRPC is HTTP/2 with five bytes before each message, so ``h2`` and the reactor are enough.  The
libraries for it run threads of their own, which would be outside the gate's sandbox and
which a process that forks must not have.
"""
