"""
`verified_peer`: who is at the other end of what an application has in hand.
"""

from __future__ import annotations

import subprocess
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.amp import AMP
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import directlyProvides

from mtlsgate import Gate, Rule, VerifiedPeer, verified_peer
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.aio.factory import handled_by
from mtlsgate.testing import Authority, Version
from tests.kits.aio import Loop as AsyncioLoop
from tests.kits.application import Certificates, Loop
from tests.kits.programs import program

PEER = VerifiedPeer(
    path=(Authority.create().issue("alice").certificate,),
    rule="rule",
    address=IPv4Address("TCP", "127.0.0.1", 1),
    server_name=None,
    tls_version="TLSv1.3",
    cipher="TLS_AES_128_GCM_SHA256",
    group=None,
    alpn=None,
)


class Transport(StringTransport):
    """As the gate's transport answers."""

    def __conform__(self, interface: object) -> object:
        return PEER if interface is IVerifiedPeer else None


def connected(protocol: Any, transport: object) -> Any:
    protocol.makeConnection(transport)
    return protocol


@pytest.mark.parametrize("kind", [Protocol, AMP])
def test_of_a_transport_and_of_a_protocol(kind: type) -> None:
    transport = Transport()
    assert verified_peer(transport) is PEER
    assert verified_peer(connected(kind(), transport)) is PEER


@pytest.mark.parametrize("kind", [Protocol, AMP])
def test_a_connection_that_came_another_way_has_none(kind: type) -> None:
    transport = StringTransport()
    assert verified_peer(transport) is None
    assert verified_peer(connected(kind(), transport)) is None
    assert verified_peer(kind()) is None


@pytest.mark.parametrize("what", [None, "alice", 7, object(), Resource()])
def test_what_has_no_connection(what: object) -> None:
    """A mistake of the program's is no stranger."""
    with pytest.raises(TypeError, match="has no connection: pass a transport, a protocol,"):
        verified_peer(what)


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_of_an_environ_or_scope(kind: Any) -> None:
    """Of WSGI and ASGI, and of a mapping around one."""
    assert verified_peer(kind({"mtlsgate.peer": PEER, "HTTP_HOST": "x"})) is PEER
    assert verified_peer(kind({"mtlsgate.peer": None})) is None
    assert verified_peer(kind({})) is None
    assert verified_peer(kind({"mtlsgate.peer": "alice"})) is None


def test_of_asyncios_streams(loop: AsyncioLoop, version: Version) -> None:
    found: list[object] = []

    async def handle(peer: object, reader: StreamReader, writer: StreamWriter) -> None:
        found.extend([peer, verified_peer(writer), verified_peer(writer.transport)])

    loop.connect(loop.gate(handled_by(handle, "door")), version)
    assert isinstance(found[0], VerifiedPeer)
    assert found[0].common_name == "alice"
    assert found == [found[0]] * 3


def test_nobody_can_pose_as_one(here: Certificates) -> None:
    """Only the gate's own value counts, and no loop keeps the question open."""

    class Fake(StringTransport):
        common_name = "alice"
        transport: object = None

    fake = Fake()
    directlyProvides(fake, IVerifiedPeer)
    fake.transport = fake
    assert verified_peer(fake) is None


class Who(Resource):
    """Says who asks."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        peer = verified_peer(request)
        assert peer is not None
        return f"{peer.common_name} by {peer.rule}, {request.clientproto.decode()}".encode()


def test_of_a_request(here: Certificates, running: Loop) -> None:
    curl = program("curl")
    gate = Gate(certificate=("server.crt", "server.key"), rules=[Rule("f", ca="fleet-ca.crt")])
    port: Any = running.listen(gate.endpoint(running.reactor, "127.0.0.1:0"), Site(Who()))

    url, own = (
        f"https://localhost:{port.getHost().port}/",
        ("-E", "alice.crt", "--key", "alice.key"),
    )

    def ask() -> str:
        return subprocess.run(
            [curl, "-sS", "--http1.1", "--cacert", "fleet-ca.crt", *own, url],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(here.directory),
        ).stdout

    assert running.call(ask) == "alice by f, HTTP/1.1"


def test_of_a_request_of_http_2() -> None:
    """By way of a private name of Twisted's: this fails when that changes."""
    http2 = pytest.importorskip("twisted.web._http2")
    connection = http2.H2Connection(reactor=Clock())
    connection.transport = Transport()
    stream = http2.H2Stream(
        1, connection, [(b"content-length", b"0")], Request, Site(Resource()), None
    )
    assert verified_peer(Request(stream)) is PEER
