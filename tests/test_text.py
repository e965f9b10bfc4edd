"""
Text from outside, made safe to print.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.text import MAX_LOGGED, cut, loggable, printable


@pytest.mark.parametrize("text", ["", "CN=alice", "x" * 256, "caf\u00e9"])
def test_a_short_value_is_logged_as_it_is(text: str) -> None:
    """... if it is printable."""
    assert loggable(text) == cut(text, MAX_LOGGED) == text


def test_a_long_value_says_how_long_it_was() -> None:
    """In no more characters than there may be, the mark included."""
    assert loggable("x" * 257) == "x" * 238 + "… (257 characters)"
    assert cut("x" * 384000, 4096) == "x" * 4075 + "… (384000 characters)"
    assert loggable("\n" * 100) == "\\n" * 100
    assert loggable("\n" * 200) == "\\n" * 119 + "… (200 characters)"


@settings(deadline=None)
@given(st.text(max_size=400))
def test_whatever_is_logged_is_printable_and_short(text: str) -> None:
    """Every value, and the beginning of it is what it was."""
    logged = loggable(text)
    assert len(logged) <= MAX_LOGGED
    assert logged.isprintable()
    kept = logged.rpartition("… (")[0] if logged != printable(text) else logged
    assert printable(text).startswith(kept)
