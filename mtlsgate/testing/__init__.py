"""
For tests of protocols behind the gate: certificates, clients and time, and
all of it in memory.

::

    clock = Clock()
    authority = Authority.create()
    ...  # write authority.pem to where gate.hcl names it
    factory = gate("gate.hcl", clock)
    client = Client(factory, authority.issue("alice"), clock=clock)
    client.handshake()
    client.send(b"hi")
    assert client.receive() == b"hi"

Nothing here opens a port, sleeps, or imports the reactor.  What happens by
itself happens in :meth:`Client.pump`; after ``clock.advance()``, pump.
"""

from __future__ import annotations

from mtlsgate.certificates.development_ca import Authority, Credential, self_signed
from mtlsgate.testing.recording import RecordingFactory, RecordingProtocol, gate
from mtlsgate.tls.memory_client import Client, Session, Version
from mtlsgate.tls.memory_transport import MemoryTransport

__all__ = [
    "Authority",
    "Client",
    "Credential",
    "MemoryTransport",
    "RecordingFactory",
    "RecordingProtocol",
    "Session",
    "Version",
    "gate",
    "self_signed",
]
