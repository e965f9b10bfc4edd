from __future__ import annotations

import os
import subprocess
import sys
import time
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.config.masking import MAXIMUM_DEPTH, MAXIMUM_SIZE
from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import (
    Attribute,
    Block,
    Body,
    Call,
    Expression,
    Invalid,
    ListExpression,
    Literal,
    ObjectExpression,
    Template,
    Variable,
)
from mtlsgate.errors import Position, Report

EXAMPLE = """\
# A gate.
settings {
  handshake_timeout = "10s" // short
}

server "devices" {
  hosts = ["*:8443", default(env.HOST, "[::1]:8443")]
  tls {
    server_certificate {
      public_key = <<-EOT
        -----BEGIN ${env["WHAT"]}-----
        $${literal}
      EOT
    }
    client_certificate "IOT" { /* a
      comment */
      limits = { "rate" = -1.5, burst : 1e3, }
    }
  }
}
"""


def read(text: str | bytes) -> tuple[Body | None, list[tuple[int, int, str, str]]]:
    report = Report("gate.hcl")
    body = parse(text if isinstance(text, bytes) else text.encode(), report)
    assert not report.warnings
    return body, [(p.at.line, p.at.column, p.where, p.text) for p in report.errors]


def good(text: str | bytes) -> Body:
    body, errors = read(text)
    assert body is not None
    assert errors == []
    return body


def value(expression: str) -> Expression:
    (attribute,) = good(f"x = {expression}\n").attributes
    return attribute.expression


def at(line: int, column: int) -> Position:
    return Position(line, column)


# What is read


def test_tree() -> None:
    """Attributes and blocks come in order, with labels, bodies and places."""
    assert good('a = 1\nb "x" y {\n  c = true\n}\nb {\n}\n') == Body(
        (Attribute("a", at(1, 1), Literal(1, at(1, 5))),),
        (
            Block(
                "b",
                ("x", "y"),
                at(2, 1),
                Body((Attribute("c", at(3, 3), Literal(True, at(3, 7))),), ()),
            ),
            Block("b", (), at(5, 1), Body((), ())),
        ),
    )


@pytest.mark.parametrize("text", ["", "\n", "# note", "/* note */", " \t\r\n", "\ufeff", "//"])
def test_nothing(text: str) -> None:
    """A file with nothing in it is an empty body."""
    assert good(text) == Body((), ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("12", 12),
        ("-1", -1),
        ("-12", -12),
        ("- 1", -1),
        ("-(1)", -1),
        ("1.5", 1.5),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("-1e-3", -0.001),
        ("true", True),
        ("false", False),
        ("null", None),
        ('""', ""),
        ('"a b"', "a b"),
        ('"  a  "', "  a  "),
        ('"#//<<EOT /* { [ ("', "#//<<EOT /* { [ ("),
        ('"100% $5 $ %"', "100% $5 $ %"),
        (r'"\n\r\t\"\\\u00e9\U0001F512"', '\n\r\t"\\é🔒'),
        ('"$${x}"', "${x}"),
        ('"%%{x}"', "%{x}"),
        ('"a$${x}b%%{y}c"', "a${x}b%{y}c"),
        ('"$$${x}"', "$${x}"),
        ("<<E\nE", ""),
        ("<<E\n\nE", "\n"),
        ('<<E\n  a\n b\\n"\n  E', '  a\n b\\n"\n'),
        ("<<E\n  a\nE  ", "  a\n"),
        ("<<E\nEE\nE E\nE", "EE\nE E\n"),
        ('<<E\n$${a "}\n%%{b\nE', '${a "}\n%{b\n'),
        ("<<E\r\na\r\n\r\nb\r\nE\r\n", "a\n\nb\n"),
        ("<<-E\n    a\n      b\n  E", "a\n  b\n"),
        ("<<-E\n    a\n\n  \n    b\nE", "a\n\n  \nb\n"),
        ("<<-E\n\t\ta\n\t  b\n\tE", "a\n b\n"),
        ("<<-E\n      E", ""),
        ("/* why */ 1 /* because */", 1),
    ],
)
def test_literals(text: str, expected: object) -> None:
    """A value without interpolation is a literal, with its type and its escapes resolved."""
    (attribute,) = good(f"x = {text}").attributes
    assert isinstance(attribute.expression, Literal)
    assert attribute.expression.value == expected
    assert type(attribute.expression.value) is type(expected)


def test_expressions() -> None:
    """Every kind of expression keeps its parts and where they are."""
    assert value("[env.A, (2),\n 3,]") == ListExpression(
        (Variable("A", at(1, 6)), Literal(2, at(1, 14)), Literal(3, at(2, 2))), at(1, 5)
    )
    assert value('{ a = 1, "b c" : env["x y"]\n in = null }') == ObjectExpression(
        (
            (Literal("a", at(1, 7)), Literal(1, at(1, 11))),
            (Literal("b c", at(1, 14)), Variable("x y", at(1, 22))),
            (Literal("in", at(2, 2)), Literal(None, at(2, 7))),
        ),
        at(1, 5),
    )
    assert value('f(g(), "a")') == Call(
        "f", (Call("g", (), at(1, 7)), Literal("a", at(1, 12))), at(1, 5)
    )


def test_templates() -> None:
    """A template has its texts and interpolations in order; a lone interpolation is itself."""
    assert value('"a${env.A} ${f("}")}"') == Template(
        (
            Literal("a", at(1, 5)),
            Variable("A", at(1, 9)),
            Literal(" ", at(1, 5)),
            Call("f", (Literal("}", at(1, 20)),), at(1, 18)),
        ),
        at(1, 5),
    )
    assert value('"${env.A}"') == Variable("A", at(1, 8))
    assert value('"${"${1}"}"') == Literal(1, at(1, 11))


def test_heredoc_template() -> None:
    """Interpolations in a heredoc are located; they stop the indentation; the line end stays."""
    assert value('<<-EOT\n    a ${ f("}", {b = 1}) }\n  ${env.B}\n      EOT') == Template(
        (
            Literal("  a ", at(1, 5)),
            Call(
                "f",
                (
                    Literal("}", at(2, 12)),
                    ObjectExpression(
                        ((Literal("b", at(2, 18)), Literal(1, at(2, 22))),), at(2, 17)
                    ),
                ),
                at(2, 10),
            ),
            Literal("\n", at(1, 5)),
            Variable("B", at(3, 5)),
            Literal("\n", at(1, 5)),
        ),
        at(1, 5),
    )
    assert value("<<E\n${env.A}\nE") == Template(
        (Variable("A", at(2, 3)), Literal("\n", at(1, 5))), at(1, 5)
    )


def test_after_heredoc() -> None:
    """What follows a heredoc is where it is in the file."""
    body = good('a = [<<E\n"\nE\n, 1]\nb = f(<<E\n}\nE\n)\nc = 1\n')
    assert [attribute.at for attribute in body.attributes] == [at(1, 1), at(5, 1), at(9, 1)]


def test_line_ends_and_mark() -> None:
    """CRLF and a byte order mark do not shift a place."""
    text = EXAMPLE.replace("\n", "\r\n")
    assert good(b"\xef\xbb\xbf" + text.encode()) == good(EXAMPLE)


def test_unicode_columns() -> None:
    """Columns count characters, not bytes."""
    assert read('x = ["é🔒", !true]')[1][0][:2] == (1, 12)


def test_heading() -> None:
    """The heading of a block is one short line, whatever its labels are."""
    (block,) = good('client_certificate "IOT" {\n}').blocks
    assert block.heading == 'client_certificate "IOT"'
    (block,) = good(r'a "b\n\"\u2028" ' + f'"{"c" * 100}"' + " {\n}").blocks
    assert block.heading == r'a "b\n\"\u2028" "' + "c" * 39 + '…"'


# What is refused

SUPPORTED = (
    "supported are text, numbers, true, false, null, lists, objects, env.NAME and function calls"
)
DIRECTIVE = "template directives are not supported; a literal %{ is written %%{"
ESCAPE = "this is not an escape; these are"
ONLY_ENV = (
    'is only supported as env.NAME or env["NAME"], and as peer.NAME where an attribute takes it'
)


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("1 + 2", 1, 5, f"an operator is not supported; {SUPPORTED}"),
        ("1 +" + "1+" * 5000 + "1", 1, 5, "an operator is not supported"),
        ("1\n* 2", 1, 5, "an operator is not supported"),
        ("a == b && c", 1, 5, "an operator is not supported"),
        ("!true", 1, 5, '"!" is only supported before a number'),
        ("-true", 1, 5, '"-" is only supported before a number'),
        ("-env.A", 1, 5, '"-" is only supported before a number'),
        ("a ? b : c", 1, 5, "a conditional is not supported"),
        ("[for a in b : c]", 1, 5, "a for expression is not supported"),
        ("{for a in b : c => d}", 1, 5, "a for expression is not supported"),
        ("a.*.b", 1, 5, "a splat is not supported"),
        ("a[*].b", 1, 5, "a splat is not supported"),
        ("f(a...)", 1, 5, 'arguments cannot be spread with "..."'),
        ("a::b::c()", 1, 5, "a function has no namespace"),
        ("env", 1, 5, "a bare name is not a value"),
        ("[1, word]", 1, 9, f'a bare name is not a value; put text in "quotes"; {SUPPORTED}'),
        ("var.A", 1, 5, f"an attribute access {ONLY_ENV}"),
        ("env.A.B", 1, 5, f"an attribute access {ONLY_ENV}"),
        ("env." + "A." * 5000 + "B", 1, 5, f"an attribute access {ONLY_ENV}"),
        ("(env).A", 1, 5, f"an attribute access {ONLY_ENV}"),
        ("env[NAME]", 1, 5, f"an index {ONLY_ENV}"),
        ("env[env.A]", 1, 5, f"an index {ONLY_ENV}"),
        ('env["${env.A}"]', 1, 5, f"an index {ONLY_ENV}"),
        ("env[0]", 1, 5, f"an index {ONLY_ENV}"),
        ("env.0", 1, 5, f"an index {ONLY_ENV}"),
        ('env["A"]["B"]', 1, 5, f"an index {ONLY_ENV}"),
        ("[1][0]", 1, 5, f"an index {ONLY_ENV}"),
        ("9" * 5000, 1, 5, "this number is too large"),
        ("1e999", 1, 5, "this number is too large"),
        ("{ (a) = 1 }", 1, 7, "an object key is a name or a quoted string"),
        ('{ "${env.A}" = 1 }', 1, 7, "an object key is a name or a quoted string"),
        ("{ 1 = 1 }", 1, 7, "an object key is a name or a quoted string"),
        ("{ a.b = 1 }", 1, 7, "an object key is a name or a quoted string"),
        ('{\n a = 1\n "a" = 2 }', 3, 2, "a is given twice in one object; remove one (the first"),
        (r'"ab\q"', 1, 8, ESCAPE),
        (r'"\u12"', 1, 6, ESCAPE),
        (r'"\U0001"', 1, 6, ESCAPE),
        (r'"\ud800"', 1, 6, ESCAPE),
        (r'"\U0000DFFF"', 1, 6, ESCAPE),
        (r'"\U00110000"', 1, 6, ESCAPE),
        (r'"${env.A}b\q"', 1, 15, ESCAPE),
        (r'"\${env.A}"', 1, 6, ESCAPE),
        ('"a$${b"', 1, 7, "$${ takes plain text up to a }"),
        ('"$${a ${env.B} }"', 1, 6, "$${ takes plain text up to a }"),
        ('"$${a %{b}"', 1, 6, "$${ takes plain text up to a }"),
        (r'"%%{a\n}"', 1, 6, "%%{ takes plain text up to a }"),
        ('"a %{ if x }b%{ endif }"', 1, 8, DIRECTIVE),
        ('"%{ if "}" == "{" }"', 1, 6, DIRECTIVE),
        ("<<E\n\n a %{ for\n x in y }\nE", 3, 4, DIRECTIVE),
        ("<<-E\n  a\n  ${1 + 1}\nE", 3, 5, "an operator is not supported"),
    ],
)
def test_unsupported(text: str, line: int, column: int, problem: str) -> None:
    """What HCL has and the gate has not is refused in its place; the rest is still read."""
    for before, shift, where in (
        ("x =", 0, "configuration"),
        ('a {\nb "c\\n" {\nx =', 2, r'b "c\n"'),
    ):
        body, errors = read(f"{before} {text}\n" + "}\n" * shift + "y = 1\n")
        assert body is not None
        assert body.attributes[-1] == Attribute(
            "y", body.attributes[-1].at, Literal(1, body.attributes[-1].expression.at)
        )
        assert [error[:3] for error in errors][:1] == [(line + shift, column, where)]
        assert errors[0][3].startswith(problem)


def test_unsupported_is_invalid() -> None:
    """An attribute that was refused is still there, so that nobody calls it missing."""
    body, errors = read("x = !true\ny = [a, b]\n")
    assert body is not None
    assert body.attributes == (
        Attribute("x", at(1, 1), Invalid(at(1, 5))),
        Attribute("y", at(2, 1), ListExpression((Invalid(at(2, 6)), Invalid(at(2, 9))), at(2, 5))),
    )
    assert [error[:2] for error in errors] == [(1, 5), (2, 6), (2, 9)]


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("a = 1\na = 1\n", 2, 1, "a is given twice; remove one (the first is in line"),
        ("a = 1\na {\n}\n", 2, 1, "a is an attribute and a block; remove one (the first is in"),
        ("a {\n}\na = 1\n", 3, 1, "a is an attribute and a block; remove one (the first is in"),
        ('a "${env.A}" {\n}\n', 1, 3, "a label is a name or a quoted string without ${ }"),
        ("a <<E\nb\nE\n {\n}\n", 1, 3, "a label is a name or a quoted string without ${ }"),
        ('a "\\q" {\n}\n', 1, 4, ESCAPE),
    ],
)
def test_names(text: str, line: int, column: int, problem: str) -> None:
    """Two values for one name, and labels that are no names, are refused in any block."""
    for before, shift, after, where in (("", 0, "", "configuration"), ("z {\n", 1, "}", "z")):
        body, errors = read(before + text + after)
        assert body is not None
        assert [error[:3] for error in errors] == [(line + shift, column, where)]
        assert errors[0][3].startswith(problem)


def test_repeated_blocks() -> None:
    """Whether a block may repeat is for the model to say."""
    assert len(good('a "x" {\n}\na "x" {\n}\n').blocks) == 2


STRING = "this string is not closed on its line; add the quote that is missing"
NAME = '; after a name comes "=" and a value, or "{" and a block'


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        # strings, heredocs, comments
        ('a = "b\nc = "d"\n', 1, 5, STRING),
        ('a = "b', 1, 5, STRING),
        ('a = "b\\\n"', 1, 5, STRING),
        ('a = "${env.B"\n', 1, 13, STRING),
        ('a = [1, "b\r\n"]', 1, 9, STRING),
        ("a = <<E\nb\n", 1, 5, "this heredoc is not closed; close it with its name on a line of"),
        ("a = <<E \nb\nE\n", 1, 5, "a heredoc starts with << and a name, such as <<EOT, at"),
        ("a = <<E\n${f(\nE\n)}\n", 1, 5, "an interpolation in this heredoc is not closed"),
        ("a = <<E\n${b\nE\n", 2, 1, 'this "${" is not closed; a "}" is missing'),
        ("a = 1 /* b", 1, 7, 'this comment is not closed; close it with "*/"'),
        # brackets
        ("}\n", 1, 1, 'unexpected "}"; nothing is open that it could close'),
        ("a {\n  b = [1\n}\n", 3, 1, 'unexpected "}"; the "[" at 2:7 is not closed'),
        ("a {\n  b {\n  }\n", 1, 3, 'this "{" is not closed; a "}" is missing'),
        ("a = (1\n", 1, 5, 'this "(" is not closed; a ")" is missing'),
        # the grammar
        ("a", 1, 2, f"unexpected end of file{NAME}"),
        ("a\n", 1, 2, f"unexpected end of file{NAME}"),
        ("a b # c\n\nd = 1\n", 1, 4, f"unexpected end of line{NAME}"),
        ("a\t\nd = 1\n", 1, 2, f"unexpected end of line{NAME}"),
        ("a: 1", 1, 2, f'unexpected ":"{NAME}'),
        ("a =\nb = 1", 1, 4, "unexpected end of line; a value is missing"),
        ("a = 1 +", 1, 8, "unexpected end of file; a value is missing"),
        ("a = [1 2]", 1, 8, 'unexpected number; a "," may be missing'),
        ('a = f(b "c")', 1, 9, 'unexpected string; a "," may be missing'),
        ("a = 'b'", 1, 5, 'unexpected "\'"; strings are written in "double quotes"'),
        ("a = “b”", 1, 5, 'unexpected character U+201C; strings are written in "double'),
        ('a = "${~ env.B ~}"', 1, 8, 'unexpected "~"; strip markers are not supported'),
        ("a = ns::f()", 1, 10, 'unexpected "("; functions have no namespace here'),
        ("a = --1", 1, 6, 'unexpected "-"'),
        ('"a" = 1', 1, 1, "unexpected string"),
        ("a = b <<E\nE\n", 1, 7, "unexpected heredoc"),
        ("a = env.", 1, 9, "unexpected end of file"),
        ("a = 1\n\n\n = 2", 4, 2, 'unexpected "="'),
        # characters
        ("a =\xa01", 1, 4, "unexpected character U+00A0"),
        ("a = 1\u2028b = 2", 1, 6, "unexpected character U+2028"),
        ("a = 1\fb = 2", 1, 6, "unexpected character U+000C"),
        ("a = 1\x1b", 1, 6, "unexpected character U+001B"),
        ("é = 1", 1, 1, "unexpected character U+00E9"),
        ("# a\rb = 1\n", 1, 4, "a carriage return without a line feed; save the file with LF"),
        ("a = 1\r\nb = 2\r\r\n", 2, 6, "a carriage return without a line feed"),
        ("a = 1\nb = \0", 2, 5, "a NUL byte is not text; save the file as UTF-8"),
        (b'a = 1\r\nb = "\xc3\xa9\xe9"', 2, 7, "byte 0xe9 is not UTF-8 text; save the file as"),
        (b"\xef\xbb\xbfa\xff", 1, 2, "byte 0xff is not UTF-8 text"),
        ("a = 1\n".encode("utf-16"), 1, 1, "byte 0xff is not UTF-8 text"),
        (b"#" * (MAXIMUM_SIZE + 1), 1, 1, "the file is over 1 MiB; move certificates and keys"),
        (b"\0\xff" * MAXIMUM_SIZE, 1, 1, "the file is over 1 MiB"),
        # depth
        ("a = " + "[" * 33 + "]" * 33, 1, 37, "nested too deep; at most 32 levels of brackets"),
        ("a = " + "(" * 3000 + "1" + ")" * 3000, 1, 37, "nested too deep"),
        ("a = " + "[" * 3000, 1, 37, "nested too deep"),
        ("a = " + "f(" * 3000, 1, 70, "nested too deep"),
        ("a = " + "{b=" * 3000, 1, 101, "nested too deep"),
        ("a {\n" * 3000 + "}\n" * 3000, 33, 3, "nested too deep"),
        ("a = " + '"${' * 3000, 1, 102, "nested too deep"),
        ("a = " + "<<E\n${" * 3000 + "}\nE\n" * 3000, 34, 1, "nested too deep"),
        ("a = " + "!" * 10_000 + "1", 1, 6, 'unexpected "!"'),
    ],
)
def test_unreadable(text: str | bytes, line: int, column: int, problem: str) -> None:
    """What cannot be read as a whole is one error, in its place."""
    body, errors = read(text)
    assert body is None
    ((*place, where, found),) = errors
    assert (*place, where) == (line, column, "syntax")
    assert found.startswith(problem)
    assert found.isprintable()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("(", ")"), ("{b=", "}")])
def test_deepest(opening: str, closing: str) -> None:
    """What nests as deep as is allowed is read, with strings on top."""
    good(f'a = {opening * MAXIMUM_DEPTH}"b"{closing * MAXIMUM_DEPTH}\n')
    good("a {\n" * MAXIMUM_DEPTH + 'b = "c"\n' + "}\n" * MAXIMUM_DEPTH)


def test_largest() -> None:
    """A file of the largest size is read."""
    good(b"#" * MAXIMUM_SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a = <<E\n" + "\n" * 200_000 + "E\n",
        "a = <<E\n" + "\n" * 200_000,
        'a = "' + "$${" * 100_000 + '"',
        "a = <<E\n" + "$${" * 100_000 + "\nE\n",
        "a = " + "/*" * 200_000,
        "a = " + "-" * 200_000,
    ],
)
def test_bounded_time(text: str) -> None:
    """No small file takes long, even where the grammar's own patterns are quadratic."""
    started = time.monotonic()
    read(text)
    assert time.monotonic() - started < 20


PEM_LINES = [b64encode(bytes(range(i, i + 48))).decode() for i in range(3)]
PEM = "\n".join(["-----BEGIN PRIVATE KEY-----", *PEM_LINES, "-----END PRIVATE KEY-----", ""])


@pytest.mark.parametrize(
    "text",
    [
        f"key = {PEM}",
        f'key = "{PEM}"',
        f"key = '{PEM}'",
        f"key = `{PEM}`",
        f"key {PEM}",
        f"key {{\n{PEM}}}\n",
        f"key <<E\n{PEM}E\n {{ a = !1 }}\n",
        f"key = <<EOT\n{PEM}",
        f"key = <<EOT \n{PEM}EOT\n",
        f"key = <<EOT\n{PEM}EOT x\n",
        f"key = EOT\n{PEM}EOT\n",
        f"key = [{PEM}]",
        f'key = "${{{PEM}}}"',
        f'key = "\\q{PEM_LINES[0]}"',
        f'key = "$${{{PEM_LINES[0]}"',
        f"key = {PEM_LINES[0]}",
        f"key = {PEM_LINES[0]}\n{PEM_LINES[1]}\n",
        f'key = "a" "{PEM_LINES[0]}"',
        f'key = !"{PEM_LINES[0]}"',
        f'key = {{ "{PEM_LINES[0]}${{1}}" = 1 }}',
        f"{PEM}",
    ],
)
def test_no_key_in_messages(text: str) -> None:
    """A private key that is pasted in the wrong way is not repeated."""
    errors = read(text)[1]
    assert errors
    for *_, where, problem in errors:
        assert "PRIVATE" not in where
        assert "PRIVATE" not in problem
        assert not any(line[i : i + 6] in problem for line in PEM_LINES for i in range(59))


def test_short_messages() -> None:
    """A message quotes little of the file, and no control characters."""
    long = "n" * 5000
    for text in (f"{long} = 1\n{long} = 1\n", f"a = {{ {long} = 1, {long} = 1 }}"):
        ((*_, problem),) = read(text)[1]
        assert "n" * 41 not in problem
    ((*_, where, problem),) = read(r'a "\u001b[2J\n" { b = !1 }')[1]
    assert where == r'a "\x1b[2J\n"'


def test_imports_late() -> None:
    """The HCL library is not imported before there is a file to read."""
    code = "import sys, mtlsgate.config.expressions; print({'hcl2', 'lark'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == "set()\n"


# Anything at all


def sound(data: bytes) -> None:
    body, errors = read(data)
    assert errors or body is not None
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for line, column, where, problem in errors:
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1
        assert where.isprintable()
        assert problem.isprintable()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a body, or located errors inside the file."""
    sound(data)


PIECES = [
    *'"\\${}[]()=:,.~!?-+*/<>#%|&\n\r\t\f\0 a1_é\u2028\xa0',
    *("${", "%{", "$${", "%%{", "<<E\n", "<<-E\n", "\nE\n", "/*", "*/", "//", "\r\n", "..."),
    *("for ", " in ", "if ", "null", "true", "env.A", 'env["A"]', "f(", "a {\n", "a = ", "-1"),
    *("\\u0041", '"a"', "[*]", ".*", "=>", "::", "1e3", "\ufeff"),
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_pieces(text: str) -> None:
    """Any sequence of what HCL is made of is a body, or located errors inside the file."""
    sound(text.encode())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(EXAMPLE)), st.integers(0, 20), st.sampled_from(["", "", *PIECES])
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_edits(edits: list[tuple[int, int, str]]) -> None:
    """Any edits of a good file leave a body, or located errors inside the file."""
    text = EXAMPLE
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    sound(text.encode())
