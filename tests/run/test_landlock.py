"""
What a process can still do in the sandbox, and what not: in a process that is forked for it.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtlsgate.run.landlock import PORTS_ABI, Rights, landlock_abi, restrict
from tests.kits.programs import lacking, run

#: The child only makes system calls; of Python 3.12 and later.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture
def abi() -> int:
    """The kernel's version of Landlock."""
    found = landlock_abi()
    if not found:
        lacking("this kernel has no Landlock")
    return found


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A directory that is allowed; beside it is one that is not."""
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside" / "file")
    return tmp_path / "inside"


def in_sandbox(rights: Rights, abi: int, act: Callable[[], object]) -> object:
    """:returns: what a function returns or raises in a process with these rights only."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            restrict(rights, abi)
            found = act()
        except Exception as error:  # noqa: BLE001 -- it is the test's
            found = error
        os.write(writing, pickle.dumps(found))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        found = pickle.load(answer)
    os.waitpid(child, 0)
    return found


def problem(rights: Rights, abi: int, act: Callable[[], object]) -> type:
    return type(in_sandbox(rights, abi, act))


@pytest.mark.parametrize("name", ["/etc/shadow", "/etc/passwd", "/proc/self/root/etc/shadow"])
def test_what_is_outside_cannot_be_read(inside: Path, abi: int, name: str) -> None:
    """Nor by another name; root cannot either."""
    rights = Rights(read=frozenset([inside, Path("/proc")]))
    assert problem(rights, abi, lambda: Path(name).read_bytes()) is PermissionError


def test_a_link_leads_nowhere_outside(inside: Path, abi: int) -> None:
    """Whoever makes a link inside reads no more by it."""
    rights = Rights(read=frozenset([inside]))
    assert in_sandbox(rights, abi, (inside / "file").read_text) == "inside"
    assert problem(rights, abi, (inside / "link").read_text) is PermissionError
    assert problem(rights, abi, lambda: os.listdir(inside.parent)) is PermissionError


def test_a_file_that_is_renamed_into_place_is_read(inside: Path, abi: int) -> None:
    """Of an allowed directory, whatever comes into it."""

    def renewed() -> str:
        os.kill(os.getpid(), 0)
        return (inside / "file").read_text()

    (inside / "new").write_text("renewed")
    (inside / "new").replace(inside / "file")
    assert in_sandbox(Rights(read=frozenset([inside])), abi, renewed) == "renewed"


def test_a_single_file_can_be_allowed(inside: Path, abi: int) -> None:
    """And not what is beside it."""
    rights = Rights(read=frozenset([inside / "file"]), write=frozenset([inside / "file"]))
    assert in_sandbox(rights, abi, (inside / "file").read_text) == "inside"
    assert in_sandbox(rights, abi, lambda: (inside / "file").write_text("x")) == 1
    assert problem(rights, abi, (inside / "other").touch) is PermissionError


def test_what_is_read_cannot_be_written(inside: Path, abi: int) -> None:
    """Nor removed, nor can anything be made there."""
    rights = Rights(read=frozenset([inside]))
    for act in (
        lambda: (inside / "file").write_text("x"),
        (inside / "file").unlink,
        (inside / "new").touch,
        lambda: (inside / "file").rename(inside / "other"),
    ):
        assert problem(rights, abi, act) is PermissionError


def test_where_is_written_files_are_made_renamed_and_removed(inside: Path, abi: int) -> None:
    """As logs and sockets are; but read they are not."""

    def act() -> str:
        log = inside / "gate.log"
        log.write_text("line\n")
        log.rename(inside / "gate.log.1")
        log.write_text("line\n")
        log.unlink()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(inside / "s"))
        (inside / "s").unlink()
        return "done"

    rights = Rights(write=frozenset([inside]))
    assert in_sandbox(rights, abi, act) == "done"
    assert problem(rights, abi, (inside / "file").read_text) is PermissionError


def test_names_can_be_listed_without_the_files(inside: Path, abi: int) -> None:
    """As Python does to find what is installed."""
    rights = Rights(list=frozenset([inside]))
    assert in_sandbox(rights, abi, lambda: sorted(os.listdir(inside))) == ["file", "link"]
    assert problem(rights, abi, (inside / "file").read_text) is PermissionError


def test_only_these_ports_are_connected_to(abi: int) -> None:
    """The others are refused before anything is sent."""
    if abi < PORTS_ABI:
        lacking("this kernel's Landlock has no ports")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        ports = [sock.getsockname()[1] for sock in (one, two)]

        def connect(port: int) -> object:
            with socket.socket() as client:
                client.connect(("127.0.0.1", port))
            return "connected"

        rights = Rights(ports=frozenset(ports[:1]))
        assert in_sandbox(rights, abi, lambda: connect(ports[0])) == "connected"
        assert problem(rights, abi, lambda: connect(ports[1])) is PermissionError


def test_no_program_can_be_started(abi: int) -> None:
    """Not even one that may be read."""
    rights = Rights(read=frozenset([Path(sys.executable).resolve().parent, Path("/")]))

    def act() -> None:
        os.execv(sys.executable, [sys.executable, "-c", ""])

    assert problem(rights, abi, act) is PermissionError


def test_what_is_open_stays_usable(inside: Path, abi: int) -> None:
    """Logs, and listening sockets."""
    with (inside / "file").open("r+") as file:

        def act() -> str:
            file.write("more")
            file.flush()
            return "written"

        assert in_sandbox(Rights(), abi, act) == "written"


def test_what_is_not_there_is_left_out(inside: Path, abi: int) -> None:
    """A directory that some systems have and others not."""
    rights = Rights(read=frozenset([inside, inside / "no" / "such"]))
    assert in_sandbox(rights, abi, (inside / "file").read_text) == "inside"


@pytest.mark.parametrize("older", [1, 2, 3, 4, 5, 6])
def test_older_kernels_restrict_what_they_can(inside: Path, abi: int, older: int) -> None:
    """Reading, with every version there has been."""
    if older > abi:
        lacking(f"this kernel has Landlock {abi}")
    rights = Rights(read=frozenset([inside]), ports=frozenset([1]))
    assert in_sandbox(rights, older, (inside / "file").read_text) == "inside"
    assert problem(rights, older, Path("/etc/passwd").read_text) is PermissionError


def test_a_kernel_without_landlock_says_so() -> None:
    """As where seccomp filters the call."""
    code = (
        "import ctypes\n"
        "from mtlsgate.run import landlock\n"
        "class Libc:\n"
        "    def syscall(self, *arguments):\n"
        "        return -1\n"
        "ctypes.CDLL = lambda *_, **__: Libc()\n"
        "print(landlock.landlock_abi())\n"
    )
    assert run(sys.executable, "-c", code) == (0, "0\n")
