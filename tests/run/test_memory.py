"""
What must not stay: epochs that are over, and connections that are.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import ref

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from mtlsgate.admission import AdmissionPolicy
from mtlsgate.certificates.certificate import view
from mtlsgate.certificates.development_ca import Authority, self_signed
from mtlsgate.gate.connection import Connection
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.entry import Entry
from mtlsgate.load.epoch import Epoch
from mtlsgate.reasons import Cause
from mtlsgate.testing import Client, Version
from mtlsgate.tls.engine import Engine
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.server import GateContext, TlsPolicy
from tests.kits.gate import Log, localhost, rule
from tests.kits.pki import NOW, pki
from tests.kits.service import ISSUING, PINNED, MemoryService, a_server

pytestmark = pytest.mark.slow

#: What there is one of for each connection.
PER_CONNECTION = (Connection, Engine, EngineConnection, Entry)


@pytest.fixture(autouse=True)
def _what_others_left_behind() -> Iterator[None]:
    """... of other tests in this process is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is freed but by the last reference to it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(*kinds: type) -> dict[str, int]:
    """:returns: how many objects there are of each class, once garbage is gone."""
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds))


# Epochs


def test_a_context_needs_no_garbage_collection() -> None:
    """OpenSSL's copies of everything are freed with the last reference."""
    authority = Authority.create("CA")
    policy = TlsPolicy((localhost(),), AdmissionPolicy((rule(ca=authority),)))
    with uncollected():
        context = GateContext(policy)
        connection = context.accept()
        gone = ref(context), ref(context._contexts[0])
        del context
        # It answers for its connections as long as there are any.
        assert all(one() is not None for one in gone)
        del connection
        assert [one() for one in gone] == [None, None]


@pytest.mark.parametrize("rest", ["", 'server_names = ["localhost"]'])
def test_old_epochs_are_garbage(tmp_path: Path, log: Log, version: Version, rest: str) -> None:
    """... as soon as nobody is there who came under them, whatever came after them."""
    texts = [a_server(rules=rules, rest=rest) for rules in (ISSUING, PINNED)]
    running = MemoryService(tmp_path, texts[0])
    options = {"min_version": version, "max_version": version, "server_name": "localhost"}
    epochs: list[ref[Epoch]] = []
    contexts: list[ref[GateContext]] = []
    clients: list[Client] = []

    def note() -> None:
        epochs.append(ref(running.service.runner.epoch))
        contexts.append(ref(running.service.runner.epoch.servers[0].gate.context))

    note()
    # One that stays from the first on, and one that is half way in.
    clients += running.enter(pki().client, **options), running.connect(pki().client, **options)
    clients[1].step()
    for number in range(1, 6):
        running.enter(pki().client, **options).close()
        running.connect(pki().stranger, **options).send(b"knock")
        assert running.reload(texts[number % 2]).problems == ()
        note()
    gc.collect()
    assert [one() is not None for one in epochs] == [False] * 5 + [True]
    assert [one() is not None for one in contexts] == [True] + [False] * 4 + [True]
    clients[0].send(b"still")
    assert clients[0].receive() == b"still"
    while clients:
        clients.pop().reset()
    gc.collect()
    assert [one() is not None for one in contexts] == [False] * 5 + [True]
    assert alive(Entrance) == {"Entrance": 1}


def test_a_reload_leaves_nothing_of_openssls_to_the_collector(tmp_path: Path, log: Log) -> None:
    """Each Context takes 100 KB, of which the collector knows nothing: it may look for
    garbage after the next fifty reloads only.  That holds for the self-test's, too."""
    running = MemoryService(tmp_path, a_server())
    before = alive(SSL.Context, SSL.Connection)
    with uncollected():
        for rules in (PINNED, ISSUING, PINNED):
            assert running.reload(a_server(rules=rules)).problems == ()
        kinds = (SSL.Context, SSL.Connection)
        now = Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds))
    assert now == before


def test_what_could_not_take_over_is_garbage(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server())
    for _ in range(3):
        assert running.reload(a_server() + a_server(rules="")).problems
        assert not running.reload(a_server(rules=PINNED), is_trial=True).problems
    assert alive(Epoch, GateContext) == {"Epoch": 1, "GateContext": 1}


# Connections


def come_and_go(client: Client) -> None:
    client.send(b"knock")
    client.close()


def reset(client: Client) -> None:
    client.step()
    client.reset()


def end(client: Client) -> None:
    client.reset()


@pytest.mark.parametrize("who", ["client", "stranger", "nobody"])
@pytest.mark.parametrize("leave", [come_and_go, reset, end])
@pytest.mark.parametrize("rest", ["", 'server_names = ["localhost"]'])
def test_nothing_is_left_of_connections(
    tmp_path: Path,
    log: Log,
    version: Version,
    who: str,
    leave: Callable[[Client], None],
    rest: str,
) -> None:
    """Admitted, rejected or broken off: what they were made of goes with them."""
    running = MemoryService(tmp_path, a_server(rest=rest + '\n  idle_timeout = "1h"'))
    credential = None if who == "nobody" else getattr(pki(), who)
    for _ in range(5):
        client = running.connect(
            credential, min_version=version, max_version=version, server_name="localhost"
        )
        leave(client)
        del client
    assert len(running.connections) == 0
    assert alive(*PER_CONNECTION) == {}


def test_nothing_grows_with_strangers(tmp_path: Path, log: Log, version: Version) -> None:
    """
    A hundred leave as little behind as ten: those that were here before, and
    those that show another certificate each, as large as they like.
    """
    running = MemoryService(tmp_path, a_server())
    known, key = pki().stranger, ec.generate_private_key(ec.SECP256R1())
    names = [f"{number}.example" for number in range(500)]

    def strangers(count: int) -> int:
        for number in range(count):
            other = self_signed(str(number), dns_names=names, key=key, now=NOW)
            for credential in (known, other):
                come_and_go(running.connect(credential, min_version=version, max_version=version))
        log.events.clear()
        gc.collect()
        return len(gc.get_objects())

    # Twisted's log keeps the last few hundred events.
    strangers(150)
    before = strangers(10)
    assert strangers(100) - before < 100


def test_accounts_do_not_grow(tmp_path: Path, log: Log) -> None:
    """Of those that have been there the tables that count hold nothing."""
    running = MemoryService(
        tmp_path, a_server(rest='max_connections_per_ip = 10\n idle_timeout = "1h"')
    )
    for _ in range(3):
        come_and_go(running.connect(pki().client))
        come_and_go(running.connect(pki().stranger))
    [tally] = running.connections.tallies.values()
    assert (dict(tally.by_source), dict(tally.by_identity)) == ({}, {})
    assert set(tally.counts.values()) == {0}


def test_what_is_noted_of_the_ended_is_small(tmp_path: Path, log: Log) -> None:
    """Neither their transport nor how to end them, so that no epoch hangs on it."""
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().client)
    [entry] = running.connections
    client.close()
    assert (entry.ended, entry.connection) == (True, None)
    running.connections.close(entry, Cause.DRAINED)  # nothing happens


# What is remembered of certificates


def test_certificates_of_a_sensible_size_are_remembered() -> None:
    """What was read of one is read once; but a stranger cannot fill the memory with
    what it shows."""
    small = self_signed("small").certificate
    names = [f"{number}.example" for number in range(1000)]
    large = self_signed("large", dns_names=names).certificate
    assert view(small) is view(x509.load_der_x509_certificate(view(small).der))
    assert view(large) is not view(large)
    for one in (small, large):
        assert view(one).sha256 == one.fingerprint(hashes.SHA256())


# Giving back


def test_what_an_old_epoch_took_is_given_back(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once live connections are judged again, and not for an attempt that failed."""
    given: list[None] = []
    monkeypatch.setattr("mtlsgate.run.epoch_runner.give_back", lambda: given.append(None))
    running = MemoryService(tmp_path, a_server())
    running.reload("server {")
    assert given == []
    running.reload(a_server(rules=PINNED))
    assert given == [None]


def test_what_a_flood_took_is_given_back(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second the gate looks at how many there are."""
    looks: list[int] = []
    monkeypatch.setattr(
        "mtlsgate.run.memory_trim.MemoryTrim.look", lambda _, count: looks.append(count)
    )
    running = MemoryService(tmp_path, a_server())
    clients = [running.connect(None) for _ in range(3)]
    running.reactor.advance(1)
    for client in clients:
        client.reset()
    running.reactor.advance(1)
    assert looks == [3, 0]
