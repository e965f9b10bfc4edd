from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mtlsgate.load.addresses import HostError, SocketAddress, SystemdAddress, UnixAddress
from mtlsgate.run.sockets import Sockets, adapt, bind_tcp
from mtlsgate.run.unix_sockets import UnixSocketError, listen_on_unix

# TCP


def test_binding_listens() -> None:
    with bind_tcp(SocketAddress("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_an_address_that_is_taken_is_said() -> None:
    with bind_tcp(SocketAddress("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(HostError) as caught:
            bind_tcp(SocketAddress("127.0.0.1", port))
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: another process listens there (ss -ltnp shows which)"
    )


def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(HostError) as caught:
        bind_tcp(SocketAddress("192.0.2.1", 8443))
    assert str(caught.value) == (
        "cannot listen on 192.0.2.1:8443: it is not an address of this machine"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.EACCES, "Permission denied"),
            "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE",
        ),
        (OSError(errno.ENOBUFS, "No buffer space available"), "No buffer space available"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_failure_to_bind_is_put_in_words(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise error

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(HostError) as caught:
        bind_tcp(SocketAddress("127.0.0.1", 443))
    assert str(caught.value) == f"cannot listen on 127.0.0.1:443: {expected}"


def test_an_ipv6_socket_takes_no_ipv4_connections() -> None:
    """So that IPv4 clients keep IPv4 addresses, and 0.0.0.0 has its own socket."""
    try:
        bound = bind_tcp(SocketAddress("::1", 0))
    except HostError:
        pytest.skip("no IPv6 here")
    with bound:
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


# Unix sockets


def unix(directory: Path) -> Sockets:
    return Sockets(directory=directory)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def test_a_unix_socket(tmp_path: Path) -> None:
    """Relative to where the gate was started, whatever its directory is later."""
    bound = unix(tmp_path).take(UnixAddress("gate.sock", 0o640))
    path = tmp_path / "gate.sock"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o640
    assert connects(path)
    bound.close()
    assert not path.exists()


def test_a_mode_beyond_the_umask(tmp_path: Path) -> None:
    """... is what is asked for, and the umask as it was."""
    before = os.umask(0o077)
    try:
        bound = unix(tmp_path).take(UnixAddress("gate.sock", 0o666))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "gate.sock").lstat().st_mode) == 0o666
    bound.close()


def test_a_socket_that_nobody_listens_on_is_taken_over(tmp_path: Path) -> None:
    """As one that was killed leaves behind, whatever its number was; and its lock file."""
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (tmp_path / "gate.sock.lock").symlink_to(str(os.getpid()))
    bound = unix(tmp_path).take(UnixAddress(str(path)))
    assert connects(path)
    bound.close()


def test_a_socket_that_somebody_listens_on_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    bound = unix(tmp_path).take(UnixAddress(str(path)))
    with pytest.raises(HostError, match=f"cannot listen on {path}: another process listens"):
        unix(tmp_path).take(UnixAddress(str(path)))
    assert connects(path)
    bound.close()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    path.write_text("precious")
    with pytest.raises(HostError, match="it is there, and is not a socket"):
        unix(tmp_path).take(UnixAddress(str(path)))
    assert path.read_text() == "precious"


def test_another_socket_of_the_same_name_stays(tmp_path: Path) -> None:
    """If somebody else took the name meanwhile."""
    path = tmp_path / "gate.sock"
    bound = unix(tmp_path).take(UnixAddress(str(path)))
    path.rename(tmp_path / "old.sock")
    other = unix(tmp_path).take(UnixAddress(str(path)))
    bound.close()
    assert connects(path)
    other.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("no/such/gate.sock", "no such directory"), ("x" * 200, "the path is too long for a socket")],
)
def test_a_unix_socket_that_cannot_be_had(tmp_path: Path, name: str, expected: str) -> None:
    """... is one line."""
    with pytest.raises(HostError) as caught:
        unix(tmp_path).take(UnixAddress(name))
    assert str(caught.value) == f"cannot listen on {tmp_path / name}: {expected}"


def test_another_mode(tmp_path: Path) -> None:
    """... is set on the socket that is there, and on nothing else of its name."""
    path = tmp_path / "gate.sock"
    bound = unix(tmp_path).take(UnixAddress("gate.sock", 0o600))
    adapt(bound, UnixAddress("gate.sock", 0o660))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    path.unlink()
    path.write_text("precious")
    path.chmod(0o600)
    adapt(bound, UnixAddress("gate.sock", 0o666))
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    bound.close()
    assert path.read_text() == "precious"


# Sockets that were passed


@pytest.fixture
def passed() -> Iterator[list[tuple[str, socket.socket]]]:
    """Two that listen, one that does not."""
    loopback = SocketAddress("127.0.0.1", 0)
    with bind_tcp(loopback) as one, bind_tcp(loopback) as two, socket.socket() as idle:
        yield [("gate", one), ("twice", two), ("twice", idle)]


def systemd(index: int | None = None, name: str | None = None) -> SystemdAddress:
    return SystemdAddress("INET", index, name)


def test_a_passed_socket_is_known_by_number_and_by_name(
    passed: list[tuple[str, socket.socket]],
) -> None:
    """... and is one and the same, however it is written."""
    sockets = Sockets(passed)
    for address in (systemd(0), systemd(name="gate")):
        assert sockets.key_of(address) == "systemd:index=0"
        bound = sockets.take(address)
        assert bound.sock.getsockname() == passed[0][1].getsockname()
        bound.close()
    assert sockets.key_of(systemd(1)) == "systemd:index=1"


def test_a_passed_socket_is_never_closed(passed: list[tuple[str, socket.socket]]) -> None:
    """Each listener has a copy, so that the address can come back."""
    sockets = Sockets(passed)
    for _ in range(3):
        sockets.take(systemd(0)).close()
    with socket.create_connection(passed[0][1].getsockname()):
        bound = sockets.take(systemd(name="gate"))
        accepted, _ = bound.sock.accept()
        accepted.close()
        bound.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (systemd(3), "the last socket passed is index=2"),
        (systemd(name="twice"), "2 sockets have that name; use index="),
        (systemd(name="x"), 'the sockets passed are called "gate", "twice", "twice"'),
        (systemd(2), "it is not a listening stream socket"),
        # A client gate trusts that only this machine reaches a unix socket.
        (SystemdAddress("UNIX", 0), "the socket passed is of another domain"),
    ],
)
def test_a_passed_socket_that_cannot_be_had(
    passed: list[tuple[str, socket.socket]], address: SystemdAddress, expected: str
) -> None:
    with pytest.raises(HostError) as caught:
        Sockets(passed).take(address)
    assert str(caught.value) == f"cannot listen on {address}: {expected}"


def test_nothing_was_passed() -> None:
    """... to a gate that is started by hand."""
    sockets = Sockets.of_process()
    assert sockets.key_of(systemd(0)) == "systemd:domain=INET:index=0"
    with pytest.raises(HostError, match="the service manager passed no socket to this process"):
        sockets.take(systemd(0))


def test_a_unix_socket_is_taken_over(tmp_path: Path) -> None:
    """In one step: who connects afterwards reaches the new one, who was connected stays with
    the old one, and its end does not take the new one's file away."""
    path = tmp_path / "s"
    old = listen_on_unix(path, 0o600, 5)
    with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
        early.connect(str(path))
        new = listen_on_unix(path, 0o660, 5, takeover=True)
        late.connect(str(path))
        # That of `early`, and the one that looked whether somebody listens.
        for _ in range(2):
            old.sock.accept()[0].close()
        with pytest.raises(BlockingIOError):
            old.sock.accept()
        new.sock.accept()[0].close()
    old.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert [one.name for one in tmp_path.iterdir()] == ["s"]
    new.close()
    assert list(tmp_path.iterdir()) == []


def test_takeover_needs_nothing_to_take_over(tmp_path: Path) -> None:
    """The first gate starts as without it; something that is no socket stays."""
    path = tmp_path / "s"
    listen_on_unix(path, 0o600, 5, takeover=True).close()
    path.write_text("precious")
    with pytest.raises(UnixSocketError, match="is not a socket"):
        listen_on_unix(path, 0o600, 5, takeover=True)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_shared_only_with_takeover(host: str) -> None:
    """Both must want it."""
    try:
        first = bind_tcp(SocketAddress(host, 0, takeover=True))
    except HostError:
        pytest.skip("no IPv6 here")
    port = first.getsockname()[1]
    bind_tcp(SocketAddress(host, port, takeover=True)).close()
    with pytest.raises(HostError, match="another process listens there"):
        bind_tcp(SocketAddress(host, port))
    first.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else")
@pytest.mark.parametrize("mode", [0o600, 0o666])
@pytest.mark.parametrize("directory_owner", [(12345, 54321), (0, 0)])
def test_a_socket_for_another_user(mode: int, directory_owner: tuple[int, int]) -> None:
    """It is theirs, with the mode that was asked for, in a directory of theirs and in one
    of root's."""
    user = (12345, 54321)
    with TemporaryDirectory() as name:
        os.chown(name, *directory_owner)
        os.chmod(name, 0o755)
        path = Path(name) / "gate.sock"
        made = listen_on_unix(path, mode, 5, user)
        found = path.stat()
        made.close()
    assert (found.st_uid, found.st_gid) == user
    assert stat.S_IMODE(found.st_mode) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else")
def test_a_servers_socket_is_the_gates_users(tmp_path: Path) -> None:
    """Who drops privileges must be able to connect to it, and to remove it."""
    taken = Sockets(directory=tmp_path, owner=(12345, 54321)).take(UnixAddress("s", 0o600))
    found = (tmp_path / "s").stat()
    taken.close()
    assert (found.st_uid, found.st_gid) == (12345, 54321)
