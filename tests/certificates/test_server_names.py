"""Looking server names up."""

from __future__ import annotations

import pytest

from mtlsgate.certificates.server_names import canonical, first_by_name

TABLE = first_by_name(
    [
        (["a.example", "*.example"], 1),
        (["b.example", "*.b.example", "A.example"], 2),
        (["Deep.B.Example.", "localhost"], 3),
        ([], 4),
    ]
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.example", 1),
        ("A.EXAMPLE", 1),
        ("a.example.", 1),
        ("other.example", 1),
        ("b.example", 2),
        ("x.b.example", 2),
        ("deep.b.example", 3),
        ("DEEP.b.example.", 3),
        ("localhost", 3),
        # A wildcard is one whole label, and at least one.
        ("x.y.b.example", None),
        ("x.a.example", None),
        ("example", None),
        (".example", None),
        ("com", None),
        ("", None),
        (".", None),
        ("a.example..", None),
        ("*.example", 1),
        ("127.0.0.1", None),
        ("\xffa.example", 1),
        ("\0", None),
        (None, None),
    ],
)
def test_exact_names_go_before_wildcards(name: str | None, found: int | None) -> None:
    assert TABLE.find(name) == found


def test_first_to_offer() -> None:
    """A name that several offer is the first's, wildcards among themselves too."""
    assert first_by_name([(["x"], 1), (["X."], 2)]).find("x") == 1
    assert first_by_name([(["*.x"], 1), (["*.X"], 2)]).find("a.x") == 1


def test_exact_before_wildcard() -> None:
    """In whatever order they are offered."""
    assert first_by_name([(["*.x"], 1), (["a.x"], 2)]).find("a.x") == 2


def test_an_empty_table_finds_nothing() -> None:
    assert first_by_name([]).find("a") is None


@pytest.mark.parametrize(
    ("name", "expected"), [("A.b.", "a.b"), ("a", "a"), ("", ""), ("..", "."), ("É", "É")]
)
def test_case_and_one_trailing_dot_do_not_matter(name: str, expected: str) -> None:
    assert canonical(name) == expected
