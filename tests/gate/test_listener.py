"""A listening socket, and what stands behind it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IListeningPort, IReadDescriptor
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from mtlsgate.gate.listener import Listener
from mtlsgate.load.addresses import HostError, SocketAddress
from mtlsgate.run.sockets import PlainSocket, bind_tcp
from mtlsgate.run.unix_sockets import listen_on_unix
from tests.kits.gate import Log


@define
class Accepts:
    """
    :ivar took: the addresses at both ends of what it took.
    :ivar stopped: how often it was stopped.
    """

    took: list[tuple[IAddress, IAddress]] = field(factory=list)
    stopped: int = 0

    def accept(self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: Any) -> object:
        self.took.append((peer, host))
        sock.close()
        return self

    def stop(self) -> None:
        self.stopped += 1


class Fails(Accepts):
    def accept(self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: Any) -> object:
        raise ZeroDivisionError


class Broken:
    """A socket on which accepting fails."""

    family = socket.AF_UNIX

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.tries = 0

    @property
    def sock(self) -> Any:
        return self

    def accept(self) -> tuple[socket.socket, str]:
        self.tries += 1
        number = self.errors.pop(0) if self.errors else errno.EAGAIN
        raise OSError(number, os.strerror(number))

    def getsockname(self) -> str:
        return "/x"

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


@define
class Told:
    """
    :ivar count: how many connections were accepted.
    :ivar pauses: the listener that pauses if there is no room, or None.
    """

    count: int = 0
    exhaustions: int = 0
    pauses: Listener | None = None

    def accepted(self) -> None:
        self.count += 1

    def exhausted(self) -> None:
        self.exhaustions += 1
        if self.pauses is not None:
            self.pauses.pause()


class Open:
    """
    A listener on a real socket, in a reactor by hand.

    :ivar port: of the socket.
    """

    def __init__(self, acceptor: Accepts, host: str = "127.0.0.1") -> None:
        self.reactor = MemoryReactorClock()
        self.told = Told()
        bound = PlainSocket(bind_tcp(SocketAddress(host, 0)))
        self.port = bound.sock.getsockname()[1]
        self.listener = Listener("key", bound, acceptor, self.reactor, self.told)
        self.listener.startListening()
        self.clients: list[socket.socket] = []

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        self.clients.append(socket.create_connection((host, self.port)))
        return self.clients[-1]

    def close(self) -> None:
        self.listener.stopListening()
        for client in self.clients:
            client.close()


@pytest.fixture
def acceptor() -> Accepts:
    return Accepts()


@pytest.fixture
def opened(acceptor: Accepts) -> Iterator[Open]:
    found = Open(acceptor)
    yield found
    found.close()


def test_it_accepts(opened: Open, acceptor: Accepts) -> None:
    """With the addresses at both ends."""
    verifyObject(IReadDescriptor, opened.listener)
    verifyObject(IListeningPort, opened.listener)
    name = opened.connect().getsockname()
    opened.listener.doRead()
    host = IPv4Address("TCP", "127.0.0.1", opened.port)
    assert acceptor.took == [(IPv4Address("TCP", *name), host)]
    assert opened.listener.getHost() == host
    assert opened.told.count == 1


def test_a_wildcard_tells_which_address_was_meant(acceptor: Accepts) -> None:
    opened = Open(acceptor, "0.0.0.0")
    opened.connect("127.0.0.2")
    opened.listener.doRead()
    assert acceptor.took[0][1] == IPv4Address("TCP", "127.0.0.2", opened.port)
    opened.close()


def test_ipv6_clients_are_accepted(acceptor: Accepts) -> None:
    try:
        opened = Open(acceptor, "::1")
    except HostError:
        pytest.skip("no IPv6 here")
    name = opened.connect("::1").getsockname()
    opened.listener.doRead()
    assert acceptor.took == [
        (IPv6Address("TCP", *name), IPv6Address("TCP", "::1", opened.port, 0, 0))
    ]
    opened.close()


def test_unix_sockets(tmp_path: Path, acceptor: Accepts) -> None:
    path = tmp_path / "s"
    listener = Listener("unix:s", listen_on_unix(path, 0o600, 5), acceptor, MemoryReactorClock())
    listener.startListening()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.doRead()
    assert acceptor.took == [(UNIXAddress(None), UNIXAddress(os.fsencode(path)))]
    listener.stopListening()
    assert not path.exists()


def test_many_in_one_turn_but_not_without_end(opened: Open, acceptor: Accepts) -> None:
    """So that those who are there already have their turn as well."""
    for _ in range(70):
        opened.connect()
    opened.listener.doRead()
    assert len(acceptor.took) == 64
    opened.listener.doRead()
    assert len(acceptor.took) == 70


def test_what_waits_is_accepted_before_the_end(opened: Open, acceptor: Accepts) -> None:
    """The kernel would reset it, although those clients are connected."""
    for _ in range(70):
        opened.connect()
    opened.listener.accept_waiting()
    opened.close()
    assert len(acceptor.took) == 70


def test_a_paused_listener_accepts_nothing_at_its_end(opened: Open, acceptor: Accepts) -> None:
    """Where descriptors are scarce, more would not help."""
    opened.connect()
    opened.listener.pause()
    opened.listener.accept_waiting()
    assert acceptor.took == []


def test_another_takes_over_in_one_step(opened: Open, acceptor: Accepts) -> None:
    """Clients that wait in the kernel are the next one's."""
    following = Accepts()
    opened.connect()
    assert opened.listener.turn_to(following) is acceptor
    opened.listener.doRead()
    assert (len(acceptor.took), len(following.took)) == (0, 1)


def test_while_it_pauses_clients_wait(opened: Open, acceptor: Accepts) -> None:
    opened.listener.pause()
    opened.connect()
    assert opened.reactor.getReaders() == []
    opened.listener.doRead()
    assert acceptor.took == []
    opened.listener.resume()
    opened.listener.doRead()
    assert len(acceptor.took) == 1


def test_the_end(opened: Open) -> None:
    """The address is free, and nothing brings the listener back."""
    opened.listener.stopListening()
    opened.listener.stopListening()
    opened.listener.resume()
    assert (opened.reactor.getReaders(), opened.listener.fileno()) == ([], -1)
    bind_tcp(SocketAddress("127.0.0.1", opened.port)).close()


def test_a_connection_that_fails_as_it_comes(log: Log) -> None:
    """... costs nobody else theirs."""
    opened = Open(Fails())
    clients = [opened.connect(), opened.connect()]
    opened.listener.doRead()
    log.expect_failure(ZeroDivisionError, ZeroDivisionError)
    for client in clients:
        client.settimeout(60)
        assert client.recv(1) == b""
    assert opened.told.count == 2
    opened.close()


def broken(*errors: int) -> tuple[Listener, Broken, Told, MemoryReactorClock]:
    sock, told, reactor = Broken(*errors), Told(), MemoryReactorClock()
    listener = Listener("key", sock, Accepts(), reactor, told)
    listener.startListening()
    return listener, sock, told, reactor


def test_a_client_that_is_gone_before_it_is_accepted() -> None:
    """The next one is looked at."""
    listener, sock, told, _ = broken(errno.ECONNABORTED, errno.EPROTO)
    listener.doRead()
    assert (sock.tries, told.exhaustions) == (3, 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_no_room(log: Log, number: int) -> None:
    """Whoever looks after descriptors decides how long all listeners pause."""
    listener, sock, told, reactor = broken(number)
    told.pauses = listener
    listener.doRead()
    assert (sock.tries, told.exhaustions) == (1, 1)
    assert reactor.getReaders() == []
    assert reactor.getDelayedCalls() == []
    listener.resume()
    assert reactor.getReaders() == [listener]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EMFILE])
def test_what_fails_is_not_tried_without_end(number: int) -> None:
    """A listener that cannot accept rests, says so, and tries again."""
    listener, sock, _, reactor = broken(number, number)
    with capturedLogs() as events:
        listener.doRead()
        assert reactor.getReaders() == []
        reactor.advance(1.0)
        assert reactor.getReaders() == [listener]
        listener.doRead()
    assert sock.tries == 2
    listener.stopListening()
    assert reactor.getDelayedCalls() == []
    assert [event["listener"] for event in events] == ["key", "key"]
