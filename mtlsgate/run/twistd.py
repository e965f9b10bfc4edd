"""
What twistd's own options mean for the gate: its user, its log, its pid file.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

from attrs import frozen
from twisted.python.logfile import LogFile as RotatingFile

from mtlsgate.errors import GateError
from mtlsgate.observe.owner import NOBODY_ELSE, Owner, make_for
from mtlsgate.observe.event_log import TextLog, TextStream, Turns

#: What twistd calls its log file where nobody says it.
_LOG_FILE = "twistd.log"


class TwistdError(GateError):
    """An option of twistd that cannot be followed, in one line."""


def owner_of(options: Mapping[str, Any] | None) -> Owner:
    """
    :param options: twistd's; None outside of it.
    :returns: who the gate will be, if twistd is told to be somebody else.
    """
    if options is None:
        return NOBODY_ELSE
    uid, gid = options.get("uid"), options.get("gid")
    if uid is not None and gid is None:
        # As twistd itself has it.
        gid = pwd.getpwuid(uid).pw_gid
    return -1 if uid is None else uid, -1 if gid is None else gid


@frozen
class LogOutput:
    """
    Where twistd's log goes, if that is text on standard output or in a file.

    :ivar observer: writes it.
    :ivar rotate: goes on in a new file, where it is a file.
    """

    observer: TextLog
    rotate: Callable[[], object]


def log_output_of(options: Mapping[str, Any] | None, reactor: Turns) -> LogOutput | None:
    """
    :param options: twistd's; None outside of it.
    :param reactor: in whose turns the log is written.
    :returns: the log that twistd would write itself; None where it is to do so:
        with a ``--logger`` of the user's, or to syslog.
    :raises TwistdError: if the file cannot be opened.
    """
    if options is None or "logfile" not in options:
        return None
    if options.get("logger") or options.get("syslog"):
        return None
    name, is_foreground = options["logfile"], _is_foreground(options)
    if name == "-" or (is_foreground and not name):
        if not is_foreground:
            # twistd says that a daemon cannot do so.
            return None
        stream: TextIO = sys.stdout
        with suppress(AttributeError):
            # A name that the terminal has no letters for is still logged.
            cast(Any, stream).reconfigure(errors="backslashreplace")
        return LogOutput(TextLog(stream, reactor), _nothing)
    path = Path(name or _LOG_FILE).absolute()
    owner = owner_of(options)
    try:
        if path.exists() and not path.is_file():
            # A device such as /dev/null, or a pipe, is written to and never moved away.
            plain = make_for(owner, path, lambda: path.open("w", errors="backslashreplace"))
            return LogOutput(TextLog(plain, reactor), _nothing)
        file = make_for(owner, path, lambda: RotatingFile.fromFullPath(str(path)))
    except OSError as error:
        raise TwistdError(f"--logfile: {name or _LOG_FILE}: {error.strerror}") from error
    log = TextLog(cast(TextStream, file), reactor)

    def rotate() -> None:
        log.flush()
        file.rotate()

    return LogOutput(log, rotate)


def _nothing() -> None:
    """Do nothing."""


def _is_foreground(options: Mapping[str, Any]) -> bool:
    return bool(options.get("nodaemon") or options.get("debug"))


def mend_pid_file(options: Any, say: Callable[[str], object]) -> None:
    """
    See to it that a pid file keeps no gate in the foreground from starting, and that
    a process which has the number of a dead one again does not take it for itself.

    :param options: twistd's, which may be changed; None outside of it.
    :param say: prints a line.
    :raises TwistdError: if a daemon could not write its pid file.
    """
    if options is None or not options.get("pidfile"):
        return
    path = os.path.abspath(options["pidfile"])
    problem = _pid_file_problem(path, _is_foreground(options))
    if owner_of(options) != NOBODY_ELSE and os.path.islink(path):
        # twistd writes it as root.
        problem = f"--pidfile: {path} is a symbolic link, which is not followed"
    if problem is None:
        return
    if not _is_foreground(options):
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
