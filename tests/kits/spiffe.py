"""
A SPIFFE agent in memory, and its messages.

`MemoryAgent` speaks HTTP/2 by ``h2``; `tests.kits.spiffe_agent` is one by grpcio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.testing import Authority, Credential

_DER = Encoding.DER


def key_of(credential: Credential) -> bytes:
    return credential.private_key.private_bytes(_DER, PrivateFormat.PKCS8, NoEncryption())


def chain_of(credential: Credential) -> bytes:
    return b"".join(one.public_bytes(_DER) for one in credential.chain)


def bundle_of(*authorities: Authority) -> bytes:
    return b"".join(one.certificate.public_bytes(_DER) for one in authorities)


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*octets, value))


def pb(number: int, value: bytes) -> bytes:
    """:returns: a field of protobuf that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def pb_svid(name: str, chain: bytes, key: bytes, bundle: bytes = b"") -> bytes:
    parts = (name.encode(), chain, key, bundle)
    return b"".join(pb(number, value) for number, value in enumerate(parts, 1) if value)


def svid_message(*svids: tuple[str, Credential]) -> bytes:
    """:returns: an ``X509SVIDResponse``."""
    return b"".join(pb(1, pb_svid(name, chain_of(one), key_of(one))) for name, one in svids)


def bundle_message(bundles: Mapping[str, Sequence[Authority]]) -> bytes:
    """:returns: an ``X509BundlesResponse``."""
    return b"".join(
        pb(2, pb(1, f"spiffe://{name}".encode()) + pb(2, bundle_of(*authorities)))
        for name, authorities in bundles.items()
    )


@define(eq=False)
class Served:
    """
    One connection to the agent.

    :ivar method: the call that was made.
    :ivar metadata: its headers.
    """

    protocol: IProtocol
    transport: StringTransport
    http: H2Connection = field(
        factory=lambda: H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    )
    method: str = ""
    metadata: dict[str, str] = field(factory=dict)
    is_accepted: bool = False

    def flush(self) -> None:
        """Pass bytes both ways until there are none."""
        while True:
            came = self.transport.value()
            self.transport.clear()
            for event in self.http.receive_data(came) if came else ():
                if isinstance(event, RequestReceived):
                    self.metadata = {str(name): str(value) for name, value in event.headers or ()}
                    self.method = self.metadata[":path"].rpartition("/")[2]
            answer = self.http.data_to_send()
            if not came and not answer:
                return
            if answer and not self.transport.disconnecting:
                self.protocol.dataReceived(answer)

    def accept(self, status: str = "200") -> None:
        """Answer the call."""
        self.is_accepted = True
        self.http.send_headers(1, [(":status", status), ("content-type", "application/grpc")])
        self.flush()

    def send(self, data: bytes, *, compressed: int = 0) -> None:
        """Send a message."""
        self.raw(bytes([compressed]) + len(data).to_bytes(4) + data)

    def raw(self, data: bytes) -> None:
        """Send data on the stream, as much at a time as the windows allow."""
        while data:
            room = self.http.local_flow_control_window(1)
            size = min(room, self.http.max_outbound_frame_size)
            assert size, "the client does not open its windows"
            self.http.send_data(1, data[:size])
            data = data[size:]
            self.flush()

    def end(self, status: int, message: str = "") -> None:
        """End the call."""
        trailers = [("grpc-status", str(status)), ("grpc-message", message)]
        self.http.send_headers(1, trailers, end_stream=True)
        self.flush()

    def refuse(self, status: int, message: str = "") -> None:
        """End the call before anything else."""
        headers = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", str(status)),
            ("grpc-message", message),
        ]
        self.http.send_headers(1, headers, end_stream=True)
        self.flush()

    def drop(self) -> None:
        """Go away."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def is_open(self) -> bool:
        """Whether the gate has not closed it."""
        return not self.transport.disconnecting


@implementer(IStreamClientEndpoint)
@define(eq=False)
class MemoryAgent:
    """
    An agent in memory, as the endpoint that connects to it.

    :ivar is_up: whether it takes connections.
    :ivar is_silent: whether connecting takes for ever.
    :ivar served: all connections so far.
    :ivar cause: why it cannot be connected to, if it is not up.
    """

    is_up: bool = True
    is_silent: bool = False
    served: list[Served] = field(factory=list)
    tries: int = 0
    cause: Exception = field(
        factory=lambda: ConnectError(osError=FileNotFoundError(2, "No such file or directory"))
    )

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.tries += 1
        if self.is_silent:
            return Deferred()
        if not self.is_up:
            return fail(self.cause)
        protocol = factory.buildProtocol(None)  # type: ignore[arg-type]
        assert protocol is not None
        transport = StringTransport()
        transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
        self.served.append(Served(protocol, transport))
        protocol.makeConnection(transport)
        return succeed(protocol)

    @property
    def open(self) -> list[Served]:
        """The connections that are open, after what the gate has sent."""
        for one in self.served:
            if one.is_open:
                one.flush()
        return [one for one in self.served if one.is_open]

    def the(self, method: str) -> Served:
        """:returns: the open connection with this call."""
        [found] = [one for one in self.open if one.method == method]
        return found
