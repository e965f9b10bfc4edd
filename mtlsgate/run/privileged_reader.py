"""
Reads files that only root may read, after the gate has become another user.

With ``user`` or ``twistd --uid`` the gate starts as root, reads its keys, and becomes another
user, who often may not read them.  Without help no reload could succeed, and nobody
could be revoked.  So a small process stays root.  It opens files and passes on their
descriptors, but only:

- files that the gate read when it started, and files in directories that it read then;
- regular files and directories;
- if the gate's user cannot change what the name leads to.  If the user can, only the
  same file as at the start, unchanged.

So the gate can only read what root has put there for it.
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
from mtlsgate.observe.owner import NOBODY_ELSE, Owner, is_changeable_by

_LENGTH = struct.Struct("!I")
#: O_NONBLOCK, so that a pipe without a writer is refused and does not block.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
#: As long as the system allows for a process name.
_NAME = "mtlsgate-reader"
#: Signals that only the gate handles; the reader ends when the gate does.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class PrivilegedReader:
    """
    Opens files.  If this process may not, it asks the process that stays root.

    :ivar _socket: the connection to that process.
    :ivar _process: its process number.
    :ivar _asking: lets one thread ask at a time.
    """

    def __init__(self, connected: socket.socket, process: int) -> None:
        self._socket = connected
        self._process = process
        self._asking = Lock()

    @classmethod
    def start(cls) -> PrivilegedReader:
        """
        Start the process.  Call this while there is only one thread and nothing is
        open: it must not have what the gate reads.
        """
        ours, theirs = socket.socketpair()
        process = os.fork()
        if process == 0:
            _run(theirs)
        theirs.close()
        return cls(ours, process)

    def close(self) -> None:
        """End the process.  Otherwise it ends with this one."""
        self._socket.close()
        os.waitpid(self._process, 0)

    def allow(self, owner: Owner, seen: Mapping[Path, Stamp]) -> None:
        """
        Set what may be read from now on.  The process obeys once, and ends if it is told
        again.

        :param owner: the user that the gate becomes.
        :param seen: the files that were read, with their state at that time.
        """
        told = {str(path): state for path, state in seen.items()}
        with self._asking:
            _send(self._socket, {"owner": owner, "allow": told})

    def open(self, path: str, flags: int) -> int:
        """
        :param path: absolute.
        :param flags: as in `os.open`, for reading.
        :returns: a descriptor, as from `os.open`.
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
            # The process is gone; the file stays unreadable.
            return None
        return descriptors[0] if said == b"\0" and descriptors else None


def reader_if_root() -> PrivilegedReader | None:
    """:returns: the reader, if the gate is root and may become another user."""
    return PrivilegedReader.start() if os.geteuid() == 0 else None


def _run(connected: socket.socket) -> NoReturn:
    """The process that stays root."""
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(connected.fileno())
        # Keep no file system busy, and show in ps and top what the process is.
        os.chdir("/")
        Path("/proc/self/comm").write_text(_NAME)
        _serve(connected)
    finally:
        # Exit without the gate's exit handlers, and without flushing its buffers.
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
                # This descriptor was used to read the directory.
                continue


def _serve(connected: socket.socket) -> None:
    rules: ReadingRules | None = None
    while (asked := _receive(connected)) is not None:
        if "allow" in asked:
            if rules is not None:
                # By now the gate is another user, who may not widen what it may read.
                return
            told = {path: _as_stamp(state) for path, state in asked["allow"].items()}
            uid, gid = asked["owner"]
            rules = ReadingRules((uid, gid), told)
            continue
        try:
            descriptor = (rules or _NONE).open(asked["open"])
        except OSError as error:
            connected.sendall(bytes([(error.errno or errno.EACCES) & 0xFF]))
            continue
        socket.send_fds(connected, [b"\0"], [descriptor])
        os.close(descriptor)


def _as_stamp(state: list[int] | None) -> Stamp:
    return None if state is None else tuple(state)


class ReadingRules:
    """
    The rules for what may be opened.

    :ivar _owner: the user who asks.
    :ivar _allowed: the files that were read at the start, with their state then.
    """

    def __init__(self, owner: Owner, allowed: Mapping[str, Stamp]) -> None:
        self._owner = owner
        self._allowed = allowed

    def open(self, path: str) -> int:
        """
        :returns: a descriptor for reading.
        :raises OSError: if the file may not or cannot be opened.
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


#: Before anything is allowed.
_NONE = ReadingRules(NOBODY_ELSE, {})


def _send(connected: socket.socket, what: object) -> None:
    data = json.dumps(what).encode()
    connected.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connected: socket.socket) -> Any:
    """:returns: the next message; None at the end."""
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
