"""
A real gate with ``protocol "proxy"``, real sockets at both its ends, and
certificates for them.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from attrs import frozen
from OpenSSL import SSL
from OpenSSL.crypto import X509

from mtlsgate.testing import Authority, Credential, Version
from tests.kits.programs import RunningGate, gate

#: Nothing here takes so long; what does has failed.
_TIMEOUT = 60
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@frozen
class Keys:
    """
    :ivar authority: issued all of it, and is trusted by all.
    :ivar client: a client that is let in.
    """

    authority: Authority
    client: Credential

    @classmethod
    def write(cls, directory: Path) -> Keys:
        """Make certificates for a gate, a client and a target, as files."""
        authority = Authority.create("Proxy test CA")
        server = authority.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
        target = authority.issue(
            "target",
            dns_names=["target.example"],
            ip_addresses=["127.0.0.1"],
            usages=["server_auth"],
        )
        client = authority.issue("press-7", dns_names=["press-7.example"])
        for name, one in {"server": server, "target": target, "client": client}.items():
            (directory / f"{name}.crt").write_bytes(one.pem)
            (directory / f"{name}.key").write_bytes(one.key_pem)
            (directory / f"{name}.key").chmod(0o600)
            (directory / f"{name}.pem").write_bytes(one.pem + one.key_pem)
            (directory / f"{name}.pem").chmod(0o600)
        (directory / "ca.crt").write_bytes(authority.pem)
        return cls(authority, client)


def configuration(servers: dict[str, str], of_server: str = "") -> str:
    """
    :param of_server: further attributes of the servers.
    :returns: a file of servers, each with these attributes in its protocol block.
    """
    return "".join(
        f'\nserver "{name}" {{\n  hosts = ["127.0.0.1:0"]\n{of_server}\n'
        f'  protocol "proxy" {{\n{attributes}\n'
        '  }\n  tls {\n    server_certificate {\n      public_key_file = "server.crt"\n'
        '      private_key_file = "server.key"\n    }\n'
        '    client_certificate "fleet" {\n      ca_certificate_file = "ca.crt"\n    }\n  }\n}\n'
        for name, attributes in servers.items()
    )


@contextmanager
def proxy(directory: Path, servers: dict[str, str], of_server: str = "") -> Iterator[RunningGate]:
    """Run a gate with these servers until the block ends."""
    config = directory / "gate.hcl"
    config.write_text(configuration(servers, of_server))
    with gate(config) as running:
        yield running


class Target:
    """
    A TCP server that a test speaks for.

    :ivar port: where it listens.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TIMEOUT)
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        """:returns: the next connection."""
        accepted, _ = self._listener.accept()
        accepted.settimeout(_TIMEOUT)
        self._accepted.append(accepted)
        return accepted

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
        for one in self._accepted:
            one.close()


class TlsSocket:
    """
    A client of the gate, blocking, that can end its stream and read on.

    :ivar socket: what carries the TLS records.
    """

    def __init__(
        self, port: int, keys: Keys, version: Version | None = None, preface: bytes = b""
    ) -> None:
        """:param preface: what to send before TLS."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if version is not None:
            context.set_min_proto_version(_VERSIONS[version])
            context.set_max_proto_version(_VERSIONS[version])
        context.use_certificate(keys.client.certificate)
        context.use_privatekey(keys.client.private_key)
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(keys.authority.certificate))
        context.set_verify(SSL.VERIFY_PEER, lambda *arguments: bool(arguments[-1]))
        self.socket = socket.create_connection(("127.0.0.1", port))
        # Blocking, with a limit that OpenSSL does not mistake for non-blocking.
        limit = struct.pack("ll", _TIMEOUT, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(preface)
        self.connection = SSL.Connection(context, self.socket)
        self.connection.set_connect_state()
        self.connection.set_tlsext_host_name(b"localhost")
        self.connection.do_handshake()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.connection.sendall(data)

    def receive(self, size: int = 2**16) -> bytes:
        """:returns: what comes, or nothing after the gate's close_notify."""
        try:
            return self.connection.recv(size)
        except SSL.ZeroReturnError:
            return b""

    def receive_all(self) -> bytes:
        """:returns: all that comes until the gate's close_notify."""
        received = bytearray()
        while data := self.receive():
            received += data
        return bytes(received)

    def exchange(self, pieces: Sequence[bytes]) -> bytes:
        """
        Send and receive at the same time, and end the client's own stream after the last.

        :returns: all that comes until the gate's close_notify.
        """
        self.socket.setblocking(False)
        received, left, ended = bytearray(), list(reversed(pieces)), False
        while True:
            with suppress(SSL.WantReadError):
                while data := self.receive():
                    received += data
                # The gate has ended its stream, and this side may go on.
                break
            if not left and not ended:
                self.end()
                ended = True
            with suppress(SSL.WantWriteError, SSL.WantReadError):
                while left:
                    piece = left[-1]
                    sent = self.connection.send(piece)
                    left[-1:] = [piece[sent:]] if sent < len(piece) else []
            writing = [self.socket] if left else []
            ready = select.select([self.socket], writing, [], _TIMEOUT)
            assert any(ready), "nothing moves"
        self.socket.setblocking(True)
        for piece in reversed(left):
            self.send(piece)
        if not ended:
            self.end()
        return bytes(received)

    def ending(self) -> str:
        """:returns: how the connection ends, and that without another byte."""
        try:
            self.connection.recv(2**16)
        except SSL.ZeroReturnError:
            return "close_notify"
        except SSL.SysCallError as error:
            return str(error.args[1])
        return "data"

    def end(self) -> None:
        """End the client's own stream: close_notify."""
        self.connection.shutdown()

    def reset(self) -> None:
        """Reset the TCP connection."""
        reset(self.socket)

    def close(self) -> None:
        """Close the socket, without a word of TLS if `end` was not called."""
        self.socket.close()

    def __enter__(self) -> TlsSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def reset(connected: socket.socket) -> None:
    """Close a socket so that the other side sees a reset."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def read_all(connected: socket.socket) -> bytes:
    """:returns: all that comes until the other side's end."""
    received = bytearray()
    while data := connected.recv(2**16):
        received += data
    return bytes(received)


def ending(connected: socket.socket) -> tuple[bytes, str]:
    """:returns: all that comes, and whether an end or a reset is what comes after it."""
    received = bytearray()
    try:
        while data := connected.recv(2**16):
            received += data
    except ConnectionResetError:
        return bytes(received), "reset"
    return bytes(received), "end"


def resident(pid: int) -> int:
    """:returns: how many bytes of memory a process uses."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def fill(connected: socket.socket, data: bytes) -> int:
    """
    Send until nobody takes any more.

    :returns: how many bytes went.
    """
    sent = 0
    connected.settimeout(1.0)
    with suppress(TimeoutError):
        while True:
            sent += connected.send(data)
    connected.settimeout(_TIMEOUT)
    return sent
