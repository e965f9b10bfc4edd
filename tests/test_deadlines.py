from __future__ import annotations

from mtlsgate.deadlines import Deadlines


def test_things_are_due_in_their_order() -> None:
    """Whatever the order in which they were noted; each once."""
    deadlines = Deadlines[str](lambda thing: True)
    for at, thing in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (2.0, "b again")):
        deadlines.add(at, thing)
    assert list(deadlines.due(0.5)) == []
    assert list(deadlines.due(2.0)) == ["a", "b", "b again"]
    assert list(deadlines.due(9.0)) == ["c"]
    assert list(deadlines.due(9.0)) == []


def test_what_no_longer_matters_is_not_due() -> None:
    gone = {"a"}
    deadlines = Deadlines[str](lambda thing: thing not in gone)
    deadlines.add(1.0, "a")
    deadlines.add(1.0, "b")
    assert list(deadlines.due(1.0)) == ["b"]


def test_what_no_longer_matters_is_not_kept_for_ever() -> None:
    """A hundred thousand connections that end early leave no trace of their far deadlines."""
    gone = set[int]()
    deadlines = Deadlines[int](lambda thing: thing not in gone)
    for number in range(100_000):
        deadlines.add(1e9, number)
        gone.add(number)
    assert len(deadlines) < 2048


def test_what_matters_is_kept_however_much_it_is() -> None:
    deadlines = Deadlines[int](lambda thing: True)
    for number in range(5_000):
        deadlines.add(float(number), number)
    assert list(deadlines.due(1e9)) == list(range(5_000))
