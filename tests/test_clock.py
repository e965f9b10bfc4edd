from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock, Cooperator, LoopingCall
from twisted.internet.testing import MemoryReactor
from zope.interface.verify import verifyObject

from mtlsgate.clock import Alarm, MonotonicReactor, TimerFile, TimerThread, monotonic, new_alarm
from tests.kits.gate import Log


class Turns(MemoryReactor):
    """
    A reactor by hand: it has a queue of calls for its next turn, and no clock.

    :ivar queue: of calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.queue.append(call)

    def callLater(self, delay: float, call: Callable[[], object]) -> None:
        assert delay == 0
        self.queue.append(call)

    def turn(self) -> None:
        calls, self.queue = self.queue, []
        for call in calls:
            call()


class HandAlarm:
    """
    :ivar delays: that it was set to, in order.
    :ivar is_closed: whether it is needed no more.
    """

    def __init__(self, reactor: object, call: Callable[[], object]) -> None:
        self.ring = call
        self.delays: list[float] = []
        self.is_closed = False

    def set(self, delay: float) -> None:
        self.delays.append(delay)

    def close(self) -> None:
        self.is_closed = True


class Time:
    """
    A monotonic reactor whose time a test moves.

    :ivar alarm: the reactor's.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.below = Turns()
        self.alarm = HandAlarm(None, lambda: None)
        self.reactor = MonotonicReactor(self.below, self._alarm, lambda: self.now)
        self.said: list[Any] = []

    def _alarm(self, reactor: object, call: Callable[[], object]) -> Alarm:
        assert reactor is self.below
        self.alarm = HandAlarm(reactor, call)
        return self.alarm

    def say(self, delay: float, what: object) -> Any:
        return self.reactor.callLater(delay, self.said.append, what)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.alarm.ring()


def test_it_is_the_reactor_below_but_for_time() -> None:
    """It provides what that provides, and connects by it."""
    time = Time()
    verifyObject(IReactorTime, time.reactor)
    assert IReactorTCP.providedBy(time.reactor)
    time.reactor.connectTCP("192.0.2.1", 443, ClientFactory())
    assert time.below.tcpClients[0][:2] == ("192.0.2.1", 443)


def test_calls_come_in_their_order_and_once() -> None:
    time = Time()
    for delay in (3.0, 1.0, 2.0, 1.0):
        time.say(delay, delay)
    assert len(time.reactor.getDelayedCalls()) == 4
    time.pass_time(0.5)
    assert time.said == []
    time.pass_time(1.5)
    assert time.said == [1.0, 1.0, 2.0]
    time.pass_time(5.0)
    assert time.said == [1.0, 1.0, 2.0, 3.0]
    assert time.reactor.getDelayedCalls() == []


def test_the_alarm_comes_to_what_is_called_now() -> None:
    """If the wall clock is set back before the next turn, which the reactor below then waits
    for."""
    time = Time()
    time.say(1.0, "sweep")
    time.say(0, "soon")
    time.pass_time(1.0)
    assert time.said == ["soon", "sweep"]
    time.say(0, "again")
    time.below.turn()
    assert time.said == ["soon", "sweep", "again"]


def test_the_alarm_is_set_for_the_earliest_only() -> None:
    """A thousand handshakes that end in time cost it nothing."""
    time = Time()
    time.say(1.0, "sweep")
    calls = [time.say(10.0, number) for number in range(1000)]
    for call in calls:
        call.cancel()
    assert time.alarm.delays == [1.0]
    time.say(0.5, "sooner")
    assert time.alarm.delays == [1.0, 0.5]
    time.pass_time(0.5)
    time.pass_time(0.5)
    assert time.said == ["sooner", "sweep"]


def test_what_is_called_now_is_called_in_the_next_turn() -> None:
    """Without an alarm; and what it asks for now waits for the turn after."""
    time = Time()

    def again() -> None:
        time.said.append("first")
        time.say(0, "second")

    time.reactor.callLater(0, again)
    time.say(0, "beside")
    assert time.said == []
    time.below.turn()
    assert time.said == ["first", "beside"]
    time.below.turn()
    assert time.said == ["first", "beside", "second"]
    assert time.alarm.delays == []


def test_calls_can_be_cancelled_and_put_off_and_brought_forward() -> None:
    """As those of any reactor."""
    time = Time()
    cancelled, later, sooner, both = (time.say(5.0, name) for name in "clsb")
    cancelled.cancel()
    later.delay(5.0)
    sooner.reset(1.0)
    both.reset(1.0)
    both.reset(8.0)
    time.pass_time(1.0)
    assert time.said == ["s"]
    time.pass_time(4.0)
    assert time.said == ["s"]
    time.pass_time(3.0)
    assert time.said == ["s", "b"]
    time.pass_time(2.0)
    assert time.said == ["s", "b", "l"]
    with pytest.raises(AlreadyCalled):
        later.cancel()
    with pytest.raises(AlreadyCancelled):
        cancelled.cancel()
    with pytest.raises(ValueError, match="-1"):
        time.say(-1, "never")
    assert time.reactor.getDelayedCalls() == []


def test_a_call_that_fails_keeps_nothing_from_the_others(log: Log) -> None:
    time = Time()

    def fail() -> None:
        raise ZeroDivisionError

    time.reactor.callLater(1.0, fail)
    time.say(1.0, "beside")
    time.say(2.0, "after")
    time.pass_time(1.0)
    time.pass_time(1.0)
    assert time.said == ["beside", "after"]
    log.expect_failure(ZeroDivisionError)


def test_twisted_uses_it_as_a_clock() -> None:
    """LoopingCall and Cooperator, for two."""
    time = Time()
    looping = LoopingCall(lambda: time.said.append(time.now))
    looping.clock = time.reactor
    looping.start(1.0, now=False)
    for _ in range(3):
        time.pass_time(1.0)
    assert time.said == [1001.0, 1002.0, 1003.0]
    looping.stop()
    cooperator = Cooperator(scheduler=lambda step: time.reactor.callLater(0, step))
    cooperator.coiterate(iter(range(3)))
    for _ in range(5):
        time.below.turn()
    assert time.reactor.getDelayedCalls() == []


@pytest.mark.slow
def test_what_is_cancelled_is_not_kept_for_ever() -> None:
    time = Time()
    for number in range(100_000):
        time.say(1e6, number).cancel()
    assert len(time.reactor._calls) < 2048


class Wakes:
    """A reactor that only watches one file, or is woken by a thread."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.woken = 0

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def callFromThread(self, call: Callable[[], object]) -> None:
        call()


@pytest.mark.parametrize("kind", [TimerFile, TimerThread])
def test_an_alarm_goes_off_once_for_each_time_it_is_set(
    kind: type[TimerFile] | type[TimerThread],
) -> None:
    """Each goes off once for each time that it is set, not before, and is set anew."""
    from select import select

    reactor, rung = Wakes(), list[float]()
    try:
        alarm = kind(reactor, lambda: rung.append(time.monotonic()))
    except OSError:
        pytest.skip("the system has no timerfd")
    alarm.set(3600)
    for _ in range(2):
        began, before = time.monotonic(), len(rung)
        alarm.set(0.01)
        while len(rung) == before:
            if isinstance(alarm, TimerFile):
                select([alarm], [], [])
                alarm.doRead()
        assert rung[-1] - began >= 0.01
    if isinstance(alarm, TimerFile):
        alarm.doRead()
        assert len(rung) == 2
        alarm.connectionLost(None)  # type: ignore[arg-type]
        assert (alarm.fileno(), reactor.readers) == (-1, [])


def test_no_alarm_is_kept_for_nothing() -> None:
    """Whoever no longer waits for anything holds no descriptor."""
    time = Time()
    time.say(1.0, "sweep")
    first = time.alarm
    time.pass_time(1.0)
    assert first.is_closed
    time.say(1.0, "again")
    time.pass_time(1.0)
    assert time.said == ["sweep", "again"]


def test_which_reactors_are_wrapped() -> None:
    """Those that go by the wall clock."""
    below = Turns()
    below.seconds = time.time  # type: ignore[attr-defined]
    wrapped = monotonic(below)
    assert isinstance(wrapped, MonotonicReactor)
    assert monotonic(wrapped) is wrapped
    clock = Clock()
    assert monotonic(clock) is clock


def test_where_there_is_no_such_file_there_is_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object) -> int:
        raise OSError

    monkeypatch.setattr("mtlsgate.clock._timerfd_create", none)
    assert isinstance(new_alarm(Wakes(), lambda: None), TimerThread)
