"""
Loads a configuration in a process of its own, and keeps the files as they were read.

The supervisor has no keys.  So another process loads the configuration, tests it, and
hands the supervisor a file in memory, which the supervisor passes to the workers
without looking into it.  That process may be unable to read a file, where
privileges were dropped; then it asks the supervisor for a descriptor.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from mtlsgate.errors import GateError
from mtlsgate.load.disk import Disk, FileSource
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.file_state import Opener, Stamp
from mtlsgate.load.loading import Loading, no_collection
from mtlsgate.load.outline import Outline
from mtlsgate.load.shadow import load_shadow, with_shadow
from mtlsgate.load.snapshot import Recording, Snapshot
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.run.event_loop import ReactorChoice
from mtlsgate.run.sandbox import make_directories
from mtlsgate.run.selftest import self_test

#: In bytes: messages are short.
_LARGEST = 65536
_ENDED = "the process that loads the configuration ended: see the log"
_SILENT = (
    "the process that loads the configuration does not come to an end: a file system that does "
    "not answer, or code of a protocol, holds it up"
)


@frozen
class Prepared:
    """
    A configuration that was loaded.

    :ivar files: a descriptor of its files, for `load.snapshot.Snapshot`; None if
        anything is wrong with it.
    :ivar seen: the files that were read, with their state at that time.
    :ivar problem: what is wrong with it, in lines; "" for nothing.
    """

    files: int | None
    seen: Mapping[Path, Stamp]
    problem: str = ""

    def outline(self, names: Sequence[str]) -> Outline:
        """
        :param names: the files and directories.
        :raises GateError: if anything is wrong with it.
        """
        if self.files is None:
            raise GateError(self.problem)
        return Loading(names, Surroundings(source=Snapshot(self.files))).outline()

    def close(self) -> None:
        """Give the files back."""
        if self.files is not None:
            os.close(self.files)


def pair() -> tuple[socket.socket, socket.socket]:
    """:returns: two ends, for `prepare` and `await_prepared`."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def prepare_in_child(
    names: Sequence[str], opener: Opener, say: Callable[[str], object], owner: Owner
) -> Prepared:
    """
    Fork a process that prepares a configuration, and makes the directories that the workers
    will write to.  Only while there is one thread.

    :param names: the files and directories, as the user named them.
    :param opener: opens files that the process may not open.
    :param say: prints a line of progress.
    :param owner: whom the gate becomes.
    """
    ours, theirs = pair()
    process = os.fork()
    if process == 0:
        try:
            ours.close()
            prepare(theirs, names, say, owner=owner)
        finally:
            # Without the gate's exit handlers.
            os._exit(0)
    theirs.close()
    with ours:
        try:
            return await_prepared(ours, opener)
        finally:
            os.waitpid(process, 0)


def await_prepared(end: socket.socket, opener: Opener) -> Prepared:
    """
    Wait for what `prepare` makes at the other end, and open files for it.

    :param opener: opens files that the other process may not open.
    :raises GateError: if the other process ended before, or is silent for longer than the
        socket's timeout.
    """
    while True:
        try:
            said, found, _, _ = socket.recv_fds(end, _LARGEST, 2)
        except TimeoutError as error:
            raise GateError(_SILENT) from error
        except OSError as error:
            raise GateError(_ENDED) from error
        if not said:
            raise GateError(_ENDED)
        if said.startswith(b"open "):
            _open_for(end, os.fsdecode(said[5:]), opener)
            continue
        with os.fdopen(found[0], "rb") as file:
            told: dict[str, Any] = json.load(file)
        seen = {
            Path(path): None if state is None else tuple(state)
            for path, state in told["seen"].items()
        }
        return Prepared(found[1] if len(found) > 1 else None, seen, told["problem"])


def _open_for(end: socket.socket, path: str, opener: Opener) -> None:
    try:
        descriptor = opener(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        end.send(b"%d" % (error.errno or errno.EACCES))
        return
    socket.send_fds(end, [b"0"], [descriptor])
    os.close(descriptor)


def prepare(
    end: socket.socket,
    names: Sequence[str],
    say: Callable[[str], object] | None = None,
    *,
    is_shadow: bool = False,
    owner: Owner = NOBODY_ELSE,
) -> None:
    """
    Load a configuration, test it, and send it to the other end.

    :param names: the files and directories.
    :param owner: for whom the directories are made that the gate will write to.
    :param is_shadow: whether it is one for the shadow.
    """
    seen: dict[Path, Stamp] = {}
    recording = Recording(Disk(_Asking(end)))
    problem, descriptors = "", list[int]()
    try:
        if is_shadow:
            problem = "\n".join(_read_shadow(Path(names[0]), seen, recording))
        else:
            make_directories(_read(names, say, seen, recording), owner)
        if not problem:
            descriptors.append(recording.save())
    except GateError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 -- a plugin may raise anything
        traceback.print_exc()
        problem = f"loading the configuration failed: {type(error).__name__}: {error}"
    told = {"seen": {str(path): state for path, state in seen.items()}, "problem": problem}
    descriptor = os.memfd_create("mtlsgate-prepared", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "w") as file:
        json.dump(told, file)
    os.lseek(descriptor, 0, os.SEEK_SET)
    socket.send_fds(end, [b"done"], [descriptor, *descriptors])


def _read(
    names: Sequence[str],
    say: Callable[[str], object] | None,
    seen: dict[Path, Stamp],
    source: FileSource,
) -> Epoch:
    """:raises GateError: with everything that is wrong with it."""
    surroundings = Surroundings(reactor=ReactorChoice(), source=source)
    with no_collection():
        epoch = Loading(names, surroundings, say=say, seen=seen).epoch()
    self_test(epoch)
    # Its files belong to the epoch, too.
    return with_shadow(epoch, names[0], surroundings, seen)


def _read_shadow(path: Path, seen: dict[Path, Stamp], source: FileSource) -> tuple[str, ...]:
    """:returns: what is wrong with it, in lines."""
    shadow = load_shadow(path, Surroundings(source=source))
    seen.update(shadow.seen)
    return shadow.problems


@frozen
class _Asking:
    """
    Opens files; one that this process may not open, the other end opens.

    :ivar end: this end.
    """

    end: socket.socket

    def __call__(self, path: str, flags: int) -> int:
        """:raises OSError: if neither may."""
        try:
            return os.open(path, flags)
        except PermissionError as error:
            self.end.send(b"open " + os.fsencode(path))
            _, found, _, _ = socket.recv_fds(self.end, _LARGEST, 1)
            if not found:
                raise error from None
            return found[0]
