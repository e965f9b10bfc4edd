"""
What an event of the log looks like as lines: text, JSON, and for the journal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from twisted.logger import (
    LogEvent,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.failure import Failure

#: The format of events that bring their whole text.
WHOLE_TEXT = "{text}"

#: Makes the lines of an event, each with its newline; None if it has no text.
LineMaker = Callable[[LogEvent], str | None]

_END, _INDENTED = "\n", "\n\t"
#: Fields of events that make another line of them.
_ELSEWHERE = frozenset({"log_failure", "log_system"})

#: The priorities of syslog, which systemd's journal takes from ``<N>`` at the beginning
#: of a line (sd-daemon(3)).
ERROR_PRIORITY = "<3>"
_PRIORITIES = {
    LogLevel.critical: "<2>",
    LogLevel.error: ERROR_PRIORITY,
    LogLevel.warn: "<4>",
    LogLevel.info: "<6>",
    LogLevel.debug: "<7>",
}


class TextLines:
    """
    Lines as Twisted's own ``textFileLogObserver`` writes them.

    An event that brings its finished text (the format `WHOLE_TEXT`) is not formatted
    again, which is cheaper.

    :ivar _second: the latest second of an event; `_second_text` is the same as text.
    """

    def __init__(self) -> None:
        self._second, self._second_text = -1, ""

    def __call__(self, event: LogEvent) -> str | None:
        """:returns: the event's lines; None if it has no text."""
        if (text := _whole_text(event)) is None:
            return formatEventAsClassicLogText(event, self._time_text)
        when = self._time_text(event.get("log_time"))
        return f"{when} {_where(event)} {text.replace(_END, _INDENTED)}\n"

    def _time_text(self, when: float | None) -> str:
        if when is None:
            return formatTime(None)
        second = int(when)
        if second != self._second:
            self._second_text = formatTime(when)
            self._second = second
        return self._second_text


def journal_lines(event: LogEvent) -> str | None:
    """:returns: the event's text in lines with their priority; the journal knows the time."""
    if (text := _whole_text(event)) is None:
        lines = formatEventAsClassicLogText(event, lambda _: "")
    else:
        lines = f"{_where(event)} {text.replace(_END, _INDENTED)}\n"
    return None if lines is None else with_priority(event, lines.lstrip(" "))


def with_priority(event: LogEvent, lines: str) -> str:
    """:returns: the event's lines, each with its priority, as systemd's journal takes it."""
    priority = _PRIORITIES.get(event.get("log_level"), "<6>")
    return "".join(f"{priority}{line}\n" for line in lines.splitlines())


def json_line(event: LogEvent) -> str | None:
    """
    :returns: the event as one JSON object: ``time`` (RFC 3339, UTC), ``level``,
        ``namespace``, ``text``, for failures ``traceback``, and the event's own fields
        beside them; None if it has no text.
    """
    text, failure = formatEvent(event), event.get("log_failure")
    if not text and failure is None:
        return None
    fields = {
        "time": _instant(event.get("log_time")),
        "level": getattr(event.get("log_level"), "name", None),
        "namespace": event.get("log_namespace"),
        "text": text,
    }
    if isinstance(failure, Failure):
        fields["traceback"] = failure.getTraceback()
    if event.get("log_namespace") not in _WITHOUT_FIELDS:
        for name, value in event.items():
            if not name.startswith("log_") and name not in fields:
                plain = _plain(value)
                if plain is not _ODD:
                    fields[name] = plain
    return json.dumps(_well_formed(fields), separators=(",", ":")) + "\n"


def json_journal_line(event: LogEvent) -> str | None:
    """:returns: `json_line` with its priority for systemd's journal."""
    line = json_line(event)
    return None if line is None else with_priority(event, line)


#: Namespaces whose events have no fields of their own: those of Twisted's old log.
_WITHOUT_FIELDS = ("log_legacy",)
_ODD = object()


def _whole_text(event: LogEvent) -> str | None:
    """:returns: the text that an event brings; None if it must be formatted."""
    text = event.get("text")
    if (
        event.get("log_format") == WHOLE_TEXT
        and text.__class__ is str
        and text != ""
        and event.get("log_level") is not None
        and event.keys().isdisjoint(_ELSEWHERE)
    ):
        return text
    return None


def _where(event: LogEvent) -> str:
    return f"[{event.get('log_namespace', '-')}#{event['log_level'].name}]"


def _instant(when: float | None) -> str | None:
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _plain(value: object) -> object:
    """:returns: the value as JSON has it; `_ODD` for objects, of which the text tells."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return _plain_list(value)
    return _ODD


def _plain_list(values: Iterable[object]) -> object:
    plain = [_plain(one) for one in values]
    return _ODD if _ODD in plain else plain


def _well_formed(value: Any) -> Any:
    """:returns: the same without lone surrogates, which some JSON readers refuse."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_well_formed(one) for one in value]
    if isinstance(value, dict):
        return {_well_formed(name): _well_formed(one) for name, one in value.items()}
    return value
