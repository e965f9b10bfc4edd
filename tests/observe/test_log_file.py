"""Lines reach their file whole, or are counted; nobody waits, and nothing is said twice."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from mtlsgate.observe.log_file import LogFile
from mtlsgate.observe.owner import NOBODY_ELSE, acting_as


def gap(count: int) -> bytes:
    return b"lost %d\n" % count


class Disk:
    """
    Writes as the script says: so many bytes at most, or an error.

    :ivar script: what is left of it; after it all goes well.
    """

    def __init__(self, *script: int | OSError) -> None:
        self.script = list(script)

    def __call__(self, descriptor: int, data: bytes) -> int:
        step = self.script.pop(0) if self.script else len(data)
        if isinstance(step, OSError):
            raise step
        return os.write(descriptor, data[:step])


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def said() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


def texts(events: Sequence[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in events]


def test_a_line_is_in_the_file_at_once(path: Path) -> None:
    """Nothing waits in the process, where it would be lost with it."""
    path.write_bytes(b"before\n")
    file = LogFile(path, gap)
    file.write(b"one\n")
    assert path.read_bytes() == b"before\none\n"
    file.write(b"two\n")
    assert path.read_bytes() == b"before\none\ntwo\n"
    file.close()
    file.write(b"three\n")
    assert path.read_bytes() == b"before\none\ntwo\n"
    assert file.lost == 0


def test_only_its_owner_may_read_it(path: Path) -> None:
    """Mode 0600 when it is made, whatever the umask; its own where it is there."""
    before = os.umask(0)
    try:
        LogFile(path, gap).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    LogFile(path, gap).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_two_writers(path: Path) -> None:
    """Their lines stand one after the other."""
    one, other = LogFile(path, gap), LogFile(path, gap)
    for number in range(3):
        one.write(b"one %d\n" % number)
        other.write(b"other %d\n" % number)
    assert path.read_bytes() == b"one 0\nother 0\none 1\nother 1\none 2\nother 2\n"
    one.close()
    other.close()


@pytest.mark.parametrize("error", [FULL, BROKEN], ids=["ENOSPC", "EIO"])
def test_a_full_disk(path: Path, said: Sequence[LogEvent], error: OSError) -> None:
    """It is said once, and once when it is over; the file tells where lines are missing."""
    file = LogFile(path, gap, write=Disk(4, error, error, error))
    for line in (b"one\n", b"two\n", b"tri\n"):
        file.write(line)
    assert file.is_failing
    assert file.lost == 2
    assert texts(said) == [
        f"the audit log {path} cannot be written: {error.strerror}; connections continue, but "
        "their events are missing from it"
    ]
    # The third error meets the line about the gap.
    file.write(b"for\n")
    assert file.lost == 3
    file.write(b"fiv\n")
    assert path.read_bytes() == b"one\nlost 3\nfiv\n"
    assert not file.is_failing
    assert texts(said)[1:] == [f"the audit log {path} is written again; 3 lines are missing"]
    assert [event["log_level"] for event in said] == [LogLevel.error, LogLevel.info]
    file.write(b"six\n")
    assert path.read_bytes().endswith(b"fiv\nsix\n")
    file.close()


def test_the_second_time_is_said_again(path: Path, said: Sequence[LogEvent]) -> None:
    """Each time counts its own lines."""
    file = LogFile(path, gap, write=Disk(FULL, 7, 4, FULL))
    for _ in range(4):
        file.write(b"abc\n")
    assert [text.rpartition("; ")[2] for text in texts(said)] == [
        "connections continue, but their events are missing from it",
        "1 lines are missing",
    ] * 2
    assert file.lost == 2
    file.close()


def test_a_line_cut_in_two_is_completed(path: Path) -> None:
    """What did not fit of it comes before all else."""
    file = LogFile(path, gap, write=Disk(2, FULL, 1, FULL))
    file.write(b"one\n")
    assert path.read_bytes() == b"on"
    file.write(b"two\n")
    assert path.read_bytes() == b"one"
    file.write(b"tri\n")
    assert path.read_bytes() == b"one\nlost 1\ntri\n"
    assert file.lost == 1
    file.close()


def test_a_write_of_nothing_is_an_error(path: Path) -> None:
    """And not tried for ever."""
    file = LogFile(path, gap, write=Disk(0))
    file.write(b"one\n")
    assert file.lost == 1
    file.close()


@given(
    st.lists(st.one_of(st.integers(0, 12), st.sampled_from([FULL, BROKEN])), max_size=40),
    st.integers(1, 30),
)
def test_whatever_the_disk_does(
    tmp_path_factory: pytest.TempPathFactory, script: list[int | OSError], count: int
) -> None:
    """Every line is in the file whole and in order, or counted as missing where it would be."""
    path = tmp_path_factory.mktemp("disk") / "audit.log"
    file = LogFile(path, gap, write=Disk(*script))
    for number in range(count):
        file.write(b"line %d\n" % number)
    lost = file.lost
    for number in range(count, count + 60):
        # The script is over some time, and then all is well.
        file.write(b"line %d\n" % number)
    assert not file.is_failing
    assert lost <= file.lost
    expected = 0
    for line in path.read_bytes().decode().splitlines():
        word, value = line.split()
        if word == "lost":
            expected += int(value)
        else:
            assert (word, int(value)) == ("line", expected)
            expected += 1
    assert expected == count + 60
    file.close()


def test_the_real_full_disk(said: Sequence[LogEvent]) -> None:
    """/dev/full has room for nothing."""
    file = LogFile(Path("/dev/full"), gap)
    for _ in range(100):
        file.write(b"line\n")
    assert file.lost == 100
    assert len(said) == 1
    file.close()


def test_a_renamed_file_is_followed_when_asked(path: Path) -> None:
    """As a rotation does it: until then lines go to the old one, then to a new one."""
    file = LogFile(path, gap)
    file.write(b"one\n")
    old = path.rename(path.with_suffix(".1"))
    file.write(b"two\n")
    assert file.reopen()
    file.write(b"three\n")
    assert old.read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.close()


@pytest.mark.parametrize("renamed", [True, False])
def test_a_cut_line_and_a_rotation(path: Path, renamed: bool) -> None:
    """It is completed where it began."""
    file = LogFile(path, gap, write=Disk(2, FULL))
    file.write(b"one\n")
    old = path.rename(path.with_suffix(".1")) if renamed else path
    file.reopen()
    file.write(b"two\n")
    assert old.read_bytes() == (b"one\n" if renamed else b"one\ntwo\n")
    assert path.read_bytes() == (b"two\n" if renamed else b"one\ntwo\n")
    assert file.lost == 0
    file.close()


def test_a_cut_line_that_stays_cut_is_lost(path: Path) -> None:
    """Nor does its rest begin the next file."""
    file = LogFile(path, gap, write=Disk(2, FULL, FULL))
    file.write(b"one\n")
    old = path.rename(path.with_suffix(".1"))
    file.reopen()
    file.write(b"two\n")
    assert old.read_bytes() == b"on"
    assert path.read_bytes() == b"lost 1\ntwo\n"
    file.close()


def test_a_directory_that_vanished(tmp_path: Path, said: Sequence[LogEvent]) -> None:
    """Lines go on into the open file, it is said once, and is well when the directory is back."""
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "audit.log"
    file = LogFile(path, gap)
    directory.rename(tmp_path / "old")
    for _ in range(3):
        assert not file.reopen()
        file.write(b"line\n")
    assert (tmp_path / "old" / "audit.log").read_bytes() == b"line\n" * 3
    assert file.is_failing
    assert len(said) == 1
    assert "cannot be opened again: No such file or directory" in formatEvent(said[0])
    directory.mkdir()
    assert file.reopen()
    assert texts(said)[1:] == [f"the audit log {path} is open again; 0 lines are missing"]
    file.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    file.close()


def test_a_file_that_was_removed_is_made_again(path: Path) -> None:
    """Within a second, without being asked: nobody could ever read the one that is open."""
    now = [0.0]
    file = LogFile(path, gap, seconds=lambda: now[0])
    path.unlink()
    now[0] = 1.0
    file.write(b"line\n")
    assert path.read_bytes() == b"line\n"
    assert file.lost == 0
    file.close()


def test_a_file_removed_with_its_directory(tmp_path: Path, said: Sequence[LogEvent]) -> None:
    """What cannot be kept is counted, and it is looked for again each second."""
    directory = tmp_path / "logs"
    directory.mkdir()
    path, now = directory / "audit.log", [0.0]
    file = LogFile(path, gap, seconds=lambda: now[0])
    path.unlink()
    directory.rmdir()
    for second in range(1, 4):
        now[0] = second
        file.write(b"line\n")
        file.write(b"line\n")
    assert file.lost == 6
    assert len(said) == 1
    directory.mkdir()
    file.write(b"line\n")
    assert file.lost == 7
    now[0] += 1
    file.write(b"line\n")
    assert path.read_bytes() == b"lost 7\nline\n"
    assert texts(said)[1:] == [f"the audit log {path} is open again; 7 lines are missing"]
    assert not file.is_failing
    file.close()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Without a reader it cannot be opened; with one that does not read, lines are lost."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        LogFile(path, gap)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = LogFile(path, gap)
    for _ in range(2000):
        file.write(b"x" * 99 + b"\n")
    assert file.lost > 0
    file.close()
    os.close(reader)


def test_descriptors_do_not_add_up(path: Path) -> None:
    """Each is closed once another is open."""
    file = LogFile(path, gap)
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert file.reopen()
    assert len(os.listdir("/proc/self/fd")) == count
    file.close()
    assert len(os.listdir("/proc/self/fd")) == count - 1


# Whose it is, and whose powers it is opened with

USER = (12345, 54321)
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else")


@as_root
def test_it_is_made_for_whom_the_gate_will_be(path: Path) -> None:
    """One that is there stays whose it is."""
    LogFile(path, gap, USER).close()
    assert (path.stat().st_uid, path.stat().st_gid) == USER
    LogFile(path, gap, (23456, 65432)).close()
    assert path.stat().st_uid == 12345


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """Neither at start nor when it is opened again: where it leads is not touched."""
    target = tmp_path / "precious"
    target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        LogFile(path, gap)
    path.unlink()
    path.symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="symbolic link"):
        LogFile(path, gap)
    path.unlink()
    file = LogFile(path, gap)
    path.rename(tmp_path / "audit.log.1")
    path.symlink_to(target)
    assert not file.reopen()
    file.write(b"line\n")
    file.close()
    assert target.read_text() == "precious"
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "audit.log.1").read_bytes() == b"line\n"


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory of the user's, where that user can come to."""
    with TemporaryDirectory() as name:
        os.chown(name, *USER)
        yield Path(name)


@as_root
@pytest.mark.parametrize("how", ["file", "hard link", "symbolic link", "directory link"])
def test_in_a_directory_of_the_users_only_the_users_powers_count(theirs: Path, how: str) -> None:
    """Whatever the user has put there: what only root may write stays as it is."""
    path = theirs / "audit.log"
    with TemporaryDirectory() as roots:
        precious = Path(roots, "audit.log")
        precious.write_text("precious")
        precious.chmod(0o600)
        if how == "file":
            path.write_text("precious")
            path.chmod(0o600)
        elif how == "hard link":
            os.link(precious, path)
        elif how == "symbolic link":
            path.symlink_to(precious)
        else:
            (theirs / "sub").symlink_to(roots)
            path = theirs / "sub" / "audit.log"
        if how == "directory link":
            # Where the user cannot come to, root does not either.
            with pytest.raises(OSError, match="denied"):
                LogFile(theirs / "sub" / "new.log", gap, USER)
            assert os.listdir(roots) == ["audit.log"]
        with pytest.raises(OSError, match=r"denied|symbolic link"):
            LogFile(path, gap, USER)
        assert precious.read_text() == "precious"
        assert precious.stat().st_uid == 0


@as_root
def test_in_a_directory_of_roots_it_is_made_by_root(path: Path) -> None:
    """As /var/log is: the user cannot change what a name leads to there."""
    LogFile(path, gap, USER).close()
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (USER[0], 0)


@as_root
def test_powers_are_given_back() -> None:
    """All of them, whatever happens meanwhile."""
    before = os.getresuid(), os.getresgid(), os.getgroups()

    def fail() -> None:
        with acting_as(USER):
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (*USER, [USER[1]])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    with acting_as(NOBODY_ELSE):
        assert os.geteuid() == 0


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_standard_output_will_do(name: str, kind: str) -> None:
    """Although it is a link; also where it is a socket, as under systemd."""
    script = (
        "from pathlib import Path\n"
        "from mtlsgate.observe.log_file import LogFile\n"
        f"file = LogFile(Path('/dev/{name}'), lambda count: b'')\n"
        "file.write(b'line\\n')\n"
        "file.close()\n"
    )
    ours, other = socket.socketpair()
    with ours, other:
        given = subprocess.PIPE if kind == "pipe" else other.fileno()
        streams: dict[str, int] = {name: given}
        done = subprocess.run([sys.executable, "-c", script], check=True, **streams)  # type: ignore[call-overload]
        assert (getattr(done, name) if kind == "pipe" else ours.recv(100)) == b"line\n"
