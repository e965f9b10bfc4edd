"""A long task gets its share of time at any load, and no more."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.task import Clock

from mtlsgate.gate.slices import Slices
from tests.kits.gate import Log


class Turns(Clock):
    """A clock whose calls are made turn by turn, as a reactor's."""

    def turn(self, busy: float = 0.0) -> None:
        """:param busy: seconds that others take before."""
        self.rightNow += busy
        calls, self.calls = self.calls, []
        for call in calls:
            call.called = 1
            call.func(*call.args, **call.kw)


class Task:
    """
    :ivar done: how many steps were taken.
    """

    def __init__(self, clock: Clock, steps: int, seconds: float = 0.001) -> None:
        self.clock = clock
        self.total, self.seconds = steps, seconds
        self.done = 0

    def steps(self) -> Iterator[None]:
        while self.done < self.total:
            self.done += 1
            self.clock.rightNow += self.seconds
            yield


def test_a_quiet_gate() -> None:
    """Slices are short, so that clients that come meanwhile hardly wait."""
    clock = Turns()
    task, slices = Task(clock, 35), Slices(clock)
    over = slices.run(task.steps())
    assert task.done == 0
    counts = []
    while not over.called:
        clock.turn()
        counts.append(task.done)
    assert counts == [10, 20, 30, 35]
    assert clock.getDelayedCalls() == []


def test_a_busy_gate() -> None:
    """The longer a turn takes, the longer the next slice, up to a bound."""
    clock = Turns()
    task, slices = Task(clock, 1000), Slices(clock)
    slices.run(task.steps())
    taken = []
    for busy in (0.0, 0.02, 0.04, 3.0):
        before = task.done
        clock.turn(busy)
        taken.append(task.done - before)
    assert taken[:3] == [10, 20, 40]
    assert 50 <= taken[3] <= 51


def test_a_turn_that_does_not_end() -> None:
    """Thousands of clients in one turn of the reactor: the task gets half of the time."""
    clock = Turns()
    task, slices = Task(clock, 500), Slices(clock)
    over = slices.run(task.steps())
    for _ in range(1100):
        clock.rightNow += 0.001
        slices.look()
    assert over.called
    assert clock.seconds() < 1.7


def test_another_task_takes_the_place_of_one_that_is_not_over() -> None:
    clock = Turns()
    one, two, slices = Task(clock, 100), Task(clock, 5), Slices(clock)
    first = slices.run(one.steps())
    clock.turn()
    second = slices.run(two.steps())
    assert (first.called, second.called) == (True, False)
    clock.turn()
    assert (one.done, two.done, second.called) == (10, 5, True)
    slices.look()
    clock.turn(1)
    assert clock.getDelayedCalls() == []


def test_a_step_may_look_and_may_begin_another_task() -> None:
    """As when closing a client makes another come, or a reload is asked for."""
    clock = Turns()
    slices, other = Slices(clock), Task(clock, 3)
    said: list[int] = []

    def steps() -> Iterator[None]:
        for number in range(100):
            said.append(number)
            clock.rightNow += 1.0
            slices.look()
            if number == 2:
                slices.run(other.steps())
            yield

    slices.run(steps())
    for _ in range(10):
        clock.turn()
    assert said == [0, 1, 2]
    assert other.done == 3


def test_a_task_that_fails(log: Log) -> None:
    """It is over, and whoever looked goes on."""
    clock = Turns()
    slices = Slices(clock)

    def steps() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    over = slices.run(steps())
    clock.rightNow += 1.0
    slices.look()
    assert over.called
    log.expect_failure(ZeroDivisionError)
