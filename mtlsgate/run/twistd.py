"""
What twistd's own options mean for the gate: the foreground, its pid file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from mtlsgate.errors import GateError
from mtlsgate.observe.owner import NOBODY_ELSE, Owner

#: The option that ``mtlsgate run`` adds: where the log goes if nothing else is said.
STANDARD_LOG = "standard-log"


class TwistdError(GateError):
    """An option of twistd that cannot be followed, in one line."""


def is_foreground(options: Mapping[str, Any]) -> bool:
    """:returns: whether twistd is told not to go into the background."""
    return bool(options.get("nodaemon") or options.get("debug"))


@frozen(kw_only=True)
class Surroundings:
    """
    What a process has that twistd runs a service in.

    :ivar owner: the user and group that it becomes.
    :ivar directory: its present directory.
    :ivar umask: its umask; None for the present one.
    :ivar is_daemon: whether it has no terminal.
    :ivar reactor: the short name of its reactor, if one was asked for.
    """

    owner: Owner = NOBODY_ELSE
    directory: str = "."
    umask: int | None = None
    is_daemon: bool = False
    reactor: str | None = None


def surroundings_of(options: Mapping[str, Any] | None, owner: Owner) -> Surroundings:
    """
    :param options: twistd's; None outside of it.
    :param owner: who the process becomes.
    """
    if options is None or "rundir" not in options:
        return Surroundings(owner=owner)
    is_daemon, umask = not is_foreground(options), options.get("umask")
    return Surroundings(
        owner=owner,
        directory=os.path.abspath(options["rundir"]),
        # As twistd itself has it.
        umask=0o077 if umask is None and is_daemon else umask,
        is_daemon=is_daemon,
        reactor=options.get("reactor"),
    )


def mend_pid_file(options: Any, owner: Owner, say: Callable[[str], object]) -> None:
    """
    See to it that a pid file keeps no gate in the foreground from starting, and that
    a process which has the number of a dead one again does not take it for itself.

    :param options: twistd's, which may be changed; None outside of it.
    :param owner: who the gate will be.
    :param say: prints a line.
    :raises TwistdError: if a daemon could not write its pid file.
    """
    if options is None or not options.get("pidfile"):
        return
    path = os.path.abspath(options["pidfile"])
    problem = _pid_file_problem(path, is_foreground(options))
    if owner != NOBODY_ELSE and os.path.islink(path):
        # twistd writes it as root.
        problem = f"--pidfile: {path} is a symbolic link, which is not followed"
    if problem is None:
        return
    if not is_foreground(options):
        raise TwistdError(problem)
    say(f"{problem}: the gate goes on without a pid file")
    options["pidfile"] = ""


def _pid_file_problem(path: str, is_foreground: bool) -> str | None:
    """:returns: why the file cannot be written, or None; removes one that is stale."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # Such as /dev/null, which twistd would remove at its end.
            return f"--pidfile: {path} is not a regular file"
        with open(path, "rb") as file:
            text = file.read(32)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            return f"--pidfile: {path}: no such directory"
        is_writable = os.access(directory, os.W_OK | os.X_OK)
        return None if is_writable else f"--pidfile: {directory} is not writable"
    except OSError as error:
        return f"--pidfile: {path}: {error.strerror}"
    number = int(text) if text.strip().isdigit() else None
    if number is None and not is_foreground:
        # twistd says so, and leaves it alone.
        return None
    if number is not None and number != os.getpid() and _is_alive(number):
        # Of a daemon twistd says so.
        return f"--pidfile: {path} names process {number}, which runs" if is_foreground else None
    try:
        os.unlink(path)
    except OSError as error:
        return f"--pidfile: {path} is stale and cannot be removed: {error.strerror}"
    return None


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
