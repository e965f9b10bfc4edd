"""
Taking, keeping and giving back the place of the admin endpoint.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.selectreactor import SelectReactor

from mtlsgate.admin.service import AdminService
from mtlsgate.admin.sockets import AdminListenError, take
from mtlsgate.gate.listener import Listener
from mtlsgate.load.addresses import SocketAddress
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.epoch import Epoch
from mtlsgate.run.control import GateHandle
from mtlsgate.testing import RecordingFactory

TOKEN = b"0123456789abcdef"


def at(path: Path, token: bytes | None = None) -> AdminEndpoint:
    return AdminEndpoint(f"unix:{path}", path, token=token)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_its_mode_is_the_owners(tmp_path: Path) -> None:
    """0600, whatever the umask is; and it listens."""
    path = tmp_path / "gate.sock"
    before = os.umask(0)
    try:
        [taken] = take(at(path))
    finally:
        os.umask(before)
    found = path.lstat().st_mode
    assert stat.S_ISSOCK(found)
    assert stat.S_IMODE(found) == 0o600
    assert connects(path)
    taken.give_back()
    assert not path.exists()


def test_nothing_but_the_socket_changes_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if somebody who may write to its directory puts a link in its place
    before it gets its owner."""
    path, victim = tmp_path / "gate.sock", tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o644)
    changed: list[Path] = []

    def swap() -> None:
        path.unlink()
        path.symlink_to(victim)

    def chown(name: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        swap()
        changed.append(name.resolve() if follow_symlinks else name)

    monkeypatch.setattr(os, "chown", chown)
    [taken] = take(at(path), owner=(12345, 12345))
    taken.give_back()
    assert changed == [path]
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


def test_a_dead_process_socket_is_replaced(tmp_path: Path) -> None:
    """What nobody listens on is removed."""
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    [taken] = take(at(path))
    assert connects(path)
    taken.give_back()


@pytest.mark.parametrize("is_full", [False, True])
def test_a_living_one_is_an_error(tmp_path: Path, is_full: bool) -> None:
    """Another process' socket stays where it is, also if it is too busy to answer."""
    path = tmp_path / "gate.sock"
    clients = []
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen(0)
        for _ in range(2 if is_full else 0):
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            clients[-1].connect_ex(str(path))
        with pytest.raises(AdminListenError, match="another process listens there"):
            take(at(path))
        assert path.exists()
    for client in clients:
        client.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file, a directory or a link of that name is an error, and stays."""
    path = tmp_path / "gate.sock"
    path.write_text("precious")
    link = tmp_path / "link.sock"
    link.symlink_to(path)
    for place in (path, link, tmp_path):
        with pytest.raises(AdminListenError, match="it is there, and is not a socket"):
            take(at(place))
    assert path.read_text() == "precious"


def test_errors_are_in_words(tmp_path: Path) -> None:
    """No directory, no permission, an address that is taken: one line each."""
    with pytest.raises(AdminListenError) as caught:
        take(at(tmp_path / "gone" / "gate.sock"))
    assert str(caught.value) == (
        f"admin: cannot listen on {tmp_path}/gone/gate.sock: no such directory"
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = SocketAddress("127.0.0.1", other.getsockname()[1])
        with pytest.raises(AdminListenError, match="another process listens there"):
            take(AdminEndpoint("", addresses=(SocketAddress("127.0.0.1", 0), address)))


def test_without_an_endpoint_nothing_is_taken() -> None:
    """No block, no socket."""
    assert take(None) == ()


# With a reactor


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A real one, that is not installed."""
    made = SelectReactor()
    yield made
    for reader in made.removeAll():
        reader.connectionLost(None)


def turn(reactor: Any) -> None:
    """Let everything happen that is due."""
    for _ in range(5):
        reactor.iterate(0)


def test_the_port_keeps_the_mode(tmp_path: Path, reactor: Any) -> None:
    """Twisted gives a socket that it takes over mode 0666; not this one."""
    path = tmp_path / "gate.sock"
    [taken] = take(at(path))
    inode = path.lstat().st_ino
    port = taken.listen(RecordingFactory(), reactor)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert path.lstat().st_ino == inode
    port.stopListening()
    turn(reactor)
    assert not path.exists()


def test_another_gates_socket_is_not_removed(tmp_path: Path, reactor: Any) -> None:
    """If another has taken the path meanwhile, the end of this one is not its end."""
    path = tmp_path / "gate.sock"
    [taken] = take(at(path))
    port = taken.listen(RecordingFactory(), reactor)
    path.rename(tmp_path / "old.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        port.stopListening()
        turn(reactor)
        assert connects(path)


class Service:
    """
    An admin service on a reactor of its own.

    :ivar drained: fires the gate's end.
    """

    def __init__(self, endpoint: AdminEndpoint | None, reactor: Any) -> None:
        self.drained: Deferred[None] = Deferred()
        self.reactor = reactor
        self.admin = AdminService(
            GateHandle(), endpoint, take(endpoint), reactor, lambda: self.drained
        )
        self.admin.privilegedStartService()
        self.admin.startService()

    def follow(self, endpoint: AdminEndpoint | None) -> None:
        self.admin.prepare(Epoch("gate.hcl", (), None, endpoint, ())).commit()  # type: ignore[arg-type]
        turn(self.reactor)

    def ask(self, path: Path, token: bytes | None = None) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            line = b"" if token is None else b"Authorization: Bearer " + token + b"\r\n"
            client.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n")
            turn(self.reactor)
            return client.recv(12)

    def stop(self) -> None:
        stopped: list[object] = []
        self.admin.stopService().addCallback(stopped.append)
        turn(self.reactor)
        assert not stopped
        self.drained.callback(None)
        turn(self.reactor)
        assert stopped


def test_a_new_place_is_taken_and_the_old_one_left(tmp_path: Path, reactor: Any) -> None:
    """After a reload the endpoint is where the new configuration says."""
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    service = Service(at(first), reactor)
    assert connects(first)
    service.follow(at(second))
    assert not first.exists()
    assert connects(second)
    service.follow(None)
    assert not second.exists()
    service.follow(at(first))
    assert connects(first)
    service.stop()
    assert not first.exists()


def test_a_new_token_counts_at_once(tmp_path: Path, reactor: Any) -> None:
    """The place stays the same socket; the token is the new one's."""
    path = tmp_path / "gate.sock"
    service = Service(at(path, TOKEN), reactor)
    inode = path.lstat().st_ino
    assert service.ask(path, TOKEN) == b"HTTP/1.1 503"
    other = TOKEN[::-1]
    service.follow(at(path, other))
    assert path.lstat().st_ino == inode
    assert service.ask(path, TOKEN) == b"HTTP/1.1 401"
    assert service.ask(path, other) == b"HTTP/1.1 503"
    service.stop()


def test_a_place_that_cannot_be_had_changes_nothing(tmp_path: Path, reactor: Any) -> None:
    """The reload is refused, and the endpoint stays."""
    path = tmp_path / "gate.sock"
    service = Service(at(path), reactor)
    with pytest.raises(AdminListenError):
        service.follow(at(tmp_path / "gone" / "gate.sock"))
    assert connects(path)
    assert service.admin.endpoint == at(path)
    service.stop()


@pytest.mark.parametrize("following", ["without a token", "none"])
def test_who_came_before_needs_the_token_still(
    tmp_path: Path, reactor: Any, following: str
) -> None:
    """A connection that waits for the token to be dropped with its place gains nothing."""
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    service = Service(at(first, TOKEN), reactor)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(first))
        turn(reactor)
        service.follow(None if following == "none" else at(second))
        waiting.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        turn(reactor)
        assert waiting.recv(12) == b"HTTP/1.1 401"
    service.follow(at(first))
    assert service.ask(first) == b"HTTP/1.1 503"
    service.stop()


def test_a_place_that_cannot_be_listened_on_changes_nothing(
    tmp_path: Path, reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... though it could be taken; it is given back before the epoch takes over."""
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    service = Service(at(first), reactor)

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(Listener, "startListening", fail)
        with pytest.raises(OSError, match="Too many open files"):
            service.follow(at(second))
    assert not second.exists()
    assert service.ask(first) == b"HTTP/1.1 503"
    service.follow(at(second))
    assert not first.exists()
    assert service.ask(second) == b"HTTP/1.1 503"
    service.stop()


def test_it_ends_last(tmp_path: Path, reactor: Any) -> None:
    """While the gate drains it still answers."""
    path = tmp_path / "gate.sock"
    service = Service(at(path), reactor)
    stopped: list[object] = []
    service.admin.stopService().addCallback(stopped.append)
    turn(reactor)
    assert service.ask(path) == b"HTTP/1.1 503"
    assert not stopped
    service.drained.callback(None)
    turn(reactor)
    assert stopped
    assert not path.exists()


def test_one_that_never_started_gives_its_place_back(tmp_path: Path, reactor: Any) -> None:
    """Nothing is left behind."""
    path = tmp_path / "gate.sock"
    service = AdminService(GateHandle(), at(path), take(at(path)), reactor, lambda: succeed(None))
    service.stopService()
    assert not path.exists()
