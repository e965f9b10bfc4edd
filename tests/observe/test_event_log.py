"""
The log of the program: what twistd writes, in fewer writes; levels; JSON; the journal.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from attrs import define, field
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    textFileLogObserver,
)
from twisted.python import log as legacy_log
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from mtlsgate.observe.event_lines import LineMaker, TextLines, journal_lines, json_line
from mtlsgate.observe.event_log import LEVELS, EventLog, LogOutput
from mtlsgate.observe.log_stream import LogStream

#: 2026-11-26T12:00:00Z.
AT = 1795694400.0


@define
class HandDrivenReactor:
    """A reactor whose turns a test makes."""

    running: bool = True
    due: list[Callable[[], object]] = field(factory=list)

    def callLater(self, delay: float, function: Callable[[], object], /) -> None:
        assert delay == 0
        self.due.append(function)

    def turn(self) -> None:
        due, self.due = self.due, []
        for function in due:
            function()


class Stream:
    """
    :ivar writes: what was written, each write apart.
    :ivar problem: what writing raises, or None.
    """

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.problem: OSError | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def write(self, data: str, /) -> None:
        if self.problem is not None:
            raise self.problem
        self.writes.append(data)

    def rotate(self) -> None:
        self.writes.append("rotated")

    def close_unless_in(self, other: LogStream, /) -> None:
        if other is not self:
            self.writes.append("closed")


def logging_to(
    stream: Stream, reactor: HandDrivenReactor, lines: LineMaker | None = None, level: str = "debug"
) -> EventLog:
    """:returns: a log whose clock stands still."""
    return EventLog(LogOutput(stream, lines or TextLines(), level), reactor, lambda: AT)


@pytest.fixture
def reactor() -> HandDrivenReactor:
    return HandDrivenReactor()


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def text_log(stream: Stream, reactor: HandDrivenReactor) -> EventLog:
    return logging_to(stream, reactor)


def failure() -> Failure:
    try:
        raise ZeroDivisionError("no\nsuch luck")
    except ZeroDivisionError:
        return Failure()


EVENTS: list[LogEvent] = [
    {"log_format": "{text}", "text": "door: admitted"},
    {"log_format": "{text}", "text": "braces { } {0} %s"},
    {"log_format": "{text}", "text": "two\nlines"},
    {"log_format": "{text}", "text": ""},
    {"log_format": "{text}", "text": "caf\u00e9"},
    {"log_format": "{server}: rejected {reason}", "server": "door", "reason": "x"},
    {"log_format": "it failed", "log_failure": failure()},
    {"log_format": "{text}", "text": "it failed", "log_failure": failure()},
    {"log_format": None},
    {"log_format": "{nothing}"},
    {"log_format": "old style", "log_system": "HTTPChannel,1,127.0.0.1"},
    {"log_format": "{text}", "text": "from a system", "log_system": "-"},
    {"log_format": "{text}", "text": "no time", "log_time": None},
    {"log_format": "{text}", "text": "no level", "log_level": None},
    {"log_format": "{text}", "text": 7},
    {"log_format": "{text}"},
]


def as_twistd(events: list[LogEvent]) -> str:
    """:returns: what Twisted's own observer writes."""
    written = io.StringIO()
    observer = textFileLogObserver(written)
    for event in events:
        observer(dict(event))
    return written.getvalue()


def whole(event: LogEvent) -> LogEvent:
    """:returns: an event with what every `Logger` adds."""
    return {
        "log_time": AT + 0.75,
        "log_level": LogLevel.warn,
        "log_namespace": "mtlsgate.gate",
        **event,
    }


@pytest.mark.parametrize("event", EVENTS)
def test_a_line_is_that_of_twistd(event: LogEvent, stream: Stream, text_log: EventLog) -> None:
    """Whatever is logged, by the gate or by others, reads as without this observer."""
    text_log(whole(event))
    text_log.flush()
    assert "".join(stream.writes) == as_twistd([whole(event)])


def test_the_time_of_each_second_is_its_own(stream: Stream, text_log: EventLog) -> None:
    """Also when the clock is set back."""
    events = [
        whole({"log_format": "{text}", "text": "x", "log_time": AT + seconds})
        for seconds in (0.0, 0.9, 1.0, 3600.0, -86400.0, 0.5)
    ]
    for event in events:
        text_log(event)
    text_log.flush()
    assert "".join(stream.writes) == as_twistd(events)


def test_one_write_for_each_turn(
    stream: Stream, text_log: EventLog, reactor: HandDrivenReactor
) -> None:
    """In the order in which they were logged."""
    log = Logger("mtlsgate.gate", observer=text_log)
    for number in range(3):
        log.info("{text}", text=f"line {number}")
        log.warn("other line {number}", number=number)
    assert stream.writes == []
    reactor.turn()
    [written] = stream.writes
    assert [line.partition("] ")[2] for line in written.splitlines()] == [
        "line 0", "other line 0", "line 1", "other line 1", "line 2", "other line 2",
    ]  # fmt: skip
    reactor.turn()
    assert len(stream.writes) == 1
    log.info("{text}", text="later")
    reactor.turn()
    assert len(stream.writes) == 2


@pytest.mark.parametrize("level", [LogLevel.error, LogLevel.critical])
def test_an_error_is_written_at_once(stream: Stream, text_log: EventLog, level: LogLevel) -> None:
    """And what came before it: the process may be about to die."""
    log = Logger("mtlsgate.gate", observer=text_log)
    log.info("{text}", text="before")
    log.emit(level, "{text}", text="error")
    [written] = stream.writes
    assert written.count("\n") == 2


def test_without_a_running_reactor_lines_are_written_at_once(
    stream: Stream, text_log: EventLog, reactor: HandDrivenReactor
) -> None:
    """Before it runs (a daemon forks then), and when a turn that was to come never came."""
    log = Logger("mtlsgate.gate", observer=text_log)
    reactor.running = False
    log.info("starting")
    assert len(stream.writes) == 1
    reactor.running = True
    log.info("running")
    reactor.running = False
    log.info("Server Shut Down.")
    assert "running\n" in stream.writes[1]
    assert stream.writes[1].endswith("Server Shut Down.\n")


def test_threads_lose_no_line(
    stream: Stream, text_log: EventLog, reactor: HandDrivenReactor
) -> None:
    """Each thread's lines are all there, in its order."""
    log = Logger("mtlsgate.gate", observer=text_log)

    def say(name: str) -> None:
        for number in range(200):
            log.emit(
                LogLevel.error if number % 7 == 0 else LogLevel.info,
                "{text}",
                text=f"{name} {number}",
            )

    threads = [Thread(target=say, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reactor.turn()
    lines = "".join(stream.writes).splitlines()
    for name in "abcd":
        own = [line for line in lines if line.partition("] ")[2].startswith(f"{name} ")]
        assert [int(line.rpartition(" ")[2]) for line in own] == list(range(200))


def test_a_full_disk_is_told_when_it_is_over(
    stream: Stream, text_log: EventLog, reactor: HandDrivenReactor
) -> None:
    """How many lines are missing stands where they would have stood; nothing is raised."""
    log = Logger("mtlsgate.gate", observer=text_log)
    stream.problem = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(3):
        log.info("lost")
        log.info("lost")
        reactor.turn()
    stream.problem = None
    log.info("written")
    reactor.turn()
    [written] = stream.writes
    first, second = written.splitlines()
    assert first.endswith("[mtlsgate.log#error] 6 lines of this log are missing")
    assert second.endswith("written")
    log.info("more")
    reactor.turn()
    assert "missing" not in stream.writes[1]


def test_it_is_an_observer(text_log: EventLog) -> None:
    """twistd asks."""
    assert verifyObject(ILogObserver, text_log)


@pytest.mark.parametrize("level", LEVELS)
def test_less_urgent_levels_are_left_out(
    stream: Stream, reactor: HandDrivenReactor, level: str
) -> None:
    """Those from the configured one on are written."""
    log = Logger("mtlsgate.gate", observer=logging_to(stream, reactor, level=level))
    for name in LEVELS:
        log.emit(LogLevel.levelWithName(name), "of {name}", name=name)
    reactor.turn()
    written = [line.rpartition(" ")[2] for line in "".join(stream.writes).splitlines()]
    assert written == list(LEVELS[LEVELS.index(level) :])


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_is_one_json_object(event: LogEvent) -> None:
    """Its text is that of the text log; an event without text has no line there either."""
    line = json_line(whole(event))
    text = as_twistd([whole(event)]).partition("] ")[2].strip()
    if line is None:
        assert text == ""
        return
    assert line.count("\n") == 1
    said = json.loads(line)
    first = text.partition("\n\tTraceback")[0].replace("\n\t", "\n")
    assert said["text"].strip() == first
    assert ("traceback" in said) == ("log_failure" in event)


def test_json_has_the_fields_of_the_event() -> None:
    """Flat, beside time, level, namespace and text; objects are left to the text."""
    line = json_line(
        whole(
            {
                "log_format": "{server}: rejected {reason} {odd}",
                "server": "door",
                "reason": "expired",
                "depth": None,
                "dns_names": ["a.example", "caf\u00e9"],
                "at": datetime(2026, 11, 26, tzinfo=UTC),
                "odd": object(),
                "odd_list": [object()],
                "time": "not the event's own",
                "lone": "\ud800",
            }
        )
    )
    assert line is not None
    said = json.loads(line)
    assert said.pop("text").startswith("door: rejected expired <object")
    assert said == {
        "time": "2026-11-26T12:00:00.750Z",
        "level": "warn",
        "namespace": "mtlsgate.gate",
        "server": "door",
        "reason": "expired",
        "depth": None,
        "dns_names": ["a.example", "caf\u00e9"],
        "at": "2026-11-26T00:00:00+00:00",
        "lone": "\\ud800",
    }


def test_old_log_messages_have_no_fields_in_json(reactor: HandDrivenReactor) -> None:
    """Those of `twisted.python.log` bring a dictionary of their own history."""
    stream = Stream()
    publisher = legacy_log.LogPublisher(
        observerPublisher := LogPublisher(logging_to(stream, reactor, json_line)),
        observerPublisher,
    )
    publisher.msg("old", "style", whatever=1)
    reactor.turn()
    assert sorted(json.loads(stream.writes[0])) == ["level", "namespace", "text", "time"]


def test_the_journal_gets_a_priority_for_each_line(
    stream: Stream, reactor: HandDrivenReactor
) -> None:
    """And no time, which it knows itself (sd-daemon(3))."""
    log = Logger("mtlsgate.gate", observer=logging_to(stream, reactor, journal_lines))
    log.warn("{text}", text="two\nlines")
    log.info("{what}", what="formatted")
    log.critical("{text}", text="at once")
    assert "".join(stream.writes).splitlines() == [
        "<4>[mtlsgate.gate#warn] two",
        "<4>\tlines",
        "<6>[mtlsgate.gate#info] formatted",
        "<2>[mtlsgate.gate#critical] at once",
    ]


def test_the_log_turns_to_another_output(
    stream: Stream, text_log: EventLog, reactor: HandDrivenReactor
) -> None:
    """What was logged before is in the old one, which is then closed."""
    log, other = Logger("mtlsgate.gate", observer=text_log), Stream()
    log.info("before")
    text_log.turn_to(LogOutput(other, json_line, "warn"))
    log.info("dropped")
    log.warn("after")
    reactor.turn()
    assert [stream.writes[0].endswith("before\n"), stream.writes[1:]] == [True, ["closed"]]
    assert json.loads(other.writes[0])["text"] == "after"
    text_log.turn_to(LogOutput(other, TextLines(), "info"))
    assert "closed" not in other.writes
