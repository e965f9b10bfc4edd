from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from mtlsgate.config.expressions import evaluate
from mtlsgate.config.scope import Budget, Scope
from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import Expression
from mtlsgate.config.values import ExpressionErrors, Value
from mtlsgate.errors import CredentialError, Position, Report

ENVIRON = {"A": "a", "B": "b", "EMPTY": "", "NAME": "A", "SECRET": "hunter2"}


def no_file(path: str) -> bytes:
    raise AssertionError(path)


def expression(text: str) -> Expression:
    report = Report("gate.hcl")
    body = parse(f"x = {text}\n".encode(), report)
    assert body is not None
    assert not report.errors
    return body.attributes[0].expression


def find(text: str, read_file: Callable[[str], bytes] = no_file) -> Value:
    return evaluate(expression(text), Scope(ENVIRON, read_file))


def faults(text: str, read_file: Callable[[str], bytes] = no_file) -> list[tuple[int, int, str]]:
    with pytest.raises(ExpressionErrors) as caught:
        find(text, read_file)
    return [(at.line, at.column, problem) for at, problem in caught.value.errors]


def unset(name: str) -> str:
    return (
        f"environment variable {name} is not set; set it, or give a fallback with"
        f' default(env.{name}, "...")'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a"', "a"),
        ("1", 1),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("[]", []),
        ("{}", {}),
        (
            '[1, env.A, [null], { a = "b", c = [env["B"]] }]',
            [1, "a", [None], {"a": "b", "c": ["b"]}],
        ),
        ("env.A", "a"),
        ('env["A"]', "a"),
        ("env.EMPTY", ""),
        ('"${env.A}"', "a"),
        ('"${true}"', True),
        # templates
        ('"-${env.A}${env.B}-"', "-ab-"),
        ('"${true} ${false}"', "true false"),
        (
            '"${5} ${-12} ${1.5} ${2.0} ${1e3} ${1e-7} ${1e22} ${100}"',
            "5 -12 1.5 2 1000 0.0000001 10000000000000000000000 100",
        ),
        ("<<-E\n  ${env.A}\n    b\n  E", "a\n  b\n"),
        # default
        ('default(env.A, "z")', "a"),
        ('default(env.NONE, "z")', "z"),
        ('default(env.EMPTY, "z")', "z"),
        ('coalesce(env.EMPTY, null, "z")', "z"),
        ('default(env.EMPTY, "")', ""),
        ("default(env.NONE, env.EMPTY)", ""),
        ('default(null, env.NONE, false, "z")', False),
        ('default("${env.NONE}:1", "z")', "z"),
        ('default(trim(env.NONE), "z")', "z"),
        ("default([env.NONE], [env.A])", ["a"]),
        ("default(env.NONE, null)", None),
        ("default(null)", None),
        ('default(default(env.NONE, env.ALSO), "z")', "z"),
        ("default(env.A, nonsense(), env.NONE)", "a"),
        ("default(0, 1)", 0),
        # operators, as HashiCorp's HCL has them
        ("1 + 2 * 3 - 4 / 2", 5),
        ("(1 + 2) * 3", 9),
        ("0.1 + 0.2", 0.3),
        ("7 % 3", 1),
        ("-7 % 3", -1),
        ("1 / 4", 0.25),
        ("1e3", 1000.0),
        ("123456789012345678901234567890 + 1", 123456789012345678901234567891),
        ('"2" + 1', 3),
        ("--1", 1),
        ("!!true", True),
        ('!"false"', True),
        ("1 < 2 == true && !false || false", True),
        ('"a" == "a"', True),
        ('1 == "1"', False),
        ("1 == 1.0", True),
        ("[1, [2]] == [1, [2]]", True),
        ("{ a = 1 } != { a = 2 }", True),
        ("null == null", True),
        ("true == 1", False),
        ("false && env.NONE", False),
        ("true || nope()", True),
        # conditionals
        ('true ? "a" : "b"', "a"),
        ('false ? "a" : false ? "b" : "c"', "c"),
        ('true ? 1 : "b"', "1"),
        ("true ? 1 : null", 1),
        ('env.A == "a" ? env.B : env.NONE', "b"),
        # what is in lists and objects
        ("[1, 2][1]", 2),
        ('["a"]["0"]', "a"),
        ("{ a = { b = 1 } }.a.b", 1),
        ('{ a = 1 }["a"]', 1),
        ("[[1, 2], [3]].1[0]", 3),
        ("[{ a = 1 }, { a = 2 }][*].a", [1, 2]),
        ("[{ a = [1] }, { a = [2] }][*].a[0]", [1, 2]),
        ("[{ a = 1 }, { a = 2 }].*.a[0]", 1),
        ("5[*]", [5]),
        ("null[*]", []),
        ('env["${"A"}"]', "a"),
        ("env[env.NAME]", "a"),
        ('{ (env.A) = 1, "${env.B}" = 2, 3 = 4, c : 5 }', {"a": 1, "b": 2, "3": 4, "c": 5}),
        # for
        ("[for v in [1, 2] : v * 2]", [2, 4]),
        ('[for i, v in ["a", "b"] : "${i}${v}"]', ["0a", "1b"]),
        ("[for v in [1, 2, 3] : v if v != 2]", [1, 3]),
        ("[for k, v in { b = 1, a = 2 } : k]", ["a", "b"]),
        ('{for v in ["a", "b"] : v => upper(v)}', {"a": "A", "b": "B"}),
        ('{for i, v in ["a", "b", "a"] : v => i...}', {"a": [0, 2], "b": [1]}),
        ("[for a in [1, 2] : [for b in [10] : a + b]]", [[11], [12]]),
        ("[for env in [{ A = 1 }] : env.A]", [1]),
        # templates
        ('"${~ "a" ~} b"', "ab"),
        ('"a ${~ 1 ~} b"', "a1b"),
        ('"%{ if env.A == "a" }yes%{ else }no%{ endif }"', "yes"),
        ('"%{ if false }yes%{ endif }"', ""),
        ('"%{ for i, v in ["a", "b"] }${i}${v},%{ endfor }"', "0a,1b,"),
        ("<<E\n%{ for v in [1, 2] ~}\nn${v}\n%{ endfor ~}\nE", "n1\nn2\n"),
        ('"${ 1 +\n 2 }"', 3),
        ('"x${ [\n1,\n2][\n0\n] }"', "x1"),
        ("concat([[1], [2]]...)", [1, 2]),
        ("can(env.NONE)", False),
        ("can(env.A)", True),
        # text
        ('base64_decode("w6kK")', "é\n"),
        ('base64_decode(" w6\\n kK\\t")', "é\n"),
        ('base64_decode("")', ""),
        ('trim(" \\t\\n a b \\r\\n")', "a b"),
        ('join(", ", ["a", env.B, 1, true, 2.50])', "a, b, 1, true, 2.5"),
        ('join("-", [])', ""),
        ('split(",", "a,b,,c")', ["a", "b", "", "c"]),
        ('split(",", "")', [""]),
        ('split("", "ab")', ["a", "b"]),
        ('join("+", split(",", trim(" a,b ")))', "a+b"),
    ],
)
def test_an_expression_has_its_hcl_value(text: str, expected: object) -> None:
    """A good expression stands for what HCL says it does."""
    plain = find(text).plain()
    assert plain == expected
    assert type(plain) is type(expected)


def test_a_value_knows_where_it_was_written() -> None:
    """A value knows where it was written, also inside a list; a fallback is where it is."""
    value = find('[env.A, { b = "c" }, default(env.NONE, 2)]')
    assert value == Value(
        (
            Value("a", Position(1, 6)),
            Value({"b": Value("c", Position(1, 19))}, Position(1, 13)),
            Value(2, Position(1, 44)),
        ),
        Position(1, 5),
    )


def test_a_file_is_read_by_its_path_as_written() -> None:
    """A file is read by its path as written."""
    paths = []

    def read_file(path: str) -> bytes:
        paths.append(path)
        return b"text\n"

    assert find('file("keys/${env.A}.pem")', read_file).plain() == "text\n"
    assert paths == ["keys/a.pem"]


def test_file_errors() -> None:
    """A file that cannot be read is an error in plain words at the path, without the path."""

    def read_file(path: str) -> bytes:
        raise CredentialError("is a directory, not a file")

    ((line, column, found),) = faults("file(env.SECRET)", read_file)
    assert (line, column) == (1, 10)
    assert found == "the file is a directory, not a file; its path is relative to this one"


def test_file_that_is_no_text() -> None:
    """A file that is not UTF-8 is an error that does not quote it."""
    ((line, column, found),) = faults("file(env.SECRET)", lambda path: b"hunter2\xff")
    assert (line, column) == (1, 10)
    assert found.startswith("the file is not UTF-8 text")
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("env.NONE", [(1, 5, unset("NONE"))]),
        ('env["NO\\n\\"NE"]', [(1, 5, unset(r"NO\n\"NE"))]),
        ('"${env.X}-${env.Y}"', [(1, 8, unset("X")), (1, 17, unset("Y"))]),
        ("[env.X,\n [env.Y]]", [(1, 6, unset("X")), (2, 3, unset("Y"))]),
        ("{ a = env.X, b = nope() }", [(1, 11, unset("X")), (1, 22, "there is no function nope")]),
        ("join(env.X, [env.Y])", [(1, 10, unset("X")), (1, 18, unset("Y"))]),
        # default
        ("default(env.X)", [(1, 13, unset("X"))]),
        ("default(env.X, env.Y)", [(1, 20, unset("Y"))]),
        ("default(null, env.Y)", [(1, 19, unset("Y"))]),
        ("default()", [(1, 5, "write default(env.NAME, fallback); no arguments given here")]),
        ('default(nope(), "z")', [(1, 13, "there is no function nope")]),
        ('default(env.X, trim([]), "z")', [(1, 25, "write trim(text); the text here is a list")]),
        (
            'default([env.X, nope()], "z")',
            [(1, 14, unset("X")), (1, 21, "there is no function nope")],
        ),
        # functions
        (
            "base64decode(env.X)",
            [(1, 5, 'there is no function base64decode; did you mean "base'), (1, 18, unset("X"))],
        ),
        (
            "zzz()",
            [(1, 5, "there is no function zzz; there are base64_decode, base64_encode, can")],
        ),
        ("trim()", [(1, 5, "write trim(text); no arguments given here")]),
        ('join(",")', [(1, 5, "write join(separator, list, …); 1 argument given here")]),
        (
            'join(",", "a", "b")',
            [
                (1, 15, "write join(separator, list, …); the list here is text, not a list"),
                (1, 20, "write join(separator, list, …); the list here is text, not a list"),
            ],
        ),
        (
            'join(null, "a")',
            [
                (1, 10, "write join(separator, list, …); the separator here is null, not text"),
                (1, 16, "write join(separator, list, …); the list here is text, not a list"),
            ],
        ),
        ("trim(null)", [(1, 10, "write trim(text); the text here is null, not text")]),
        ("trim([true])", [(1, 10, "write trim(text); the text here is a list, not text")]),
        ('split(",", [])', [(1, 16, "write split(separator, text); the text here is a list, not")]),
        ("file({})", [(1, 10, "write file(path); the path here is an object, not text")]),
        (
            'join(",", [1, null, [2]])',
            [
                (1, 19, "null cannot be part of what is joined; use text"),
                (1, 25, "a list cannot be part of what is joined; use text"),
            ],
        ),
        # templates
        (
            '"a${null}${[1]}${{}}"',
            [
                (1, 9, "null cannot be part of a template; use text"),
                (1, 16, "a list cannot be part of a template; use text"),
                (1, 22, "an object cannot be part of a template; use text"),
            ],
        ),
        # base64
        ('base64_decode("YQ")', [(1, 19, "this is not base64")]),
        ('base64_decode("YQ=")', [(1, 19, "this is not base64")]),
        ('base64_decode("YQ===")', [(1, 19, "this is not base64")]),
        ('base64_decode("YQ==YQ==")', [(1, 19, "this is not base64")]),
        ('base64_decode("-_-_")', [(1, 19, "this is not base64")]),
        ('base64_decode("Y*Q==")', [(1, 19, "this is not base64")]),
        ('base64_decode("é")', [(1, 19, "this is not base64")]),
        ('base64_decode("/w==")', [(1, 19, "what this base64 encodes is not UTF-8 text")]),
    ],
)
def test_every_error_in_an_expression_is_reported_at_once(
    text: str, expected: list[tuple[int, int, str]]
) -> None:
    """Everything that is wrong in an expression is said at once, each in its place."""
    found = faults(text)
    assert [fault[:2] for fault in found] == [fault[:2] for fault in expected]
    for (*_, problem), (*_, start) in zip(found, expected, strict=True):
        assert problem.startswith(start)
        assert problem.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "join(env.SECRET, env.SECRET)",
        "base64_decode(env.SECRET)",
        'base64_decode("/w==${env.SECRET}")',
        '"${[env.SECRET]}!"',
        'nope(env.SECRET, "hunter2")',
        "trim([env.SECRET])",
    ],
)
def test_no_values_in_messages(text: str) -> None:
    """An error never repeats a value, which may be a secret."""
    assert "hunter2" not in str(faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "[for a in {0} : [for b in {0} : [for c in {0} : a]]]".replace("{0}", str([1] * 100)),
        "length([for a in {0} : join(a, {0})])".format(["x" * 100] * 1000).replace("'", '"'),
        '"${join("", split("", file("big")))}"',
    ],
)
def test_what_takes_too_long_is_refused(text: str) -> None:
    """Small files cannot take for ever, or all memory: the steps are counted."""
    steps = Budget(20_000)
    scope = Scope(ENVIRON, lambda name: b"x" * 65 * 1024 * 1024, budget=steps)
    with pytest.raises(ExpressionErrors) as caught:
        evaluate(expression(text), scope)
    assert re.search("steps to evaluate|is too long", str(caught.value))


def test_deep_expressions_are_bounded() -> None:
    """What is as deep as can be read is also evaluated."""
    for text in (
        "(" * 32 + "1" + ")" * 32,
        "true ? " * 32 + "1" + " : 2" * 32,
        "[" * 16 + "true ? " * 32 + "1 + 2 * 3" + " : 2" * 32 + "]" * 16,
        '"${' * 32 + "1" + '}"' * 32,
        "1" + " + 1" * 20_000,
        "-" * 20_000 + "1",
    ):
        find(text)


@pytest.mark.parametrize("wrap", ["{}", "[{}]", '"a${{{}}}"', "trim({})", 'default({}, "z")'])
def test_what_the_parser_refused_is_reported_once(wrap: str) -> None:
    """What was refused by the parser is reported by who asks for its value, once."""
    text = wrap.format("word")
    assert faults(text) == [
        (1, 5 + text.index("word"), 'a bare name is not a value; put text in quotes: "word"')
    ]
