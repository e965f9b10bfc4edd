"""
The files that the log is written to: rotation, modes, a full disk.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from mtlsgate.observe.log_stream import OpenFile, RotatedFile
from tests.kits.logged import Logged


def opened(path: Path, max_size: int = 0, keep: int = 2) -> RotatedFile:
    return RotatedFile(OpenFile.open(path), max_size, keep)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_a_new_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    """Whatever the umask says; a file that is there keeps its mode."""
    before = os.umask(0o077)
    try:
        opened(tmp_path / "new").write("x\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "there").touch(0o600)
    opened(tmp_path / "there").write("x\n")
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o600


def test_it_begins_a_new_file_when_it_has_grown(tmp_path: Path) -> None:
    """The last ones are kept, and no line is torn."""
    log = opened(tmp_path / "log", max_size=10, keep=2)
    for number in range(8):
        log.write(f"line{number}\n")
    assert contents(tmp_path) == {
        "log": "line7\n",
        "log.1": "line6\n",
        "log.2": "line5\n",
    }


def test_a_line_longer_than_the_file_may_be_is_written(tmp_path: Path) -> None:
    """Into a file of its own."""
    log = opened(tmp_path / "log", max_size=4)
    for text in ("a\n", "much longer\n", "b\n"):
        log.write(text)
    assert contents(tmp_path) == {"log": "b\n", "log.1": "much longer\n", "log.2": "a\n"}


def test_it_never_rotates_by_itself_without_a_size(tmp_path: Path) -> None:
    """Zero stands for no limit."""
    log = opened(tmp_path / "log")
    for _ in range(100):
        log.write("line\n")
    assert contents(tmp_path) == {"log": "line\n" * 100}


def test_a_signal_rotates_it(tmp_path: Path) -> None:
    """As twistd does."""
    log = opened(tmp_path / "log")
    log.write("one\n")
    log.rotate()
    log.write("two\n")
    assert contents(tmp_path) == {"log": "two\n", "log.1": "one\n"}


@pytest.mark.parametrize("is_made", [True, False])
def test_a_file_that_was_moved_away_is_only_opened_again(tmp_path: Path, is_made: bool) -> None:
    """As by logrotate, with its `create` and without."""
    log = opened(tmp_path / "log")
    log.write("one\n")
    (tmp_path / "log").rename(tmp_path / "log-20261126")
    if is_made:
        (tmp_path / "log").touch()
    log.write("still there\n")
    log.rotate()
    log.write("two\n")
    assert contents(tmp_path) == {"log": "two\n", "log-20261126": "one\nstill there\n"}


def test_a_file_that_cannot_be_moved_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says so once in each `max_size`, and not with every line."""
    log = opened(tmp_path / "log", max_size=100)
    with Logged("mtlsgate.log") as said:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", refuse)
            for _ in range(50):
                log.write("lines\n")
        assert [event["why"] for event in said.events] == ["Permission denied"] * 3
        assert contents(tmp_path) == {"log": "lines\n" * 50}
        log.rotate()
        assert len(said.events) == 3
        assert contents(tmp_path) == {"log": "", "log.1": "lines\n" * 50}


def refuse(*_: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_the_rest_of_a_torn_line_is_not_joined_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in the middle of a line."""
    log = opened(tmp_path / "log")
    real, room = os.write, [3]

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(descriptor, data[: room[0]])
        room[0] -= count
        return count

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                log.write("first line\n")
    log.write("second\n")
    log.write("third\n")
    assert contents(tmp_path) == {"log": "fir\nsecond\nthird\n"}


def test_two_streams_of_one_file_close_it_once(tmp_path: Path) -> None:
    """As when a reload changes only its size."""
    log = opened(tmp_path / "log", max_size=10)
    other = RotatedFile(log.file, 0, 5)
    log.close_unless_in(other)
    other.write("written\n")
    other.close_unless_in(opened(tmp_path / "another"))
    with pytest.raises(OSError, match="Bad file"):
        other.write("closed\n")
