"""
Listening on unix sockets, for servers and for the admin endpoint.

A socket's file outlives a process that was killed.  One that nobody listens on is
taken over; anything else that stands in its place stays.  There is no lock file:
what a process of the same number left in a container would keep the next one out.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen

from mtlsgate.errors import GateError
from mtlsgate.observe.owner import NOBODY_ELSE, Owner, make_for

#: Device and inode: which file it is, whatever its name.
_Identity = tuple[int, int]


class UnixSocketError(GateError):
    """A unix socket that cannot be had, in one line."""


@frozen(eq=False)
class UnixSocket:
    """
    A unix socket that is listened on, and its file.

    :ivar path: of the file.
    :ivar sock: which may be listened on.
    """

    path: Path
    sock: socket.socket = field(repr=False)
    _identity: _Identity | None = field(repr=False)

    def set_mode(self, mode: int) -> None:
        """
        :param mode: of the file from now on, unless another has its name by now.
        :raises OSError: if that is not allowed.
        """
        if self._identity is not None and _identity(self.path) == self._identity:
            self.path.chmod(mode)

    def close(self) -> None:
        """Listen no more, and remove the file."""
        self.remove_file()
        self.sock.close()

    def remove_file(self) -> None:
        """Remove the file, unless another has its name by now."""
        if self._identity is not None and _identity(self.path) == self._identity:
            # Where privileges were dropped it may have to stay; the next start clears it.
            with suppress(OSError):
                self.path.unlink()


def listen_on_unix(
    path: Path,
    mode: int,
    backlog: int,
    owner: Owner = NOBODY_ELSE,
    *,
    takeover: bool = False,
) -> UnixSocket:
    """
    :param mode: of the file: who may connect.
    :param owner: whose the file is to be.
    :param takeover: whether to take the path from another process that listens there;
        who has connected to it stays with it.
    :returns: the socket, which nobody else could connect to at any time.
    :raises UnixSocketError: if it cannot be had.
    """

    def make() -> socket.socket:
        is_taken_over = takeover and _is_listened_on(path)
        if not is_taken_over:
            _clear(path)
        name = path.with_name(f".{os.getpid()}.sock") if is_taken_over else path
        # Here, because only the user who makes a socket may change its mode.
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Before it has a name, which may lead to something else a moment later.
            os.fchmod(bound.fileno(), mode)
            _bind(bound, name)
            if owner != NOBODY_ELSE and os.geteuid() == 0:
                os.chown(name, *owner, follow_symlinks=False)
            bound.listen(backlog)
            bound.setblocking(False)
            if is_taken_over:
                # In one step, so that nobody finds no socket.
                name.rename(path)
        except OSError:
            bound.close()
            raise
        return bound

    try:
        return UnixSocket(path, make_for(owner, path, make), _identity(path))
    except OSError as error:
        raise UnixSocketError(f"cannot listen on {path}: {_in_words(error)}") from error


def _bind(bound: socket.socket, path: Path) -> None:
    """Give a socket its name; the file's mode is the socket's own."""
    umask = os.umask(0)
    try:
        bound.bind(str(path))
    finally:
        os.umask(umask)


def _clear(path: Path) -> None:
    """
    Remove a socket that nobody listens on any more.

    :raises UnixSocketError: if there is anything else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UnixSocketError(f"cannot listen on {path}: it is there, and is not a socket")
    if _is_listened_on(path):
        raise UnixSocketError(
            f"cannot listen on {path}: another process listens there (ss -lxp shows which)"
        )
    path.unlink(missing_ok=True)


def _is_listened_on(path: Path) -> bool:
    """:returns: whether a process listens on a unix socket there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)
        try:
            trial.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return False
        except BlockingIOError:
            # A full backlog is an answer, too.
            pass
    return True


def _in_words(error: OSError) -> str:
    if error.errno is None and "too long" in str(error):
        return "the path is too long for a socket"
    words = {
        errno.ENOENT: "no such directory",
        errno.ENOTDIR: "no such directory",
        errno.EACCES: "permission denied",
    }
    return words.get(error.errno or 0, error.strerror or str(error))


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
