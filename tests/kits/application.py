"""
A Twisted application of one's own, on a reactor of its own, and clients of it in threads.

The reactor is real, and so are the sockets; nothing waits but for what must happen.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from mtlsgate import VerifiedPeer, verified_peer
from mtlsgate.certificates.development_ca import Authority, Credential, self_signed

T = TypeVar("T")

VERSIONS: tuple[Literal["1.2", "1.3"], ...] = ("1.2", "1.3")
_VERSION = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: In seconds; far above what anything here takes.
_MOST = 60.0


class Loop:
    """
    A reactor that a test drives.

    :ivar reactor: which.
    """

    def __init__(self) -> None:
        self.reactor = SelectReactor()
        # With its thread pool, for names to be looked up.
        self.reactor.startRunning(installSignalHandlers=False)
        self._threads = ThreadPoolExecutor(8)
        self._ports: list[IListeningPort] = []

    def until(self, done: Callable[[], object]) -> None:
        """Run until something is true."""
        end = self.reactor.seconds() + _MOST
        while not done():
            assert self.reactor.seconds() < end, "nothing happens"
            self.reactor.iterate(0.02)

    def wait(self, deferred: Deferred[T]) -> T:
        """:returns: what it fires with; a failure is raised."""
        found: list[T] = []
        failed: list[Any] = []
        deferred.addCallbacks(found.append, failed.append)
        self.until(lambda: found or failed)
        for failure in failed:
            failure.raiseException()
        return found[0]

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Begin something that blocks, in a thread."""
        return self._threads.submit(work)

    def result(self, future: Future[T]) -> T:
        """:returns: what came of it, once it is done."""
        self.until(future.done)
        return future.result()

    def call(self, work: Callable[[], T]) -> T:
        """Do something that blocks in a thread, and run meanwhile."""
        return self.result(self.start(work))

    def listen(self, endpoint: Any, factory: Any) -> IListeningPort:
        """:returns: the port."""
        port: IListeningPort = self.wait(endpoint.listen(factory))
        self._ports.append(port)
        return port

    def _connections(self) -> list[Any]:
        return [one for one in self.reactor.getReaders() if hasattr(one, "abortConnection")]

    def close(self) -> None:
        """Let go of everything."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for port in self._ports:
            self.wait(maybeDeferred(port.stopListening))
        for reader in self._connections():
            reader.abortConnection()
        self.until(lambda: not self._connections())
        # What was aborted hears of it in one of the next turns.
        for _ in range(8):
            self.reactor.iterate(0)
        self.reactor.fireSystemEvent("shutdown")
        self.until(lambda: self.reactor.threadpool is None)
        for one in self.reactor.getReaders():
            one.connectionLost(Failure(ConnectionDone()))


@contextmanager
def loop() -> Iterator[Loop]:
    """A reactor until the block ends."""
    made = Loop()
    try:
        yield made
    finally:
        made.close()


@frozen
class Client:
    """
    A client in a thread, by Python's ssl.

    :ivar directory: where certificates are: ``alice.crt`` and ``alice.key`` for alice.
    :ivar address: where the gate listens; a str is a unix socket's path.
    """

    directory: Path
    address: Any

    def connect(
        self,
        name: str | None,
        version: str = "1.3",
        server_name: str = "localhost",
        header: bytes = b"",
        earlier: tuple[ssl.SSLContext, ssl.SSLSession] | None = None,
    ) -> ssl.SSLSocket:
        """
        :param header: what to send before TLS.
        :param earlier: a session to resume, with its context.
        :returns: a connection after its handshake; read before you conclude.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if earlier is None else earlier[0]
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = _VERSION[version]
        if name is not None and earlier is None:
            context.load_cert_chain(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        raw = self._dial()
        try:
            raw.sendall(header)
            session = None if earlier is None else earlier[1]
            return context.wrap_socket(raw, server_hostname=server_name, session=session)
        except BaseException:
            raw.close()
            raise

    def _dial(self) -> socket.socket:
        if not isinstance(self.address, str):
            return socket.create_connection((self.address.host, self.address.port), timeout=_MOST)
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(_MOST)
        raw.connect(self.address)
        return raw

    def ask(self, name: str | None, version: str = "1.3", server_name: str = "localhost") -> str:
        """:returns: what the application answers to ``hello``; "" if the client is rejected."""
        try:
            with self.connect(name, version, server_name) as connection:
                connection.sendall(b"hello")
                return connection.recv(1000).decode()
        except OSError:
            return ""


class Greeter(Protocol):
    """Says whom it talks to."""

    factory: Greeters

    def connectionMade(self) -> None:
        """Note it."""
        self.factory.protocols.append(self)

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        peer = verified_peer(self)
        who = "nobody" if peer is None else f"{peer.common_name} by {peer.rule}"
        self.transport.write(f"{data.decode()} {who}".encode())  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        """Note it."""
        self.factory.lost.append(self)


class Greeters(Factory):
    """
    :ivar protocols: all that were made.
    :ivar lost: those whose connection is over.
    :ivar started: how often it was started and not stopped.
    """

    noisy = False
    protocol = Greeter  # type: ignore[assignment]

    def __init__(self) -> None:
        self.protocols: list[Greeter] = []
        self.lost: list[Greeter] = []
        self.started = 0

    def startFactory(self) -> None:
        """Count."""
        self.started += 1

    def stopFactory(self) -> None:
        """Count."""
        self.started -= 1

    @property
    def peers(self) -> list[VerifiedPeer | None]:
        """Who came in."""
        return [verified_peer(one) for one in self.protocols]


@frozen
class Certificates:
    """
    Some certificates that are valid today, as files and as objects.

    :ivar directory: where the files are.
    """

    directory: Path
    fleet: Authority = field(factory=lambda: Authority.create("Fleet CA"))
    office: Authority = field(factory=lambda: Authority.create("Office CA"))
    people: dict[str, Credential] = field(factory=dict)

    def add(self, name: str, credential: Credential) -> Credential:
        """Write a credential to files of its name."""
        (self.directory / f"{name}.crt").write_bytes(credential.pem)
        key = self.directory / f"{name}.key"
        key.write_bytes(credential.key_pem)
        key.chmod(0o600)
        self.people[name] = credential
        return credential


def certificates(directory: Path) -> Certificates:
    """
    :returns: a server for localhost; alice, a sensor of the fleet's CA, and bob, of the
        same; carol of the office's; mallory, who signed herself.
    """
    made = Certificates(directory)
    (directory / "fleet-ca.crt").write_bytes(made.fleet.pem)
    (directory / "office-ca.crt").write_bytes(made.office.pem)
    usages = ["server_auth"]
    made.add("server", made.fleet.issue("localhost", dns_names=["localhost"], usages=usages))
    made.add("other", made.fleet.issue("other", dns_names=["other.example"], usages=usages))
    made.add("alice", made.fleet.issue("alice", uris=["spiffe://plants.example/sensor/a"]))
    made.add("bob", made.fleet.issue("bob", uris=["spiffe://plants.example/valve/b"]))
    made.add("carol", made.office.issue("carol"))
    made.add("mallory", self_signed("mallory"))
    return made


__all__ = ["Certificates", "Client", "Greeters", "IAddress", "Loop", "certificates", "loop"]


def admitted(running: Loop, client: Client, version: str = "1.3") -> set[str]:
    """:returns: who of all clients gets an answer."""
    people = ("alice", "bob", "carol", "mallory", None)
    asked = [(name, running.start(partial(client.ask, name, version))) for name in people]
    return {str(name) for name, answer in asked if running.result(answer)}


CONFIG = """
server "devices" {
  hosts = ["127.0.0.1:0"]
  protocol "not-installed-here" {}
  tls {
    server_certificate {
      public_key_file = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "fleet" { ca_certificate_file = "fleet-ca.crt" }
  }
}
server "other" {
  hosts = ["127.0.0.1:0"]
  protocol "echo" {}
  tls {
    server_certificate {
      public_key_file = "not-ours.crt"
      private_key_file = "not-ours.key"
    }
    client_certificate "fleet" { ca_certificate_file = "not-ours.crt" }
  }
}
"""
