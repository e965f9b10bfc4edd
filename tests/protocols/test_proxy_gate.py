"""
``protocol "proxy"`` in a real gate: streams, their ends, resets, and the memory
that a stopped reader costs.
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from attrs import frozen
from OpenSSL import SSL
from twisted.internet.address import IPv4Address

from mtlsgate.proxyprotocol import Header, HeaderReader
from mtlsgate.testing import Version
from tests.kits.programs import RunningGate
from tests.kits.proxy import Keys, Target, TlsSocket, ending, proxy, read_all, reset, resident

pytestmark = pytest.mark.slow

_MIB = 2**20


@frozen
class Field:
    """
    A gate before a target and before one that speaks TLS.

    :ivar directory: where its certificates are.
    """

    gate: RunningGate
    keys: Keys
    target: Target
    directory: Path

    def connect(
        self, version: Version | None = None, server: str = "plain"
    ) -> tuple[TlsSocket, socket.socket]:
        """:returns: both ends of a connection through the gate."""
        client = TlsSocket(self.gate.port(server), self.keys, version)
        return client, self.target.accept()


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("proxy")
    keys = Keys.write(directory)
    with Target() as target:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            dead = f"127.0.0.1:{unused.getsockname()[1]}"
        servers = {
            "plain": f'target = "127.0.0.1:{target.port}"',
            "by_name": f'target = "localhost:{target.port}"',
            "several": f'target = ["{dead}", "127.0.0.1:{target.port}"]',
        }
        with proxy(directory, servers) as gate:
            yield Field(gate, keys, target, directory)
            gate.stop()
            assert "Traceback" not in "".join(gate.lines)


def test_both_ways(field: Field, version: Version) -> None:
    """What either side says reaches the other, and an end is an end."""
    client, target = field.connect(version)
    with client:
        client.send(b"question")
        assert target.recv(100) == b"question"
        target.sendall(b"answer")
        assert client.receive() == b"answer"
        client.end()
        assert target.recv(100) == b""
        target.close()
        assert client.receive() == b""


def test_target_speaks_first(field: Field, version: Version) -> None:
    """A protocol whose server speaks first works: the target hears of the client at once."""
    client, target = field.connect(version)
    with client:
        target.sendall(b"220 ready\r\n")
        assert client.receive() == b"220 ready\r\n"


@pytest.mark.parametrize("server", ["by_name", "several"])
def test_other_targets(field: Field, server: str) -> None:
    """A host name is looked up; of several targets one that refuses is passed over."""
    for _ in range(3):
        client, target = field.connect(server=server)
        with client:
            client.send(b"question")
            assert target.recv(100) == b"question"


def test_client_half_closes(field: Field, version: Version) -> None:
    """A client that ends its stream gets the whole answer all the same: the target sees the
    end, and what it then sends arrives."""
    client, target = field.connect(version)
    answer = random.Random(1).randbytes(5 * _MIB)
    with client:
        client.send(b"all of the question")
        client.end()
        assert read_all(target) == b"all of the question"
        sender = threading.Thread(target=_say, args=(target.sendall, answer, target.close))
        sender.start()
        assert client.receive_all() == answer
        sender.join()


def _say(send: Callable[[bytes], None], data: bytes, end: Callable[[], None]) -> None:
    send(data)
    end()


def test_client_half_closes_tcp_too(field: Field, version: Version) -> None:
    """The same for a client that ends TCP's direction as well, after its close_notify."""
    client, target = field.connect(version)
    with client:
        client.send(b"question")
        client.end()
        client.socket.shutdown(socket.SHUT_WR)
        assert read_all(target) == b"question"
        target.sendall(b"answer")
        target.close()
        assert client.receive_all() == b"answer"


_TRUST = 'proxy_protocol = "required"\n  trusted_proxies = ["127.0.0.1"]'
_HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"


@pytest.mark.parametrize(
    ("of_server", "preface"),
    [
        ('server_names = ["localhost"]', b""),
        (_TRUST, _HEADER),
        (f'server_names = ["localhost"]\n{_TRUST}', _HEADER),
    ],
    ids=["chosen by name", "by way of a proxy", "both"],
)
def test_half_closes_whatever_is_before(
    tmp_path: Path, of_server: str, preface: bytes, version: Version
) -> None:
    """Directions end one by one, and resets are resets, where servers share an address or a
    proxy connects, too."""
    keys = Keys.write(tmp_path)
    with (
        Target() as listening,
        proxy(tmp_path, {"p": f'target = "127.0.0.1:{listening.port}"'}, of_server) as gate,
    ):
        with TlsSocket(gate.port("p"), keys, version, preface) as client:
            target = listening.accept()
            client.send(b"question")
            client.end()
            client.socket.shutdown(socket.SHUT_WR)
            assert read_all(target) == b"question"
            target.sendall(b"answer")
            target.close()
            assert client.receive_all() == b"answer"
        with TlsSocket(gate.port("p"), keys, version, preface) as client:
            target = listening.accept()
            target.sendall(b"half of")
            assert client.receive() == b"half of"
            reset(target)
            assert client.ending() == "ECONNRESET"
        assert "Traceback" not in gate.stop()


@pytest.mark.parametrize("proxy_protocol", ["v1", "v2"])
def test_onward_header(tmp_path: Path, proxy_protocol: str) -> None:
    """The header that goes to the target tells the client's address as the proxy before the
    gate told it, and what the client connected to."""
    keys = Keys.write(tmp_path)
    with Target() as listening:
        onward = f'target = "127.0.0.1:{listening.port}"\nproxy_protocol = "{proxy_protocol}"'
        with (
            proxy(tmp_path, {"p": onward}, _TRUST) as gate,
            TlsSocket(gate.port("p"), keys, None, _HEADER) as client,
        ):
            target = listening.accept()
            client.send(b"question")
            client.end()
            reader = HeaderReader()
            header = reader.feed(read_all(target))
            assert isinstance(header, Header)
            assert header.source == IPv4Address("TCP", "192.0.2.7", 4711)
            assert header.destination == IPv4Address("TCP", "198.51.100.1", 443)
            assert reader.rest == b"question"


def test_target_half_closes(field: Field, version: Version) -> None:
    """A target that ends its stream hears the rest of the client's: the client gets a
    close_notify, and what it still sends arrives."""
    client, target = field.connect(version)
    rest = random.Random(2).randbytes(5 * _MIB)
    with client:
        target.sendall(b"no more from here")
        target.shutdown(socket.SHUT_WR)
        assert client.receive_all() == b"no more from here"
        received = bytearray()
        reader = threading.Thread(target=lambda: received.extend(read_all(target)))
        reader.start()
        client.send(rest)
        client.end()
        reader.join()
        assert received == rest


def test_client_resets(field: Field, version: Version) -> None:
    """A client's reset reaches the target as a reset, after what the client had sent."""
    client, target = field.connect(version)
    client.send(b"question")
    assert target.recv(100) == b"question"
    client.reset()
    assert ending(target) == (b"", "reset")


def test_client_is_cut_off(field: Field, version: Version) -> None:
    """A client whose connection ends without a close_notify was cut off, perhaps by somebody
    in between: the target gets every byte that came, and then a reset and no end."""
    client, target = field.connect(version)
    sent = random.Random(3).randbytes(3 * _MIB)
    received: list[tuple[bytes, str]] = []
    reader = threading.Thread(target=lambda: received.append(ending(target)))
    target.sendall(b"go")
    # Closing a socket with something unread in it, if only a session ticket, is a reset.
    assert client.receive() == b"go"
    client.send(sent)
    client.close()
    reader.start()
    reader.join()
    assert received == [(sent, "reset")]


def test_target_resets(field: Field, version: Version) -> None:
    """A target's reset reaches the client as a reset: no close_notify, which would make what
    came look whole."""
    client, target = field.connect(version)
    with client:
        target.sendall(b"half of")
        assert client.receive() == b"half of"
        reset(target)
        assert client.ending() == "ECONNRESET"


def test_target_resets_after_much(field: Field, version: Version) -> None:
    """What a target sent before its reset and the gate had read is delivered first."""
    client, target = field.connect(version)
    with client:
        client.send(b"x")
        assert target.recv(10) == b"x"
        target.sendall(b"y" * _MIB)
        received = 0
        while received < _MIB:
            received += len(client.receive())
        reset(target)
        assert client.ending() == "ECONNRESET"


def test_early_data_is_held_back(field: Field, version: Version) -> None:
    """What a client sends along with its handshake, before the target is there, arrives."""
    early = random.Random(4).randbytes(2 * _MIB)
    client = TlsSocket(field.gate.port("plain"), field.keys, version)
    with client:
        sender = threading.Thread(target=_say, args=(client.send, early, client.end))
        sender.start()
        assert read_all(field.target.accept()) == early
        sender.join()


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost(field: Field, version: Version, seed: int) -> None:
    """Whatever the sizes and the timing, and whoever ends first, both sides get every byte
    of the other, in order, and then an end."""
    chance = random.Random(seed)
    client, target = field.connect(version)
    sizes = [0, 1, 100, 16384, 65535, 65536, 65537, _MIB, 3 * _MIB]
    upwards, downwards = (chance.randbytes(chance.choice(sizes)) for _ in range(2))

    def pieces(data: bytes, limit: int) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            size = chance.randint(1, limit)
            yield data[at : at + size]
            at += size

    limit = chance.choice([1000, 20_000, 300_000])
    chunks_up, chunks_down = list(pieces(upwards, limit)), list(pieces(downwards, limit))
    received = bytearray()

    def serve() -> None:
        for chunk in chunks_down:
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)

    def listen() -> None:
        received.extend(read_all(target))

    threads = [threading.Thread(target=serve), threading.Thread(target=listen)]
    for thread in threads:
        thread.start()
    with client:
        answer = client.exchange(chunks_up)
        for thread in threads:
            thread.join()
    assert _digest(answer) == _digest(downwards)
    assert _digest(received) == _digest(upwards)


def _digest(data: bytes | bytearray) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def test_a_gate_stopped_while_bytes_pass_is_quiet(tmp_path: Path) -> None:
    """A gate that is stopped while bytes pass says nothing but that."""
    keys = Keys.write(tmp_path)
    limits = 'idle_timeout = "1h"\nmax_lifetime = "1h"'
    with (
        Target() as listening,
        proxy(tmp_path, {"p": f'target = "127.0.0.1:{listening.port}"\n{limits}'}) as gate,
        TlsSocket(gate.port("p"), keys) as client,
    ):
        target = listening.accept()
        target.sendall(b"x")
        assert client.receive() == b"x"
        rest = gate.stop()
        assert "Traceback" not in rest
        assert "Unhandled" not in rest
        assert ending(target)[0] == b""


_STALLED = 16


@pytest.mark.parametrize("direction", ["up", "down"])
def test_stopped_readers_cost_little(field: Field, direction: str) -> None:
    """A reader that stops, on either side, stops the writer on the other: each such
    connection costs the gate less than 1 MiB, however much is waiting; and nothing of it is
    lost when the reader goes on."""
    block = random.Random(5).randbytes(256 * 1024)
    with ExitStack() as stack:
        before = resident(field.gate.process.pid)
        pairs = [field.connect() for _ in range(_STALLED)]
        senders = []
        for client, target in pairs:
            stack.enter_context(client)
            if direction == "down":
                target.setblocking(False)
                senders.append([target.send, 0])
            else:
                client.socket.setblocking(False)
                senders.append([client.connection.send, 0])
        idle_rounds = 0
        waiting = threading.Event()
        while idle_rounds < 5:
            moved = False
            for sender in senders:
                with suppress(BlockingIOError, SSL.WantWriteError):
                    sender[1] += sender[0](block)  # type: ignore[operator]
                    moved = True
            idle_rounds = 0 if moved else idle_rounds + 1
            if not moved:
                waiting.wait(0.1)
        grown = resident(field.gate.process.pid) - before
        waited = sum(int(sender[1]) for sender in senders)  # type: ignore[call-overload]
        assert waited > _STALLED * _MIB
        assert grown < _STALLED * _MIB
        # And on it goes.
        for client, target in pairs[:2]:
            if direction == "down":
                target.setblocking(True)
                target.close()
                assert len(client.receive_all()) > _MIB
            else:
                assert len(target.recv(1000)) == 1000


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_gigabyte(field: Field, direction: str) -> None:
    """A gigabyte passes whole, in bounded memory, with a reader that stops now and then."""
    block = random.Random(6).randbytes(_MIB)
    count = 1024
    client, target = field.connect()
    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(block)
    found = hashlib.sha256()
    peak = before = resident(field.gate.process.pid)

    def write() -> None:
        if direction == "up":
            for _ in range(count):
                client.send(block)
            client.end()
        else:
            for _ in range(count):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    with client:
        writer.start()
        received = 0
        next_look = 64 * _MIB
        while True:
            data = target.recv(_MIB) if direction == "up" else client.receive(_MIB)
            if not data:
                break
            found.update(data)
            received += len(data)
            if received >= next_look:
                # Stop until the writer is stopped, too.
                next_look += 128 * _MIB
                threading.Event().wait(0.1)
                peak = max(peak, resident(field.gate.process.pid))
        writer.join()
    assert received == count * _MIB
    assert found.digest() == expected.digest()
    # A few pieces of what is read at once, and no more of the gigabyte.
    assert peak - before < 4 * _MIB
