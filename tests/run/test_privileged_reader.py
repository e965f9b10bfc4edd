"""
With --uid: what only root may read is read again when the configuration is loaded anew.
"""

from __future__ import annotations

import errno
import os
import pwd
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from mtlsgate.load.file_state import stamp
from mtlsgate.observe.owner import acting_as
from mtlsgate.run.privileged_reader import PrivilegedReader, ReadingRules, reader_if_root
from mtlsgate.testing import Authority
from tests.kits.programs import RUN, RunningGate, gate
from tests.kits.service import ROOT, server

pytestmark = [
    pytest.mark.usefixtures("measured"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else"),
    pytest.mark.slow,
]

USER = (12345, 54321)


@pytest.fixture
def roots() -> Iterator[Path]:
    """A directory that only root may look into; not where pytest keeps things."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def key(roots: Path) -> Path:
    """A file that only root may read."""
    path = roots / "server.key"
    path.write_text("key")
    path.chmod(0o600)
    return path


def rules(*paths: Path) -> ReadingRules:
    """:returns: those after a start that read these."""
    return ReadingRules(USER, {str(path): stamp(path) for path in paths})


def content(opened: int) -> str:
    with open(opened) as file:
        return file.read()


def refused(found: ReadingRules, path: Path | str) -> bool:
    try:
        os.close(found.open(str(path)))
    except PermissionError as error:
        return error.errno == errno.EACCES
    return False


# What may be read


def test_what_was_read_at_the_start(key: Path) -> None:
    """Also once it has changed: root alone can have changed it."""
    found = rules(key)
    assert content(found.open(str(key))) == "key"
    other = key.with_name("new")
    other.write_text("renewed")
    other.replace(key)
    assert content(found.open(str(key))) == "renewed"


def test_nothing_else(key: Path, roots: Path) -> None:
    """Neither beside it, nor by another spelling of a name."""
    (roots / "other.key").write_text("secret")
    (roots / "sub").mkdir()
    found = rules(key)
    for path in (
        roots / "other.key",
        roots,
        "/etc/shadow",
        f"{roots}/sub/../server.key",
        f"{roots}//server.key",
        "server.key",
        "",
    ):
        assert refused(found, path)


def test_what_comes_into_a_directory_that_was_read(roots: Path) -> None:
    """As a new pin does; not what is below another directory in it."""
    (roots / "sub").mkdir()
    (roots / "sub" / "x").touch()
    found = rules(roots)
    (roots / "new.crt").write_text("pin")
    assert content(found.open(str(roots / "new.crt"))) == "pin"
    os.close(found.open(str(roots)))
    assert refused(found, roots / "sub" / "x")
    assert refused(found, f"{roots}/..")
    assert refused(found, f"{roots}/.")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_nothing_but_files(roots: Path, kind: str) -> None:
    """... and directories; nothing is waited for."""
    path = roots / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        path = Path("/dev/null")
    with pytest.raises(OSError, match=r"denied|No such device"):
        rules(path).open(str(path))


def test_a_name_in_a_directory_of_the_users_is_for_the_file_of_the_start(
    key: Path, roots: Path
) -> None:
    """The user can let the name lead to what only root may read."""
    roots.chmod(0o755)
    theirs = roots / "theirs"
    theirs.mkdir()
    own = theirs / "server.key"
    own.write_text("own")
    own.chmod(0o600)
    os.chown(theirs, *USER)
    found = rules(own)
    assert content(found.open(str(own))) == "own"
    own.rename(theirs / "away")
    own.symlink_to(key)
    assert refused(found, own)
    own.unlink()
    os.link(key, own)
    assert refused(found, own)


# The process


@pytest.fixture
def reader(key: Path) -> Iterator[PrivilegedReader]:
    made = PrivilegedReader.start()
    made.allow(USER, {key: stamp(key)})
    yield made
    made.close()


def test_it_hands_over_what_the_user_may_not_read(reader: PrivilegedReader, key: Path) -> None:
    """From several threads, too."""
    found: list[str] = []
    with acting_as(USER):
        with pytest.raises(PermissionError):
            os.open(key, os.O_RDONLY)
        threads = [
            Thread(target=lambda: found.append(content(reader.open(str(key), os.O_RDONLY))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(PermissionError):
            reader.open("/etc/shadow", os.O_RDONLY)
        with pytest.raises(FileNotFoundError):
            reader.open("/nowhere", os.O_RDONLY)
        assert stamp(key) is None
        assert stamp(key, reader.open) is not None
    assert found == ["key"] * 8


def test_its_end_is_no_worse_than_its_absence(key: Path) -> None:
    """The file is as unreadable as it was."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, acting_as(USER), pytest.raises(PermissionError):
        PrivilegedReader(ours, 0).open(str(key), os.O_RDONLY)


def test_it_reads_nothing_before_it_is_told_for_whom(key: Path) -> None:
    """It is started before the configuration is read."""
    made = PrivilegedReader.start()
    with acting_as(USER), pytest.raises(PermissionError):
        made.open(str(key), os.O_RDONLY)
    made.close()


def test_what_it_may_read_is_set_once(reader: PrivilegedReader, key: Path) -> None:
    """A gate that is no longer root may be an attacker's, and must get no further file."""
    other = key.with_name("other.key")
    other.write_text("other")
    other.chmod(0o600)
    with acting_as(USER):
        reader.allow(USER, {other: None})
        for path in (other, key):
            with pytest.raises(PermissionError):
                reader.open(str(path), os.O_RDONLY)


def test_only_root_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else can become another user."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert reader_if_root() is None


# The real twistd


NOBODY = pwd.getpwnam("nobody")
COMMAND = ("twistd", "-n", "--pidfile=", "--uid=nobody")


def furnish(directory: Path, more: str = "") -> Path:
    """:returns: a configuration whose files are root's alone."""
    own = ROOT.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    config = directory / "gate.hcl"
    config.write_text(f"{more}\n" + server().replace("unix:door.sock", "127.0.0.1:0"))
    for name, data in (("ca.crt", ROOT.pem), ("s.crt", own.pem), ("s.key", own.key_pem)):
        (directory / name).write_bytes(data)
    for path in directory.iterdir():
        path.chmod(0o600)
    return config


def renew(directory: Path) -> None:
    """Put another certificate and key in the place of the server's."""
    own = ROOT.issue("renewed", dns_names=["localhost"], usages=["server_auth"])
    for name, data in (("s.key", own.key_pem), ("s.crt", own.pem)):
        beside = directory / f"{name}.new"
        beside.write_bytes(data)
        beside.chmod(0o600)
        beside.replace(directory / name)


def reload(running: RunningGate) -> str:
    running.process.send_signal(signal.SIGHUP)
    return running.read_until("mtlsgate.reloads")


@pytest.mark.parametrize(
    ("more", "command"), [("", COMMAND), ('settings {\n  user = "nobody"\n}', RUN)]
)
def test_a_reload_after_privileges_were_dropped(
    roots: Path, more: str, command: tuple[str, ...]
) -> None:
    """Nothing of the configuration is readable for the user, not even its directory."""
    config = furnish(roots, more)
    with gate(config, command, cwd=Path("/")) as running:
        assert "epoch 2 is in force" in reload(running)
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert f"Uid:\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}" in status
        assert f"Groups:\t{NOBODY.pw_gid} \n" in status
        assert "runs as root" not in "".join(running.lines)
        renew(roots)
        assert "another server certificate" in reload(running)
        assert "epoch 3 is in force" in running.read_until("mtlsgate.reloads")
        (roots / "ca.crt").write_bytes(Authority.create("Other").pem)
        assert "CA CN=Other" in reload(running)


def test_a_change_is_noticed_after_privileges_were_dropped(roots: Path) -> None:
    """With watch = true."""
    config = furnish(roots, "settings {\n  watch = true\n}")
    with gate(config, COMMAND, cwd=Path("/")) as running:
        renew(roots)
        assert "epoch 2 is in force" in running.read_until("is in force")


def test_in_a_directory_of_the_users_what_has_not_changed_is_kept(roots: Path) -> None:
    """What has changed, and the user may not read, is refused in a line."""
    roots.chmod(0o755)
    directory = roots / "theirs"
    directory.mkdir()
    config = furnish(directory)
    for path in (directory, config, directory / "ca.crt", directory / "s.crt"):
        os.chown(path, NOBODY.pw_uid, -1)
    with gate(config, COMMAND, cwd=Path("/")) as running:
        assert "epoch 2 is in force" in reload(running)
        renew(directory)
        os.chown(directory / "s.crt", NOBODY.pw_uid, -1)
        said = reload(running)
        assert 'private_key_file: "s.key" permission denied' in said
        (directory / "s.key").chmod(0o644)
        running.process.send_signal(signal.SIGHUP)
        assert "epoch 3 is in force" in running.read_until("is in force, ")


def test_the_reader_ends_with_the_gate(roots: Path) -> None:
    """However the gate ends; and it keeps nothing of the gate's open."""
    config = furnish(roots)
    with gate(config, COMMAND, cwd=Path("/")) as running:
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        [child] = children.read_text().split()
        ended = os.pidfd_open(int(child))
        assert Path(f"/proc/{child}/status").read_text().count("Uid:\t0\t0\t0\t0") == 1
        assert len(os.listdir(f"/proc/{child}/fd")) == 4
        assert Path(f"/proc/{child}/comm").read_text() == "mtlsgate-reader\n"
        running.process.kill()
        # Its output ends, too: the reader does not hold it.
        running.rest()
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)
