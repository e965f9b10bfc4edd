"""
Where ``hcl2`` and HashiCorp's HCL differ, and what ``hcl2`` gets to see.
"""

from __future__ import annotations

import re

import hcl2
import pytest
from lark.exceptions import LarkError, VisitError

from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import Body, Literal, Operation, Unary
from mtlsgate.errors import Report


def read(text: str) -> tuple[Body | None, list[str]]:
    report = Report("gate.hcl")
    body = parse(text.encode(), report)
    return body, [f"{p.at.line}:{p.at.column} {p.text}" for p in report.errors]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1 b = 2\n", "1:7"),
        ("a = b.* c = 2\n", "1:9"),
        ("a {} b {}\n", "1:6"),
        ("a\n{\n}\n", "1:2"),
        ("a { b = 1\n}\n", "1:10"),
        ("a { b {} }\n", "1:7"),
        ("a { b = 1 c = 2 }\n", "1:11"),
        ("a {\n b = 1 }\n", "2:8"),
        ("a = 1 +\n2\n", "1:8"),
        ("a = 1\n+ 2\n", "2:1"),
        ("a = 1 + 2\n- 3\n", "2:1"),
        ("a = b ?\n1 : 2\n", "1:8"),
        ("a = b\n? 1 : 2\n", "2:1"),
        ("a = b ? 1\n: 2\n", "1:10"),
        ("a = { b = 1 c = 2 }\n", "1:13"),
        ('a = { b = 1 "c" = 2 }\n', "1:13"),
        ("a = { b = 1 +\n2 }\n", "1:14"),
        ("a = { b = 1\n, c = 2 }\n", "2:1"),
        ("a = { for = 1 }\n", "1:11"),
        ("a = {\nfor = 1\n}\n", "2:5"),
    ],
)
def test_what_only_hcl2_takes_is_refused(text: str, place: str) -> None:
    """What ``hcl2`` takes and HashiCorp's tools refuse is one error, in its place."""
    hcl2.parses_to_tree(text)
    body, errors = read(text)
    assert body is None
    assert [error.split()[0] for error in errors] == [place]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('a = "%{ for x in y : z ? b }c%{ endfor }"\n', "1:20"),
        ('a = "%{ for x in y : z }c%{ endfor }"\n', "1:24"),
        ('a = "%{ for x in y if z }c%{ endfor }"\n', "1:20"),
        ('a = "%{ if x : y }c%{ endif }"\n', "1:14"),
        ('a = "${x y = z}"\n', "1:10"),
        ('a = "${x, y}"\n', "1:9"),
        ('a = "${}"\n', "1:8"),
    ],
)
def test_what_is_added_around_an_expression_completes_none(text: str, place: str) -> None:
    """What is written around the expressions of templates for ``hcl2`` lets no more in."""
    body, errors = read(text)
    assert body is None
    assert [error.split()[0] for error in errors] == [place]


@pytest.mark.parametrize(
    "text",
    [
        "a = 1-12\n",
        "a = --1\n",
        "a = !!true\n",
        "é = 1\n",
        "a = <<É\nb\nÉ\n",
        'a = "${~ 1 ~}"\n',
        'a = "${\n1\n}"\n',
        'a = "$${b"\n',
        "a = f(\n1,\n2\n)\n",
        "a = (1 +\n\n2 -\n3)\n",
        "a = ns::f()\n",
        "a = in\n",
        "a = b.for\n",
        "a = if.else\n",
        "a = [for in in in : in]\n",
        "a = [for null in b : 1]\n",
        "a = b [ * ] . c\n",
        "a = b . *\n",
        "a = null(1)\n",
        "a = 1 /* b\n */ + 2\n",
    ],
)
def test_what_hcl2_refuses_is_read(text: str) -> None:
    """What HashiCorp's tools take is read, whether or not ``hcl2`` takes it as it stands."""
    assert read(text)[0] is not None, read(text)[1]


def test_operators_group_as_their_precedence_says() -> None:
    """Operators of one precedence are one operation, from the left."""
    body, _ = read("a = 1 - 2 * 3 + -4 == 5 && !true || 6 > 7\n")
    assert body is not None
    whole = body.attributes[0].expression

    def spelled(expression: object) -> str:
        match expression:
            case Operation(first=first, rest=rest):
                tail = "".join(f" {operator} {spelled(operand)}" for operator, operand in rest)
                return f"({spelled(first)}{tail})"
            case Unary(operators=operators, operand=operand):
                return operators + spelled(operand)
            case Literal(value=value):
                return str(value).lower()
        raise AssertionError(expression)

    assert spelled(whole) == "((((1 - (2 * 3) + -4) == 5) && !true) || (6 > 7))"


def test_hcl2_sees_nothing_that_a_person_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, numbers, strings and comments are masked; what remains is grammar."""
    seen: list[str] = []
    parses_to_tree = hcl2.parses_to_tree

    def record(text: str) -> object:
        seen.append(text)
        return parses_to_tree(text)

    monkeypatch.setattr("hcl2.parses_to_tree", record)
    body, _ = read(
        'hunter2 "hunter2" hunter2 {\n hunter2 = ["a ${hunter2 + 12345}", hunter2, <<E\n'
        'hunter2 ${"hunter2"} %{ for hunter2 in hunter2 }hunter2%{ endfor }\nE\n'
        ', {hunter2 = true}, hunter2(-12345), x.hunter2["hunter2"]] # hunter2\n'
        " bare = ./hunter2/12345\n}\n"
    )
    assert body is not None
    assert len(seen) == 4
    for text in seen:
        words = {word for word in re.findall(r"\w+", text) if word.strip("_")}
        assert words <= {"x", "1", "true", "for", "in"}


def test_expressions_of_one_shape_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one interpolation is told by another of the same shape is its place and names."""
    calls = []
    parses_to_tree = hcl2.parses_to_tree

    def count(text: str) -> object:
        calls.append(text)
        return parses_to_tree(text)

    monkeypatch.setattr("hcl2.parses_to_tree", count)
    body, _ = read('a = "' + "-${env.A}" * 100 + '"\n' + 'b = "-${env.B}"\n')
    assert len(calls) == 2
    assert body is not None
    assert "'A'" in str(body.attributes[0])
    assert "'B'" in str(body.attributes[1])
    assert "column=99" in str(body.attributes[0])


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), RuntimeError("odd"), VisitError("x", "x", ValueError())]
)
@pytest.mark.parametrize(("text", "place"), [("a = 1\n", "1:1"), ('a = "${1}"\n', "1:8")])
def test_whatever_hcl2_raises_is_a_located_error(
    monkeypatch: pytest.MonkeyPatch, error: LarkError | RuntimeError, text: str, place: str
) -> None:
    """An error that says no place is at the beginning of what was parsed."""
    parses_to_tree = hcl2.parses_to_tree

    def fail(written: str) -> object:
        if place == "1:1" or written.startswith("x=("):
            raise error
        return parses_to_tree(written)

    monkeypatch.setattr("hcl2.parses_to_tree", fail)
    assert read(text) == (None, [f"{place} this cannot be read; simplify it"])
