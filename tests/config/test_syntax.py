from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.config.expressions import Scope, evaluate
from mtlsgate.config.source import MAXIMUM_SIZE
from mtlsgate.config.syntax import parse
from mtlsgate.config.tokens import MAXIMUM_DEPTH
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
from mtlsgate.config.values import ExpressionErrors
from mtlsgate.errors import CredentialError, Position, Report

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


def no_file(path: str) -> bytes:
    raise CredentialError("no such file")


def read(text: str | bytes) -> tuple[Body | None, list[tuple[int, int, str, str]]]:
    """:returns: the tree, and what is wrong with the text, its names and its values."""
    report = Report("gate.hcl")
    body = parse(text if isinstance(text, bytes) else text.encode(), report)
    assert not report.warnings
    if body is not None:
        check(body, report, "configuration", Scope({"A": "a", "B": "b"}, no_file))
    return body, [(p.at.line, p.at.column, p.where, p.text) for p in report.errors]


def check(body: Body, report: Report, where: str, scope: Scope) -> None:
    """Report what readers of the tree would find wrong with it."""
    for place, text in body.faults:
        report.error(place, where, text)
    for attribute in body.attributes:
        try:
            evaluate(attribute.expression, scope)
        except ExpressionErrors as errors:
            for place, text in errors.errors:
                report.error(place, where, text)
    for block in body.blocks:
        check(block.body, report, block.heading, scope)


def tree(text: str) -> Body:
    """:returns: the tree of a text whose values need not stand for anything."""
    report = Report("gate.hcl")
    body = parse(text.encode(), report)
    assert not report.errors
    assert body is not None
    return body


def good(text: str | bytes) -> Body:
    body, errors = read(text)
    assert body is not None
    assert errors == []
    return body


def value(expression: str) -> Expression:
    (attribute,) = tree(f"x = {expression}\n").attributes
    return attribute.expression


def at(line: int, column: int) -> Position:
    return Position(line, column)


# What is read


def test_attributes_and_blocks_keep_order_and_place() -> None:
    """Attributes and blocks come in order, with labels, bodies and places."""
    assert tree('a = 1\nb "x" y {\n  c = true\n}\nb {\n}\n') == Body(
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
def test_an_empty_file_is_an_empty_body(text: str) -> None:
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
        ("(((1)))", 1),
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
        ('"a$${b"', "a${b"),
        ('"$${a %%{b}"', "${a %{b}"),
        (r'"%%{a\n}"', "%{a\n}"),
        ('"a $"', "a $"),
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
def test_a_literal_has_its_type_and_escapes(text: str, expected: object) -> None:
    """A value without interpolation is a literal, with its type and its escapes resolved."""
    (attribute,) = good(f"x = {text}\n").attributes
    assert isinstance(attribute.expression, Literal)
    assert attribute.expression.value == expected
    assert type(attribute.expression.value) is type(expected)


def test_each_expression_keeps_its_parts_and_places() -> None:
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


def test_a_template_has_texts_and_interpolations_in_order() -> None:
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
    body = good('a = [<<E\n"\nE\n, 1]\nb = trim(<<E\n}\nE\n)\nc = 1\n')
    assert [attribute.at for attribute in body.attributes] == [at(1, 1), at(5, 1), at(9, 1)]


def test_line_ends_and_mark() -> None:
    """CRLF and a byte order mark do not shift a place."""
    text = EXAMPLE.replace("\n", "\r\n")
    assert tree("\ufeff" + text) == tree(EXAMPLE)


def test_unicode_columns() -> None:
    """Columns count characters, not bytes."""
    assert read('x = ["é🔒", !"é"]')[1][0][:2] == (1, 13)


def test_a_heading_is_one_short_line() -> None:
    """The heading of a block is one short line, whatever its labels are."""
    (block,) = good('client_certificate "IOT" {\n}').blocks
    assert block.heading == 'client_certificate "IOT"'
    (block,) = good(r'a "b\n\"\u2028" ' + f'"{"c" * 100}"' + " {\n}").blocks
    assert block.heading == r'a "b\n\"\u2028" "' + "c" * 39 + '…"'


# What is refused

ESCAPE = "this is not an escape; these are"


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("!1", 1, 6, 'what "!" takes is true or false, not a number'),
        ("!" * 10_000 + "1", 1, 10_005, 'what "!" takes is true or false'),
        ("-true", 1, 6, '"-" takes numbers, not a boolean'),
        ("-env.A", 1, 6, '"-" takes numbers, not text'),
        ("1 +" + "true+" * 5000 + "1", 1, 8, '"+" takes numbers, not a boolean'),
        ("1 == 1 && 2", 1, 15, 'what "&&" takes is true or false, not a number'),
        ("a::b::c()", 1, 5, "a function has no namespace"),
        ("ns::f()", 1, 5, "a function has no namespace"),
        ("env", 1, 5, "env stands for all variables; name one"),
        ("peer", 1, 5, "peer stands for the client; name an attribute"),
        ("[1, word]", 1, 9, 'a bare name is not a value; put text in quotes: "word"'),
        ("[a b]"[:2] + "]", 1, 6, 'a bare name is not a value; put text in quotes: "a"'),
        ("inter.crt", 1, 5, 'a bare name is not a value; put text in quotes: "inter.crt"'),
        ("HOME", 1, 5, "there is no HOME; an environment variable is written env.HOME"),
        ('"${HOME}/x"', 1, 8, "there is no HOME; an environment variable is written env.HOME"),
        ("request.path", 1, 5, "there is no request here; what a value may depend on is env.NAME"),
        ("var.A", 1, 5, "there is no var here; what a value may depend on is env.NAME"),
        ("pki/ca.crt", 1, 5, 'this is not a value; put text in quotes: "pki/ca.crt"'),
        ("./ca.crt # comment", 1, 5, 'this is not a value; put text in quotes: "./ca.crt"'),
        ("~/ca.crt", 1, 5, 'this is not a value; put text in quotes: "~/ca.crt"'),
        ("127.0.0.1:8443", 1, 5, 'this is not a value; put text in quotes: "127.0.0.1:8443"'),
        ("10s", 1, 5, 'this is not a value; put text in quotes: "10s"'),
        ("ca.crt;", 1, 5, 'this is not a value; put text in quotes: "ca.crt" (and there is no'),
        ("env.A.B", 1, 10, "text has nothing in it to look up"),
        ("env." + "A." * 5000 + "B", 1, 10, "text has nothing in it to look up"),
        ("(env).A", 1, 6, "env stands for all variables; name one"),
        ("env[0]", 1, 5, "environment variable 0 is not set"),
        ("env.0", 1, 5, "environment variable 0 is not set"),
        ("env[[]]", 1, 8, "the name of an environment variable is text"),
        ('env["A"]["B"]', 1, 13, "text has nothing in it to look up"),
        ("[1][1]", 1, 8, "there is no [1] in a list of 1"),
        ("[1][-1]", 1, 8, "an index is a whole number, 0 or more"),
        ("[1][0.5]", 1, 8, "an index is a whole number, 0 or more"),
        ("{a = 1}.b", 1, 12, "there is no b in this object"),
        ("1.2.3", 1, 5, "this is not a value; put text in quotes"),
        ("[1.2.3]", 1, 6, "this is not a number"),
        ("9" * 5000, 1, 5, "this number is too large"),
        ("1e999", 1, 5, "this number is too large"),
        ("9e300 * 9e300", 1, 5, "this number is too large"),
        ("1 / 0", 1, 9, "a number cannot be divided by zero"),
        ("[for a in 1 : a]", 1, 15, "for takes a list or an object, not a number"),
        ("[for a in [1] : b]", 1, 21, "a bare name is not a value"),
        ("[for a in [2] : a if a]", 1, 16, "the condition of a for is true or false, not a number"),
        ("{for a in [1, 1] : a => a}", 1, 5, "two items have the key 1; group them with ..."),
        ("{ a.b = 1 }", 1, 7, "a bare name is not a value"),
        ("{ ([]) = 1 }", 1, 8, "a key is text, not a list"),
        ('{\n a = 1\n "a" = 2 }', 3, 2, "a is given twice in one object; remove one (the first"),
        (r'"ab\q"', 1, 8, ESCAPE),
        (r'"\u12"', 1, 6, ESCAPE),
        (r'"\U0001"', 1, 6, ESCAPE),
        (r'"\ud800"', 1, 6, ESCAPE),
        (r'"\U0000DFFF"', 1, 6, ESCAPE),
        (r'"\U00110000"', 1, 6, ESCAPE),
        (r'"${env.A}b\q"', 1, 15, ESCAPE),
        (r'"\${env.A}"', 1, 6, ESCAPE),
        ('"a %{ if 1 }b%{ endif }"', 1, 14, "a condition is true or false, not a number"),
        ("<<E\n\n a %{ for\n x in y }%{ endfor }\nE", 4, 7, "a bare name is not a value"),
        ('<<-E\n  a\n  ${1 + "b"}\nE', 3, 9, '"+" takes numbers, not text'),
    ],
)
def test_no_value(text: str, line: int, column: int, problem: str) -> None:
    """What is HCL and stands for nothing is refused in its place; the rest is still read."""
    for before, shift, where in (
        ("x =", 0, "configuration"),
        ('a {\nb "c\\n" {\nx =', 2, r'b "c\n"'),
    ):
        body, errors = read(f"{before} {text}\n" + "}\n" * shift + "y = 1\n")
        assert body is not None, errors
        assert body.attributes[-1] == Attribute(
            "y", body.attributes[-1].at, Literal(1, body.attributes[-1].expression.at)
        )
        assert [error[:3] for error in errors][:1] == [(line + shift, column, where)]
        assert errors[0][3].startswith(problem)


def test_what_stands_for_nothing_is_still_there() -> None:
    """An attribute that was refused is in the tree, so that nobody calls it missing."""
    body = tree("x = word\ny = [a, b]\n")
    text = 'a bare name is not a value; put text in quotes: "{}"'
    assert body.attributes == (
        Attribute("x", at(1, 1), Invalid(at(1, 5), text.format("word"))),
        Attribute(
            "y",
            at(2, 1),
            ListExpression(
                (Invalid(at(2, 6), text.format("a")), Invalid(at(2, 9), text.format("b"))),
                at(2, 5),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("a = 1\na = 1\n", 2, 1, "a is given twice; remove one (the first is in line"),
        ("a = 1\na {\n}\n", 2, 1, "a is an attribute and a block; remove one (the first is in"),
        ("a {\n}\na = 1\n", 3, 1, "a is an attribute and a block; remove one (the first is in"),
        ('a "${env.A}" {\n}\n', 1, 3, "a label is a name or a quoted string without ${ }"),
        ('a "\\q" {\n}\n', 1, 4, ESCAPE),
    ],
)
def test_doubled_names_and_bad_labels_are_refused(
    text: str, line: int, column: int, problem: str
) -> None:
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
        ("a = <<E\n${f(\nE\n)}\n", 1, 5, "this heredoc is not closed; close it with its name"),
        (
            "a = <<E\nb\nE",
            1,
            5,
            "this heredoc is not closed; close it with its name on a line of"
            " its own, and a line end after that",
        ),
        ("a = <<E\n${b\nE\n", 2, 1, 'this "${" is not closed; a "}" is missing'),
        ("a = 1 /* b", 1, 7, 'this comment is not closed; close it with "*/"'),
        # brackets
        ("}\n", 1, 1, 'unexpected "}"; nothing is open that it could close'),
        ("a {\n  b = [1\n}\n", 3, 1, 'unexpected "}"; the "[" at 2:7 is not closed'),
        ("a {\n  b {\n  }\n", 1, 3, 'this "{" is not closed; a "}" is missing'),
        ("a = (1\n", 1, 5, 'this "(" is not closed; a ")" is missing'),
        # the grammar
        ("a", 1, 2, f"unexpected end of file{NAME}"),
        ("a\n", 1, 2, f"unexpected end of line{NAME}"),
        ("a b # c\n\nd = 1\n", 1, 8, f"unexpected end of line{NAME}"),
        ("a\n{\n}\n", 1, 2, 'unexpected end of line; the "{" of a block stands on the line of its'),
        (
            "a = 1 b = 2\n",
            1,
            7,
            "unexpected name; each attribute and block begins on a line of its",
        ),
        ("a {} b {}\n", 1, 6, "unexpected name; each attribute and block begins on a line of its"),
        ("a { b = 1 c = 2 }\n", 1, 11, "unexpected name; a block on one line holds one attribute"),
        ("a { b = 1, c = 2 }\n", 1, 10, 'unexpected ","; a block on one line holds one attribute'),
        ("a { b {} }\n", 1, 7, 'unexpected "{"; a block on one line holds one attribute'),
        ("a { b = 1\n}\n", 1, 10, "unexpected end of line; close this block on the line on which"),
        ("a = 1,\nb = 2\n", 1, 6, 'unexpected ","; attributes end with their line, without'),
        ("a = 1;\n", 1, 6, 'unexpected ";"; there is no ";" in HCL'),
        ("a = -----BEGIN X-----\n", 1, 5, "PEM is text: put it into a heredoc"),
        ("a = [for b in c]", 1, 16, 'unexpected "]"; a ":" follows what is iterated over'),
        ("a = [for b in c : d => e]", 1, 21, 'unexpected "=>"; a for in { } makes an object'),
        ("a = {for b in c : d}", 1, 20, "a for in { } needs a key and a value: key => value"),
        (
            "a = b ? c",
            1,
            10,
            "unexpected end of file; a conditional is written condition ? yes : no",
        ),
        ('a = "${b:-c}"', 1, 9, 'unexpected ":"; a "}" is missing, or a literal ${ is meant'),
        ('a = "%{ foo }"', 1, 9, "there is no such directive; there are if, else, endif, for"),
        ('a = "%{ if b }c"', 1, 6, "this directive is not closed; close it with %{ endif }"),
        ('a = "%{ endif }"', 1, 6, 'unexpected "endif"; no directive is open'),
        ('a = "%{ if b }%{ endfor }"', 1, 15, 'unexpected "endfor"; a %{ endif } is missing'),
        ('{"a": 1}', 1, 1, "this is JSON; the configuration is HCL"),
        ("# x\n[server]\na = 1\n", 2, 1, "this is TOML or INI; the configuration is HCL"),
        ("server:\n  hosts: 1\n", 1, 1, "this is YAML; the configuration is HCL"),
        ("---\na: 1\n", 1, 1, "this is YAML; the configuration is HCL"),
        ("-----BEGIN CERTIFICATE-----\n", 1, 1, "this is PEM, a certificate or a key; the"),
        ("a\t\nd = 1\n", 1, 3, f"unexpected end of line{NAME}"),
        ("a: 1", 1, 2, f'unexpected ":"{NAME}'),
        ("a =\nb = 1", 1, 4, "unexpected end of line; a value is missing"),
        ("a = 1 +", 1, 8, "unexpected end of file; a value is missing"),
        ("a = [1 2]", 1, 8, 'unexpected number; a "," may be missing'),
        ('a = f(b "c")', 1, 9, 'unexpected string; a "," may be missing'),
        ("a = 'b'", 1, 5, 'unexpected "\'"; strings are written in "double quotes"'),
        ("a = “b”", 1, 5, 'unexpected character U+201C; strings are written in "double'),
        ('a = "${~~ env.B}"', 1, 9, 'unexpected "~"; put text in "quotes"'),
        ("a = [ns::]", 1, 10, 'unexpected "]"'),
        ('"a" = 1', 1, 1, "unexpected string"),
        ("a = b <<E\nE\n", 1, 7, "unexpected heredoc"),
        ("a <<E\nb\nE\n {\n}\n", 1, 3, "unexpected heredoc"),
        ("a = env.", 1, 9, "unexpected end of file"),
        ("a = 1\n\n\n = 2", 4, 2, 'unexpected "="'),
        # characters
        ("a =\xa01", 1, 4, "unexpected character U+00A0"),
        ("a = 1\u2028b = 2", 1, 6, "unexpected character U+2028"),
        ("a = 1\fb = 2", 1, 6, "unexpected character U+000C"),
        ("a = 1\x1b", 1, 6, "unexpected character U+001B"),
        ("² = 1", 1, 1, "unexpected character U+00B2"),
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
        ("a = " + "true ? 1 : " * 3000 + "1", 1, 362, "nested too deep"),
        ('a = "' + "%{ if true }" * 3000 + '"', 1, 390, "nested too deep"),
    ],
)
def test_an_unreadable_file_is_one_located_error(
    text: str | bytes, line: int, column: int, problem: str
) -> None:
    """What cannot be read as a whole is one error, in its place."""
    body, errors = read(text)
    assert body is None
    ((*place, where, found),) = errors
    assert (*place, where) == (line, column, "syntax")
    assert found.startswith(problem)
    assert found.isprintable()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("(", ")"), ("{b=", "}")])
def test_the_deepest_nesting_allowed_is_read(opening: str, closing: str) -> None:
    """What nests as deep as is allowed is read, with strings on top."""
    good(f'a = {opening * MAXIMUM_DEPTH}"b"{closing * MAXIMUM_DEPTH}\n')
    good("a {\n" * MAXIMUM_DEPTH + 'b = "c"\n' + "}\n" * MAXIMUM_DEPTH)


def test_the_largest_file_allowed_is_read() -> None:
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
    """No small file takes long, even where the grammar's own patterns are quadratic:
    they would take hours."""
    read(text)


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
        f"key = {PEM_LINES[0]}",
        f"key = {PEM_LINES[0]}\n{PEM_LINES[1]}\n",
        f'key = "a" "{PEM_LINES[0]}"',
        f'key = !"{PEM_LINES[0]}"',
        f'key = {{ "{PEM_LINES[0]}${{1}}" = 1, "{PEM_LINES[0]}1" = 1 }}',
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


@settings(max_examples=200)
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


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_pieces(text: str) -> None:
    """Any sequence of what HCL is made of is a body, or located errors inside the file."""
    sound(text.encode())


@pytest.mark.slow
@settings(max_examples=200)
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
