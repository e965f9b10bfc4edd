from __future__ import annotations

from threading import Event

import pytest

from mtlsgate.load.progress import note_if_slow


def test_it_says_so_once_it_takes_longer() -> None:
    """The line comes while the work goes on."""
    said: list[str] = []
    heard = Event()

    def say(text: str) -> None:
        said.append(text)
        heard.set()

    with note_if_slow(say, "gate.hcl", 0.0):
        assert heard.wait(30)
    (line,) = said
    assert line.startswith("gate.hcl: still ")


def test_it_says_nothing_of_quick_work() -> None:
    """Nothing comes late, also when the work fails."""
    said: list[str] = []
    with note_if_slow(said.append, "gate.hcl", 3600):
        pass
    with pytest.raises(KeyError), note_if_slow(said.append, "gate.hcl", 3600):
        raise KeyError
    assert said == []
