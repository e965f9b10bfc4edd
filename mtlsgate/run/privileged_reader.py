"""
Reading what only root may read, after the gate has become another user.

With ``twistd --uid`` the gate starts as root, reads its keys, and becomes another
user, who often may not read them.  Then no reload could succeed, and nobody could be
revoked.  So a small process stays root.  It opens files and hands over their
descriptors, but only:

- what the gate read when it started, and files in directories that it read then;
- regular files and directories;
- where the gate's user cannot change what the name leads to.  Where the user can,
  only the very file of the start, unchanged.

The gate gets nothing by it that root has not put there for the gate.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from mtlsgate.load.file_state import MODE, Stamp, stamp_of
from mtlsgate.observe.owner import Owner, is_changeable_by

_LENGTH = struct.Struct("!I")
#: O_NONBLOCK, so that a pipe that nobody writes to is refused and not waited for.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
#: As long as the system allows.
_NAME = "mtlsgate-reader"
#: They are the gate's to act on; the reader ends when the gate does.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class PrivilegedReader:
    """
    Opens files, by the process that stays root where this one may not.

    :ivar _socket: to that process.
    :ivar _process: its number.
    :ivar _asking: one thread at a time.
    """

    def __init__(self, connected: socket.socket, process: int) -> None:
        self._socket = connected
        self._process = process
        self._asking = Lock()

    @classmethod
    def start(cls, owner: Owner) -> PrivilegedReader:
        """
        Start the process; to be called while there is one thread and nothing is open.

        :param owner: who the gate will be.
        """
        ours, theirs = socket.socketpair()
        process = os.fork()
        if process == 0:
            _run(theirs, owner)
        theirs.close()
        return cls(ours, process)

    def close(self) -> None:
        """End the process, which otherwise ends with this one."""
        self._socket.close()
        os.waitpid(self._process, 0)

    def allow(self, seen: Mapping[Path, Stamp]) -> None:
        """
        Say what may be read from now on.

        :param seen: what was read, in the state in which it was then.
        """
        told = {str(path): state for path, state in seen.items()}
        with self._asking:
            _send(self._socket, {"allow": told})

    def open(self, path: str, flags: int) -> int:
        """
        :param path: absolute.
        :param flags: as of `os.open`, to read.
        :returns: a descriptor, as `os.open` does.
        :raises OSError: if the file cannot be opened.
        """
        try:
            return os.open(path, flags)
        except PermissionError as error:
            with self._asking:
                descriptor = self._ask(path)
            if descriptor is None:
                raise error from None
            return descriptor

    def _ask(self, path: str) -> int | None:
        try:
            _send(self._socket, {"open": path})
            said, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        except OSError:
            # It is gone, and the file as unreadable as it was.
            return None
        return descriptors[0] if said == b"\0" and descriptors else None


def reader_for(owner: Owner) -> PrivilegedReader | None:
    """:returns: the reader, if the gate is root and will be somebody else."""
    if owner[0] in (-1, 0) or os.geteuid() != 0:
        return None
    return PrivilegedReader.start(owner)


def _run(connected: socket.socket, owner: Owner) -> NoReturn:
    """The process that stays root."""
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(connected.fileno())
        # It keeps no file system busy, and ps and top show what it is.
        os.chdir("/")
        Path("/proc/self/comm").write_text(_NAME)
        _serve(connected, owner)
    finally:
        # No handler of the gate's, and nothing of its buffers, is this process's.
        os._exit(0)


def _close_all_but(kept: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:
                # The one by which the directory was read.
                continue


def _serve(connected: socket.socket, owner: Owner) -> None:
    rules = ReadingRules(owner, {})
    while (asked := _receive(connected)) is not None:
        if "allow" in asked:
            told = {path: _as_stamp(state) for path, state in asked["allow"].items()}
            rules = ReadingRules(owner, told)
            continue
        try:
            descriptor = rules.open(asked["open"])
        except OSError as error:
            connected.sendall(bytes([(error.errno or errno.EACCES) & 0xFF]))
            continue
        socket.send_fds(connected, [b"\0"], [descriptor])
        os.close(descriptor)


def _as_stamp(state: list[int] | None) -> Stamp:
    return None if state is None else tuple(state)


class ReadingRules:
    """
    What may be opened.

    :ivar _owner: who asks.
    :ivar _allowed: what was read at the start, in the state in which it was.
    """

    def __init__(self, owner: Owner, allowed: Mapping[str, Stamp]) -> None:
        self._owner = owner
        self._allowed = allowed

    def open(self, path: str) -> int:
        """
        :returns: a descriptor, to read.
        :raises OSError: if it is none that may be opened, or cannot be.
        """
        if not self._is_named(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        descriptor = os.open(path, _FLAGS)
        try:
            if not self._is_fine(path, os.fstat(descriptor)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _is_named(self, path: str) -> bool:
        if path in self._allowed:
            return True
        directory, name = os.path.split(path)
        state = self._allowed.get(directory)
        return state is not None and stat.S_ISDIR(state[MODE]) and name not in ("", ".", "..")

    def _is_fine(self, path: str, found: os.stat_result) -> bool:
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return False
        if stamp_of(found) == self._allowed.get(path):
            return True
        return not is_changeable_by(self._owner, Path(path))


def _send(connected: socket.socket, what: object) -> None:
    data = json.dumps(what).encode()
    connected.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connected: socket.socket) -> Any:
    """:returns: what was sent; None once nothing more comes."""
    head = _exactly(connected, _LENGTH.size)
    data = None if head is None else _exactly(connected, *_LENGTH.unpack(head))
    return None if data is None else json.loads(data)


def _exactly(connected: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connected.recv(min(count - len(parts), 1 << 16))
        if not part:
            return None
        parts += part
    return bytes(parts)
