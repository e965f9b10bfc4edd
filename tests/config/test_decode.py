from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from attrs import Factory, field, frozen

from mtlsgate.config import (
    AlreadyReported,
    Duration,
    Empty,
    Located,
    Material,
    Parsed,
    Remainder,
    parse_duration,
)
from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import Scope
from mtlsgate.config.fields import label, position
from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import Body
from mtlsgate.errors import START, Position, Report
from tests.kits.decoding import good, no_files, read


def class_of(hint: Any) -> type[Any]:
    """:returns: a class whose only field, x, has that type."""
    return attrs.make_class("One", {"x": attrs.field(type=hint)}, frozen=True)


def value_of(hint: Any, expression: str) -> Any:
    cls = class_of(hint)
    return good(cls, f"x = {expression}\n").x


def refusal_of(hint: Any, expression: str) -> str:
    cls = class_of(hint)
    instance, problems = read(cls, f"x = {expression}\n")
    assert instance is None
    (problem,) = problems
    return problem


# What an annotation asks for


EMPTY = "is empty: write a value, or remove it"


def shout(text: str) -> str:
    if not text:
        raise ValueError("must not be quiet")
    return text.upper()


@pytest.mark.parametrize(
    ("hint", "expression", "expected"),
    [
        (str, '"a"', "a"),
        (str, '"a${1}"', "a1"),
        (str, "env.SET", "set"),
        (str | None, '"a"', "a"),
        (bool, "true", True),
        (int, "7", 7),
        (int, "-7", -7),
        (float, "1.5", 1.5),
        (float, "2", 2.0),
        (tuple[str, ...], '["a", "b"]', ("a", "b")),
        (tuple[str, ...], "[]", ()),
        (list[int], "[1, 2]", [1, 2]),
        (tuple[tuple[int, ...], ...], "[[1], []]", ((1,), ())),
        (dict[str, int], "{ a = 1, b = 2 }", {"a": 1, "b": 2}),
        (Mapping[str, str], '{ a = "1" }', {"a": "1"}),
        (dict, "{ a = [1] }", {"a": [1]}),
        (list, "[1, [2]]", [1, [2]]),
        (Any, "{ a = [1, null] }", {"a": [1, None]}),
        (object, "true", True),
        (Literal["a", "b"], '"b"', "b"),
        (Literal[1, 2], "2", 2),
        (Duration, '"250ms"', 0.25),
        (Duration | None, '"1h"', 3600.0),
        (Annotated[str, Parsed(shout)], '"a"', "A"),
        (Annotated[int, "a remark"], "1", 1),
        (tuple[Annotated[str, Parsed(shout)], ...], '["a", "b"]', ("A", "B")),
        (Located[str], '"a"', Located("a", Position(1, 5))),
        (
            tuple[Located[int], ...],
            "[1,\n  2]",
            (Located(1, Position(1, 6)), Located(2, Position(2, 3))),
        ),
        (Located[Duration], '"1s"', Located(1.0, Position(1, 5))),
    ],
)
def test_a_value_becomes_what_its_annotation_asks_for(
    hint: Any, expression: str, expected: object
) -> None:
    found = value_of(hint, expression)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "expression", "expected"),
    [
        (str, "1", "1:5: file: x: must be a string, not a whole number: put it in quotes"),
        (str, "true", "1:5: file: x: must be a string, not true or false"),
        (str, "[]", "1:5: file: x: must be a string, not a list"),
        (str, "{}", "1:5: file: x: must be a string, not an object"),
        (int, '"1"', "1:5: file: x: must be a whole number, not a string: write 1, without quotes"),
        (int, "1.5", "1:5: file: x: must be a whole number, not a number"),
        (int, "true", "1:5: file: x: must be a whole number, not true or false"),
        (bool, "1", "1:5: file: x: must be true or false, not a whole number"),
        (
            bool,
            '"true"',
            "1:5: file: x: must be true or false, not a string: write true, without quotes",
        ),
        (float, '"1"', "1:5: file: x: must be a number, not a string: write 1, without quotes"),
        (float, "false", "1:5: file: x: must be a number, not true or false"),
        (
            tuple[str, ...],
            '"a"',
            "1:5: file: x: must be a list, not a string: put it in [brackets]",
        ),
        (
            tuple[str, ...],
            '["a", 1]',
            "1:11: file: x: must be a string, not a whole number: put it in quotes",
        ),
        (tuple[str, ...], '["a", null]', "1:11: file: x: must be a string, not null"),
        (list[int], "{}", "1:5: file: x: must be a list, not an object"),
        (list, "1", "1:5: file: x: must be a list, not a whole number"),
        (dict[str, int], "[]", "1:5: file: x: must be an object, not a list"),
        (dict[str, int], '{ a = "b" }', "1:11: file: x: must be a whole number, not a string"),
        (Mapping[str, int], "1", "1:5: file: x: must be an object, not a whole number"),
        (Literal["a", "b"], '"c"', '1:5: file: x: must be "a" or "b"'),
        (Literal["a", "b"], "1", '1:5: file: x: must be "a" or "b"'),
        (Literal[1, 2], "true", "1:5: file: x: must be 1 or 2"),
        (Literal[1, 2], '"1"', "1:5: file: x: must be 1 or 2"),
        (Located[str], "1", "1:5: file: x: must be a string, not a whole number: put it in quotes"),
        (
            Duration,
            "10",
            '1:5: file: x: not a duration; write it as "250ms", "10s", "5m" or "1h"',
        ),
        (Duration, "true", "1:5: file: x: must be a string, not true or false"),
        (Annotated[str, Parsed(shout)], '""', f"1:5: file: x: {EMPTY}"),
        (str, '""', f"1:5: file: x: {EMPTY}"),
        (tuple[str, ...], '["a", ""]', f"1:11: file: x: {EMPTY}"),
    ],
)
def test_a_value_of_another_kind_is_refused_where_it_stands(
    hint: Any, expression: str, expected: str
) -> None:
    assert refusal_of(hint, expression) == expected


@pytest.mark.parametrize("hint", [str | int, set[str], bytes, tuple[Path, ...]])
def test_an_annotation_that_no_block_can_be_read_by_is_the_programmers_error(hint: Any) -> None:
    cls = class_of(hint)
    with pytest.raises(TypeError, match="is not an annotation that a block can be read by"):
        read(cls, "x = [1]\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1.5m", 90.0),
        ("0.5s", 0.5),
        ("0010s", 10.0),
        ("8760h", 31_536_000.0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "s", "ms", "10 s", " 10s", "10s ", "10s\n", "10S", "10sm", "10d", "1h30m"),
        *("-1s", "+1s", "1e3s", "1_0s", ".5s", "1.s", "1..5s", "1.5.5s", "0x1s", "infs", "nans"),
        *("\u0661s", "\xb2s"),
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r'not a duration; write it as "250ms", "10s", "5m" or'):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "0.0h", "87600h", "9" * 5000 + "s"])
def test_a_duration_is_longer_than_nothing_and_shorter_than_for_ever(text: str) -> None:
    with pytest.raises(ValueError, match="must be longer than zero and shorter than ten years"):
        parse_duration(text)


# Attributes


@frozen
class Attributes:
    needed: str
    free: int = 3
    maybe: str | None = None
    many: list[str] = Factory(list)


def test_what_is_not_written_has_its_default() -> None:
    assert good(Attributes, 'needed = "a"\n') == Attributes("a")


def test_null_is_as_if_it_were_not_written() -> None:
    text = 'needed = "a"\nfree = null\nmaybe = null\nmany = null\n'
    assert good(Attributes, text) == Attributes("a")


@pytest.mark.parametrize("text", ["", "needed = null\n"])
def test_what_is_required_and_not_set_is_reported_at_the_block(text: str) -> None:
    assert read(Attributes, text) == (None, ["1:1: file: needed is missing"])


def test_an_error_in_an_expression_is_reported_where_it_is() -> None:
    instance, problems = read(Attributes, 'needed = "a"\nmaybe = "b${env.UNSET}"\n')
    assert instance is not None
    assert problems == [
        "2:13: file: maybe: environment variable UNSET is not set; set it, or give a fallback"
        ' with default(env.UNSET, "...")'
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("neded = 1\n", '1:1: file: unknown attribute "neded"; did you mean "needed"?'),
        ("xyz = 1\n", '1:1: file: unknown attribute "xyz"'),
        ("mani {\n}\n", '1:1: file: unknown block "mani"; did you mean "many"?'),
        ("xyz {\n}\n", '1:1: file: unknown block "xyz"'),
        ('xyz "a" "b" {\n}\n', '1:1: file: unknown block "xyz"'),
        ("maybe {\n}\n", "1:1: file: maybe is an attribute: write maybe = …"),
        ("Needed = 1\n", '1:1: file: unknown attribute "Needed"; did you mean "needed"?'),
    ],
)
def test_what_no_field_reads_is_refused(text: str, expected: str) -> None:
    _, problems = read(Attributes, text + 'needed = "a"\n')
    assert problems == [expected]


def test_an_attribute_written_as_a_block_is_not_also_missing() -> None:
    assert read(Attributes, "needed {\n}\n") == (
        None,
        ["1:1: file: needed is an attribute: write needed = …"],
    )


def test_private_and_aliased_fields_are_named_as_they_are_given() -> None:
    @frozen
    class Hidden:
        _secret: str
        other: str = field(alias="another")
        made: int = field(init=False, default=1)

    assert good(Hidden, 'secret = "a"\nanother = "b"\n') == Hidden("a", another="b")
    assert read(Hidden, 'secret = "a"\nanother = "b"\nmade = 2\n')[1] == [
        '3:1: file: unknown attribute "made"'
    ]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("too small", "and", "more"), "1:1: file: too small"),
        (TypeError("two\nlines"), "1:1: file: two\\nlines"),
        (ValueError(), "1:1: file: ValueError"),
    ],
)
def test_what_a_class_refuses_is_reported_at_the_block(raised: Exception, expected: str) -> None:
    @frozen
    class Picky:
        x: int = field()

        @x.validator
        def _refuse(self, _: object, value: int) -> None:
            raise raised

    assert read(Picky, "x = 1\n") == (None, [expected])


# Material


@frozen
class WithMaterial:
    cert: Material
    spare: Material | None = None


def test_material_is_read_from_either_of_two_attributes() -> None:
    assert good(WithMaterial, 'cert = "inline"\nspare_file = "a/b"\n') == WithMaterial(
        Material("cert", Position(1, 1), text="inline"),
        Material("spare_file", Position(2, 1), path=Path("a/b")),
    )


def test_null_is_neither_of_the_two() -> None:
    found = good(WithMaterial, 'cert = null\ncert_file = "a"\nspare = null\n')
    assert found == WithMaterial(Material("cert_file", Position(2, 1), path=Path("a")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: file: cert or cert_file is missing"]),
        ("cert = null\n", ["1:1: file: cert or cert_file is missing"]),
        ('cert = "a"\ncert_file = "b"\n', ["2:1: file: cert and cert_file are mutually exclusive"]),
        ('cert_file = "b"\ncert = "a"\n', ["1:1: file: cert and cert_file are mutually exclusive"]),
        ("cert = 1\n", ["1:8: file: cert: must be a string, not a whole number: put it in quotes"]),
        ("cert_file = []\n", ["1:13: file: cert_file: must be a string, not a list"]),
        (
            "cert = 1\ncert_file = []\n",
            [
                "1:8: file: cert: must be a string, not a whole number: put it in quotes",
                "2:13: file: cert_file: must be a string, not a list",
            ],
        ),
        (
            'cert_fil = "a"\n',
            [
                "1:1: file: cert or cert_file is missing",
                '1:1: file: unknown attribute "cert_fil"; did you mean "cert_file"?',
            ],
        ),
        ("cert_file {\n}\ncert = null\n", None),
    ],
)
def test_material_is_given_once(text: str, expected: list[str] | None) -> None:
    instance, problems = read(WithMaterial, text)
    assert instance is None
    if expected is not None:
        assert problems == expected


def test_material_never_shows_its_text() -> None:
    assert "inline" not in repr(Material("cert", START, text="inline"))


# Blocks


@frozen
class Leaf:
    x: int
    at: Position = position()
    name: str | None = label(default=None)


@frozen
class Named:
    name: str = label()


@frozen
class Bare:
    x: int = 0


@frozen
class Blocks:
    one: Bare | None = None
    leaf: tuple[Leaf, ...] = ()
    named: Named | None = None


def test_blocks_are_read_into_classes_of_their_own() -> None:
    text = 'leaf "a" {\n  x = 1\n}\n\n  leaf {\n  x = 2\n}\none { x = 5 }\nnamed n {}\n'
    assert good(Blocks, text) == Blocks(
        Bare(5),
        (Leaf(1, Position(1, 1), "a"), Leaf(2, Position(5, 3))),
        Named("n"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('one "a" {}\n', ['1:1: one "a": takes no label']),
        ('leaf "a" "b" { x = 1 }\n', ['1:1: leaf "a" "b": takes one label, not several']),
        ('leaf "" { x = 1 }\n', ['1:1: leaf "": the label is empty']),
        ("named {}\n", ['1:1: named: needs a label: named "…" {']),
        ('named "" {}\n', ['1:1: named "": the label is empty']),
        (
            'leaf "a" { x = 1 }\nleaf "a" { x = 2 }\nleaf a { x = 3 }\n',
            [
                '2:1: leaf "a": this label is taken by the block in line 1',
                '3:1: leaf "a": this label is taken by the block in line 1',
            ],
        ),
        (
            "one {}\none {}\none {}\n",
            [
                "2:1: one: only one one block is allowed here; the first is in line 1",
                "3:1: one: only one one block is allowed here; the first is in line 1",
            ],
        ),
        ("one = 1\n", ["1:1: file: one is a block: write one { … }"]),
        ("leaf = []\n", ["1:1: file: leaf is a block: write leaf { … }"]),
        ('leaf "\\n\\u001b" {}\n', ['1:1: leaf "\\n\\x1b": x is missing']),
    ],
)
def test_a_block_that_is_not_as_it_should_be_is_refused(text: str, expected: list[str]) -> None:
    assert read(Blocks, text)[1] == expected


def test_two_blocks_without_a_label_do_not_clash() -> None:
    assert len(good(Blocks, "leaf { x = 1 }\nleaf { x = 2 }\n").leaf) == 2


@frozen
class NeedsBlocks:
    one: Bare
    leaf: tuple[Leaf, ...] = field()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: file: no leaf block", "1:1: file: the one block is missing"]),
        (
            "one = 1\nleaf = 2\n",
            [
                "1:1: file: one is a block: write one { … }",
                "2:1: file: leaf is a block: write leaf { … }",
            ],
        ),
    ],
)
def test_blocks_can_be_required(text: str, expected: list[str]) -> None:
    assert read(NeedsBlocks, text) == (None, expected)


def test_a_block_with_a_broken_block_in_it_is_not_built_and_what_was_read_is_not_lost() -> None:
    report = Report("f")
    body = parse(b"one { x = 1 }\nleaf { x = 2 }\nleaf {}\n", report)
    assert body is not None
    decoder = Decoder(Scope({}, no_files), report)
    assert decoder.decode(NeedsBlocks, body, START, "file") is None
    assert [str(one) for one in report.errors] == ["f:3:1: leaf: x is missing"]
    found = [(name, one) for _, name, one in decoder.unplaced]
    assert ("one", Bare(1)) in found
    assert ("leaf", Leaf(2, Position(2, 1))) in found


def test_everything_is_reported_in_one_go() -> None:
    text = """\
one "label" { x = "text" }
leaf "a" { x = env.A }
leaf "a" { y = 1 }
named {}
other = 1
one { x = [] }
"""
    instance, problems = read(Blocks, text)
    assert instance is None
    assert problems == [
        '1:1: one "label": takes no label',
        '1:19: one "label": x: must be a whole number, not a string',
        '2:16: leaf "a": x: environment variable A is not set; set it, or give a fallback with'
        ' default(env.A, "...")',
        '3:1: leaf "a": this label is taken by the block in line 2',
        '3:1: leaf "a": x is missing',
        '3:12: leaf "a": unknown attribute "y"',
        '4:1: named: needs a label: named "…" {',
        '5:1: file: unknown attribute "other"',
        "6:1: one: only one one block is allowed here; the first is in line 1",
    ]


# What a class says itself


@frozen
class Judged:
    low: int = 0
    high: int = 0

    def problems(self) -> Iterator[tuple[str | None, str]]:
        if self.low > self.high:
            yield "low", "low is above high"
            yield None, "nothing fits"
            yield "elsewhere", "no such attribute"


def test_what_a_class_finds_wrong_is_reported_at_the_attribute_it_names() -> None:
    instance, problems = read(Judged, "high = 1\nlow = 2\n")
    assert instance == Judged(2, 1)
    assert problems == [
        "1:1: file: no such attribute",
        "1:1: file: nothing fits",
        "2:1: file: low is above high",
    ]


@pytest.mark.parametrize("expression", ["1 + true", "env.UNSET"])
def test_a_class_does_not_judge_after_an_expression_in_error(expression: str) -> None:
    _, problems = read(Judged, f"high = {expression}\nlow = 2\n")
    assert len(problems) == 1


def test_a_class_does_not_judge_values_that_were_in_error() -> None:
    assert read(Judged, 'high = "1"\nlow = 2\n')[1] == [
        "1:8: file: high: must be a whole number, not a string: write 1, without quotes"
    ]


# Remainder and Body


@frozen
class Open:
    known: str
    rest: Remainder
    block: Bare | None = None


def test_the_remainder_is_what_no_other_field_reads() -> None:
    found = good(Open, 'known = "a"\nblock {}\nx = 1\n')
    assert found.rest.decode(Bare) == Bare(1)
    assert found.rest.plain() == {"x": 1}


def test_the_remainder_is_plain_python() -> None:
    found = good(Open, 'known = "a"\nx = [1, { y = null }]\nz = null\n')
    assert found.rest.plain() == {"x": [1, {"y": None}], "z": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("more {}\n", '2:1: file: unknown block "more"'),
        (
            "x = y\n",
            '2:5: file: x: a bare name is not a value; put text in quotes: "y"',
        ),
        (
            "x = env.A\n",
            "2:5: file: x: environment variable A is not set; set it, or give a"
            ' fallback with default(env.A, "...")',
        ),
    ],
)
def test_a_remainder_in_error_is_reported_once(text: str, expected: str | None) -> None:
    report = Report("f")
    body = parse(f'known = "a"\n{text}'.encode(), report)
    assert body is not None
    found = Decoder(Scope({}, no_files), report).decode(Open, body, START, "file")
    assert found is not None
    before = len(report.errors)
    with pytest.raises(AlreadyReported):
        found.rest.plain()
    if expected is None:
        assert before == len(report.errors)
    else:
        assert [str(one).removeprefix("f:") for one in report.errors] == [expected]


def test_a_remainder_that_does_not_fit_is_reported() -> None:
    report = Report("f")
    body = parse(b'known = "a"\ny = 1\n', report)
    assert body is not None
    found = Decoder(Scope({}, no_files), report).decode(Open, body, START, "file")
    assert found is not None
    found.rest.decode(Bare)
    assert [str(one) for one in report.errors] == ['f:2:1: file: unknown attribute "y"']
    with pytest.raises(AlreadyReported):
        found.rest.decode(Leaf)


def test_a_body_is_taken_as_it_is() -> None:
    @frozen
    class Whole:
        body: Body

    assert [one.name for one in good(Whole, "x = 1\ny {}\n").body.attributes] == ["x"]


# Empty text


@frozen
class Texts:
    one: str | None = None
    many: tuple[str, ...] = ()
    free: Annotated[str, Empty.ALLOWED] = "-"
    named: dict[str, str] = Factory(dict)
    spare: Material | None = None
    coupers: Annotated[Material, Empty.UNSET] | None = None
    count: int | None = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('one = ""', f"1:7: file: one: {EMPTY}"),
        ('many = ["a", ""]', f"1:14: file: many: {EMPTY}"),
        ('spare = ""', f"1:9: file: spare: {EMPTY}"),
        ('spare_file = ""', f"1:14: file: spare_file: {EMPTY}"),
        ("one = env.EMPTY", "1:7: file: one: comes out empty: check environment variable EMPTY"),
        ('one = "${""}"', "1:7: file: one: comes out empty: an expression must not make it so"),
        (
            "many = split(env.EMPTY, env.EMPTY)\none = trim(env.EMPTY)",
            "2:7: file: one: comes out empty: check environment variable EMPTY",
        ),
        (
            'many = split(",", env.EMPTY)',
            "1:19: file: many: comes out empty: check environment variable EMPTY",
        ),
        (
            "coupers = env.EMPTY",
            "1:11: file: coupers: comes out empty: check environment variable EMPTY",
        ),
        (
            'coupers_file = "${env.EMPTY}${trim(env.BLANK)}"',
            "1:16: file: coupers_file: comes out empty: check environment variables BLANK, EMPTY",
        ),
        (
            'coupers = default(env.NONE, "")',
            "1:29: file: coupers: comes out empty: check environment variable NONE",
        ),
        (
            'coupers = env.SET == "x" ? "y" : ""',
            "1:34: file: coupers: comes out empty: check environment variable SET",
        ),
        (
            'coupers = ["", "x"][0]',
            f"1:12: file: coupers: {EMPTY}",
        ),
        (
            'coupers = [for x in [""] : x][0]',
            f"1:22: file: coupers: {EMPTY}",
        ),
        (
            "count = env.EMPTY",
            "1:9: file: count: comes out empty: check environment variable EMPTY",
        ),
    ],
)
def test_an_empty_text_is_an_error(text: str, expected: str) -> None:
    """Above all if an expression makes it so: it never counts as not written."""
    assert read(Texts, text + "\n")[1] == [expected]


def test_where_an_empty_text_is_none() -> None:
    """Couper's certificates may be the empty literal; a plugin may allow it."""
    text = 'free = ""\nnamed = { a = "" }\ncoupers = ""\ncoupers_file = ""\n'
    assert good(Texts, text) == Texts(free="", named={"a": ""})
    both = good(Texts, 'coupers = ""\ncoupers_file = "a.crt"\n')
    assert both.coupers == Material("coupers_file", Position(2, 1), path=Path("a.crt"))


@pytest.mark.parametrize(
    ("hint", "expression", "expected"),
    [
        (int, "env.NUMBER", 5),
        (int, '"${env.NUMBER}0"', 50),
        (int, "2 * 3", 6),
        (float, "env.NUMBER", 5.0),
        (bool, "env.TRUE", True),
        (str, "1 + 1", "2"),
        (Duration, '"${2 * 5}s"', 10.0),
        (tuple[str, ...], 'split(",", "a,b")', ("a", "b")),
        (tuple[int, ...], 'split(",", "1,2")', (1, 2)),
    ],
)
def test_what_an_expression_makes_is_converted(
    hint: Any, expression: str, expected: object
) -> None:
    """An environment variable is always text, and means a number where one is needed."""
    assert value_of(hint, expression) == expected
