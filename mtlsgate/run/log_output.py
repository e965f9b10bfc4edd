"""
Where the log of the program goes, and how: what twistd's options and the ``log`` block
say of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from mtlsgate.config import model
from mtlsgate.errors import START, ConfigError, Problem
from mtlsgate.load.outline import Configured
from mtlsgate.observe.event_lines import (
    ERROR_PRIORITY,
    LineMaker,
    TextLines,
    journal_lines,
    json_journal_line,
    json_line,
)
from mtlsgate.observe.event_log import EventLog, LogOutput
from mtlsgate.observe.log_stream import LogStream, OpenFile, PlainStream, RotatedFile
from mtlsgate.observe.owner import NOBODY_ELSE, Owner, make_for
from mtlsgate.run.followers import Change
from mtlsgate.run.twistd import STANDARD_LOG, TwistdError, is_foreground
from mtlsgate.text import quoted

#: What twistd calls its log file where nobody says it.
_LOG_FILE = "twistd.log"
STDOUT, STDERR = Path("/dev/stdout"), Path("/dev/stderr")


@frozen
class LogPlace:
    """
    Where the log goes by twistd's options.

    :ivar named: the file of ``--logfile``, as it was written; None without it.
    :ivar path: that file; without it, where the log goes if the configuration names
        no file either.
    :ivar is_daemon: whether the gate goes into the background, without standard streams.
    """

    named: str | None
    path: Path
    is_daemon: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> LogPlace | None:
        """
        :param options: twistd's; None outside of it.
        :returns: None where twistd, or twist, writes the log itself: with a ``--logger``
            of the user's, or to syslog.
        """
        if options is None or "logfile" not in options:
            return None
        if options.get("logger") or options.get("syslog"):
            return None
        named, is_daemon = options["logfile"] or None, not is_foreground(options)
        if named == "-":
            # twistd says that a daemon cannot do so.
            return None if is_daemon else cls(named, STDOUT)
        if named is not None:
            return cls(named, Path(named).absolute(), is_daemon)
        if is_daemon:
            return cls(None, Path(_LOG_FILE).absolute(), is_daemon)
        return cls(None, Path(options.get(STANDARD_LOG, STDOUT)))


def log_notices(options: Mapping[str, Any] | None, epoch: Configured) -> tuple[str, ...]:
    """:returns: what of a ``log`` block has no effect because of an option, in lines."""
    block = epoch.settings.log
    if block is None:
        return ()
    place = LogPlace.of(options)
    if place is None:
        option = "twist"
        if options is not None and "logfile" in options:
            option = "--logger" if options.get("logger") else "--syslog"
        at, text = block.at, f"{option} writes the log in its own way: this block has no effect"
    elif place.named is not None and block.file is not None:
        at, text = block.file.at, f"file: --logfile={place.named} is given, and has precedence"
    else:
        return ()
    return (f"{Problem(at.path or epoch.path, at, 'log', text)} (warning)",)


def open_log(
    place: LogPlace,
    epoch: Configured,
    owner: Owner = NOBODY_ELSE,
    before: LogOutput | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LogOutput:
    """
    :param owner: owns the file if it is created.
    :param before: how the log is written until now; a file of the same name stays open.
    :returns: how an epoch wants the log to be written.
    :raises GateError: if the file cannot be opened.
    """
    block = epoch.settings.log or model.Log(at=START)
    path = place.path
    if place.named is None and block.file is not None:
        path = Path(epoch.path).absolute().parent / block.file.value
    to_journal = False
    try:
        if path in (STDOUT, STDERR):
            stream = _standard(path, is_daemon=place.is_daemon)
            to_journal = is_journal(1 if path == STDOUT else 2, environ)
        else:
            stream = _file(path, block, owner, before)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        if place.named is not None or block.file is None:
            raise TwistdError(f"--logfile: {place.named or _LOG_FILE}: {why}") from error
        text = f"file: {quoted(block.file.value)} cannot be opened for writing: {why}"
        at = block.file.at
        raise ConfigError([Problem(at.path or epoch.path, at, "log", text)]) from error
    return LogOutput(stream, line_maker(block.format, to_journal=to_journal), block.level)


def line_maker(form: str, *, to_journal: bool) -> LineMaker:
    """
    :param form: ``text`` or ``json``.
    :param to_journal: whether systemd's journal gets the lines.
    """
    if form == "json":
        return json_journal_line if to_journal else json_line
    return journal_lines if to_journal else TextLines()


def _standard(path: Path, *, is_daemon: bool) -> LogStream:
    """:raises ValueError: if there is none."""
    # Twisted puts its log in the place of `sys.stdout` and `sys.stderr`.
    stream = sys.__stdout__ if path == STDOUT else sys.__stderr__
    if stream is None or is_daemon:
        raise ValueError("the gate has no standard streams; name a file")
    with suppress(AttributeError):
        # A name that the terminal has no letters for is still logged.
        cast(Any, stream).reconfigure(errors="backslashreplace")
    return PlainStream(stream)


def _file(path: Path, block: model.Log, owner: Owner, before: LogOutput | None) -> LogStream:
    """:raises OSError: if it cannot be opened."""
    if path.exists() and not path.is_file():
        # A device such as /dev/null, or a pipe, is written to and never moved away.
        plain = make_for(owner, path, lambda: path.open("w", errors="backslashreplace"))
        return PlainStream(plain, is_own=True)
    if before is not None and isinstance(before.stream, RotatedFile):
        file = before.stream.file
        if file.path == path:
            return RotatedFile(file, block.max_size, block.keep)
    return RotatedFile(OpenFile.open(path, owner), block.max_size, block.keep)


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """
    :returns: whether a descriptor leads to systemd's journal, as ``$JOURNAL_STREAM``
        says (systemd.exec(5)).
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def complain(text: str, environ: Mapping[str, str] = os.environ) -> None:
    """
    Print why the gate cannot start to standard error, where the log may not go yet.

    :param text: one line or several.
    """
    mark = ERROR_PRIORITY if is_journal(2, environ) else ""
    for line in text.splitlines():
        print(f"{mark}{line}", file=sys.stderr)  # noqa: T201


@frozen
class LogFollower:
    """
    Lets the log follow the configuration.

    :ivar log: the log.
    :ivar place: where it goes by twistd's options.
    """

    log: EventLog
    place: LogPlace

    @property
    def to_journal(self) -> bool:
        """Whether systemd's journal gets the lines."""
        return self.log.output.lines in (journal_lines, json_journal_line)

    def prepare(self, epoch: Configured) -> Change:
        """:raises GateError: if the file cannot be opened."""
        before = self.log.output
        output = open_log(self.place, epoch, before=before)
        discard: Callable[[], object] = partial(output.stream.close_unless_in, before.stream)
        return Change(partial(self.log.turn_to, output), discard)
