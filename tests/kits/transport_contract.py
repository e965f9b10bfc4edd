"""
What a TLS transport does, tried over loopback with Python's own ssl as the client.

Run as a program with a reactor's name: each row runs on the gate's transport and on
Twisted's ``listenSSL``, and what was observed is printed as JSON.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from zope.interface import alsoProvides

ROWS: dict[str, tuple[Callable[[Any, str, bytes], None], Callable[[ssl.SSLSocket], object]]] = {}


def row(client: Callable[[ssl.SSLSocket], object]) -> Callable[[Any], Any]:
    """A row: what the server's protocol does at each event, and what its client does."""

    def add(server: Callable[[Any, str, bytes], None]) -> Any:
        ROWS[server.__name__] = server, client
        return server

    return add


def everything(tls: ssl.SSLSocket) -> bytes:
    taken = bytearray()
    while data := tls.recv(2**16):
        taken += data
    return bytes(taken)


def say(*words: bytes) -> Callable[[ssl.SSLSocket], object]:
    def talk(tls: ssl.SSLSocket) -> object:
        for word in words:
            tls.sendall(word)
        return len(everything(tls))

    return talk


def unwrap(tls: ssl.SSLSocket) -> object:
    tls.sendall(b"hi")
    answer = tls.recv(100)
    tls.unwrap()
    return answer.decode()


def hang_up(tls: ssl.SSLSocket) -> object:
    tls.sendall(b"hi")
    answer = tls.recv(100)
    tls.close()
    return answer.decode()


def reset(tls: ssl.SSLSocket) -> object:
    tls.sendall(b"hi")
    tls.recv(100)
    tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tls.close()
    return None


@row(unwrap)
def close_by_the_client(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.write(data)


@row(hang_up)
def cut_off(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.write(data)


@row(reset)
def reset_by_the_client(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.write(data)


@row(say(b"hi"))
def lose_connection(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.write(b"x" * 3_000_000)
        app.transport.loseConnection()
        app.transport.write(b"dropped")


@row(say(b"hi"))
def abort_connection(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.write(b"dropped")
        app.transport.abortConnection()


@row(say(b"hi"))
def write_sequence(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.writeSequence([b"a" * 10, b"", b"b" * 20])
        app.transport.loseConnection()


@row(say(b"hi"))
def write_text(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        try:
            app.transport.write("text")
        except TypeError:
            app.note("TypeError")
        app.transport.loseConnection()


class Pushing:
    """Pushes 40 MB, and stops when it is told to."""

    def __init__(self, app: Any) -> None:
        self.app, self.left, self.going = app, 640, True

    def resumeProducing(self) -> None:
        self.app.note("resume")
        self.going = True
        while self.going and self.left:
            self.left -= 1
            self.app.transport.write(bytes(65_536))
        if not self.left:
            self.app.transport.unregisterProducer()
            self.app.transport.loseConnection()

    def pauseProducing(self) -> None:
        self.app.note("pause")
        self.going = False
        _paused.set()

    def stopProducing(self) -> None:
        self.app.note("stop")


#: Set when the producer was paused: only then does the client read.
_paused = threading.Event()


def read_when_paused(tls: ssl.SSLSocket) -> object:
    tls.sendall(b"hi")
    assert _paused.wait(20)
    return len(everything(tls))


@row(read_when_paused)
def push_producer(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        _paused.clear()
        producer = Pushing(app)
        app.transport.registerProducer(producer, True)
        producer.resumeProducing()


class Pulled:
    """Gives 1000 bytes whenever it is asked, a hundred times."""

    def __init__(self, app: Any) -> None:
        self.app, self.left = app, 100

    def resumeProducing(self) -> None:
        self.left -= 1
        self.app.transport.write(bytes(1000))
        if not self.left:
            self.app.transport.unregisterProducer()
            self.app.transport.loseConnection()

    def stopProducing(self) -> None:
        self.app.note("stop")


@row(say(b"hi"))
def pull_producer(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.registerProducer(Pulled(app), False)


@row(say(b"hi"))
def producer_twice(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.transport.registerProducer(Pushing(app), True)
        try:
            app.transport.registerProducer(Pushing(app), True)
        except RuntimeError:
            app.note("RuntimeError")
        app.transport.unregisterProducer()
        app.transport.loseConnection()


@row(say(b"x" * 2_000_000))
def pause_and_resume(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.total = getattr(app, "total", 0) + len(data)
        if getattr(app, "paused", False):
            app.note("while paused")
        if app.total == 2_000_000:
            app.note("all")
            app.transport.loseConnection()
        elif not getattr(app, "paused", False):
            app.paused = True
            app.transport.pauseProducing()
            app.later(app.resume)


def half(tls: ssl.SSLSocket) -> object:
    """End TLS in one direction, as no method of `ssl` does but this one."""
    tls.sendall(b"hi")
    tls.recv(100)
    tls.settimeout(0)
    with suppress(OSError):
        tls.unwrap()
    return None


@row(half)
def half_close(app: Any, event: str, data: bytes) -> None:
    from twisted.internet.interfaces import IHalfCloseableProtocol

    if event == "made":
        app.readConnectionLost = lambda: (app.note("read ended"), app.transport.loseConnection())
        alsoProvides(app, IHalfCloseableProtocol)
    if event == "data":
        app.transport.write(data)


@row(say(b"hi"))
def facts(app: Any, event: str, data: bytes) -> None:
    if event == "data":
        app.note(app.transport.getPeerCertificate().to_cryptography().subject.rfc4514_string())
        app.note(app.transport.negotiatedProtocol.decode())
        app.note(type(app.transport.getPeer()).__name__ + type(app.transport.getHost()).__name__)
        app.transport.loseConnection()


def main(name: str) -> None:
    from twisted.application.reactors import installReactor

    reactor: Any = installReactor(name)
    from OpenSSL import SSL
    from OpenSSL.crypto import X509
    from twisted.internet.interfaces import (
        IHandshakeListener,
        IOpenSSLServerConnectionCreator,
    )
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.threads import deferToThread
    from zope.interface import implementer

    from mtlsgate.admission import AdmissionPolicy
    from mtlsgate.gate.connections import Connections
    from mtlsgate.gate.entrance import Entrance
    from mtlsgate.gate.listener import Listener
    from mtlsgate.gate.server import GateServer
    from mtlsgate.testing import Authority
    from mtlsgate.tls.contexts import use_credential
    from mtlsgate.tls.server import GateContext, TlsPolicy
    from tests.kits.gate import localhost, rule

    root, observed = Authority.create("Root"), dict[str, dict[str, Any]]()
    alice = root.issue("alice")
    directory = Path(tempfile.mkdtemp())
    (directory / "alice.pem").write_bytes(alice.pem + alice.key_pem)

    @implementer(IHandshakeListener)
    class App(Protocol):
        def __init__(self, act: Any, notes: list[str], finished: Any) -> None:
            self.act, self.notes, self.finished = act, notes, finished

        def note(self, text: str) -> None:
            # Pieces come in any number.
            if text not in self.notes:
                self.notes.append(text)

        def later(self, call: Any) -> None:
            reactor.callLater(0.05, call)

        def resume(self) -> None:
            self.paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]

        def connectionMade(self) -> None:
            self.note("made")
            self.act(self, "made", b"")

        def handshakeCompleted(self) -> None:
            self.note("handshake")

        def dataReceived(self, data: bytes) -> None:
            self.note("data")
            self.act(self, "data", data)

        def connectionLost(self, reason: Any = None) -> None:
            self.note(type(reason.value).__name__)
            self.finished.callback(None)

        def writeConnectionLost(self) -> None:
            self.note("write ended")

    class Bound:
        def __init__(self) -> None:
            self.sock = socket.create_server(("127.0.0.1", 0))

        def close(self) -> None:
            self.sock.close()

    def factory_for(act: Any, notes: list[str]) -> tuple[Any, Any]:
        from twisted.internet.defer import Deferred

        finished: Any = Deferred()

        class Apps(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                return App(act, notes, finished)

        return Apps(), finished

    @implementer(IOpenSSLServerConnectionCreator)
    class Creator:
        def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            use_credential(context, localhost())
            store = context.get_cert_store()
            assert store is not None
            store.add_cert(X509.from_cryptography(root.certificate))
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
            context.set_session_id(b"x")
            context.set_alpn_select_callback(lambda *_: b"x")
            return SSL.Connection(context, None)

    def client(port: int, talk: Any) -> object:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(str(directory / "alice.pem"))
        context.set_alpn_protocols(["x"])
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            tls = context.wrap_socket(sock)
            try:
                return talk(tls)
            except OSError as error:
                return type(error).__name__
            finally:
                tls.close()

    def ours(factory: Any) -> tuple[int, Any]:
        policy = TlsPolicy((localhost(),), AdmissionPolicy((rule(ca=root),)), alpn=(b"x",))
        server = GateServer("s", GateContext(policy), factory)
        bound = Bound()
        bound.sock.setblocking(False)
        listener = Listener("s", bound, Entrance.of(server, Connections(reactor)), reactor)
        listener.startListening()
        return bound.sock.getsockname()[1], listener.stopListening

    def twisteds(factory: Any) -> tuple[int, Any]:
        port = reactor.listenSSL(0, factory, Creator(), interface="127.0.0.1")
        return port.getHost().port, port.stopListening

    from twisted.internet.defer import inlineCallbacks

    @inlineCallbacks
    def run() -> Any:
        for kind, listen in (("ours", ours), ("twisted", twisteds)):
            observed[kind] = {}
            for row_name, (act, talk) in ROWS.items():
                notes: list[str] = []
                factory, finished = factory_for(act, notes)
                port, stop = listen(factory)
                answer = yield deferToThread(client, port, talk)
                guard = reactor.callLater(10, lambda d=finished: d.called or d.callback("hangs"))
                yield finished
                guard.cancel() if guard.active() else None
                stop()
                observed[kind][row_name] = [answer, notes]

    def done(result: Any) -> None:
        if result is not None:
            result.printTraceback()
        sys.stdout.write(json.dumps(observed) + "\n")
        reactor.stop()

    reactor.callWhenRunning(lambda: run().addBoth(done))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
