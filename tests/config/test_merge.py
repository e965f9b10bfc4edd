"""
Configurations of several files, and of several environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from mtlsgate.config.assembly import SourceFile, assemble
from mtlsgate.config.expressions import evaluate
from mtlsgate.config.scope import Scope
from mtlsgate.config.tree import Body
from mtlsgate.config.values import ExpressionErrors
from mtlsgate.errors import Report


def no_file(path: str) -> bytes:
    raise AssertionError(path)


def read(
    *files: str, environ: Mapping[str, str] = MappingProxyType({})
) -> tuple[Mapping[str, object], list[str]]:
    """:returns: what the files say, as plain Python, and what is wrong with them."""
    report = Report("gate.hcl")
    named = [
        SourceFile(f"{name}.hcl", text.encode()) for name, text in zip("abc", files, strict=False)
    ]
    assembled = assemble(named, Scope(environ, no_file), report)
    if assembled is None:
        return {}, [str(one) for one in report.errors]
    plain = _plain(assembled.body, assembled.scope, report, "configuration")
    return plain, [str(one) for one in report.errors]


def _plain(body: Body, scope: Scope, report: Report, where: str) -> dict[str, object]:
    for at, text in body.faults:
        report.error(at, where, text)
    found: dict[str, object] = {}
    for attribute in body.attributes:
        try:
            found[attribute.name] = evaluate(attribute.expression, scope).plain()
        except ExpressionErrors as errors:
            for at, text in errors.errors:
                report.error(at, where, text)
    for number, block in enumerate(body.blocks):
        found[f"{number} {block.heading}"] = _plain(block.body, scope, report, block.heading)
    return found


def merged(*files: str, environ: Mapping[str, str] = MappingProxyType({})) -> object:
    found, problems = read(*files, environ=environ)
    assert problems == []
    return found


def test_attributes_replace_and_blocks_of_one_label_are_merged() -> None:
    """Also recursively, in settings, server and tls."""
    assert merged(
        'settings {\n  watch = true\n  quiet = true\n}\nserver "x" {\n  hosts = ["1"]\n'
        '  tls {\n    min_version = "1.2"\n    send_ca_names = true\n  }\n}\n',
        'server "y" {\n}\nserver "x" {\n  idle_timeout = "1s"\n'
        '  tls {\n    min_version = "1.3"\n  }\n}\nsettings {\n  quiet = false\n}\n',
    ) == {
        "0 settings": {"watch": True, "quiet": False},
        '1 server "x"': {
            "hosts": ["1"],
            "idle_timeout": "1s",
            "0 tls": {"min_version": "1.3", "send_ca_names": True},
        },
        '2 server "y"': {},
    }


def test_servers_without_a_label_are_one() -> None:
    """If each file has one."""
    assert merged("server {\n  a = 1\n}\n", "server {\n  b = 2\n}\n") == {
        "0 server": {"a": 1, "b": 2}
    }


def test_several_servers_without_a_label_cannot_be_merged() -> None:
    """Nobody could say with which."""
    _, problems = read("server {\n}\nserver {\n}\n", "server {\n}\n")
    assert problems == [
        "b.hcl:1:1: server: give each server a label: without one, files cannot be merged"
    ]


def test_a_protocol_is_replaced() -> None:
    """As a whole, because there is one of it."""
    assert merged(
        'server "x" {\n  protocol "proxy" {\n    target = "a"\n    alpn = []\n  }\n}\n',
        'server "x" {\n  protocol "http" {\n    target = "b"\n  }\n}\n',
    ) == {'0 server "x"': {'0 protocol "http"': {"target": "b"}}}


def test_rules_are_replaced_by_label_in_their_place() -> None:
    """Those without a label are replaced by those without a label."""
    tls = 'server "x" {\n  tls {\n%s\n  }\n}\n'
    rule = 'client_certificate %s { ca_certificate_file = "%s" }'
    first = "\n".join(
        rule % one for one in (('"a"', "1"), ("", "2"), ('"b"', "3"), ("", "4"), ('"c"', "5"))
    )
    second = "\n".join(rule % one for one in (('"d"', "6"), ('"b"', "7")))
    third = rule % ("", "8")

    def rules(*files: str) -> list[str]:
        found = merged(*(tls % file for file in files))
        assert isinstance(found, dict)
        return [
            f"{heading.partition(' ')[2].removeprefix('client_certificate')}{one}"
            for heading, block in found['0 server "x"']["0 tls"].items()
            for one in block.values()
        ]

    assert rules(first, second) == [' "a"1', "2", ' "b"7', "4", ' "c"5', ' "d"6']
    assert rules(first, third) == [' "a"1', ' "b"3', ' "c"5', "8"]


def test_a_deny_is_never_replaced() -> None:
    """A later file cannot let in whom an earlier one keeps out."""
    tls = 'server "x" {\n  tls {\n    deny { sha256 = ["%s"] }\n  }\n}\n'
    assert merged(tls % "1", tls % "2") == {
        '0 server "x"': {"0 tls": {"0 deny": {"sha256": ["1"]}, "1 deny": {"sha256": ["2"]}}}
    }


DEFAULTS = "defaults {\n  environment_variables = {\n    %s\n  }\n}\n"


def test_defaults_stand_in_for_variables_that_are_not_set() -> None:
    """Each variable may be replaced by a later file; what is set goes before."""
    found = merged(
        DEFAULTS % 'A = "1"\n    B = "1"\n    C = "1"' + "x = [env.A, env.B, env.C, env.D]\n",
        DEFAULTS % 'B = "2"\n    D = "${env.C}!"',
        environ={"C": "3"},
    )
    assert isinstance(found, dict)
    assert found["x"] == ["1", "2", "3", "3!"]


def test_defaults_in_error_are_located() -> None:
    """They do not see each other."""
    _, problems = read(DEFAULTS % 'A = "1"\n    B = env.A')
    assert problems[0] == (
        "a.hcl:4:9: defaults: environment_variables: environment variable A is not set; set it, "
        'or give a fallback with default(env.A, "...")'
    )
    _, problems = read(DEFAULTS % 'A = ["1"]')
    assert problems == ["a.hcl:3:9: defaults: environment_variables: must be a string, not a list"]


ENVIRONMENTS = """\
server "x" {
  hosts = ["1"]
  environment "prod" "stage" {
    hosts = ["2"]
    idle_timeout = "1s"
    protocol "echo" {}
  }
  environment "test" {
    protocol "whoami" {}
  }
}
environment "test" {
  settings {
    watch = true
  }
}
"""


@pytest.mark.parametrize(
    ("environ", "settings", "expected"),
    [
        (
            {"MTLSGATE_ENVIRONMENT": "prod"},
            "",
            {'0 server "x"': {"hosts": ["2"], "idle_timeout": "1s", '0 protocol "echo"': {}}},
        ),
        (
            {"MTLSGATE_ENVIRONMENT": "test"},
            "",
            {
                '0 server "x"': {"hosts": ["1"], '0 protocol "whoami"': {}},
                "1 settings": {"watch": True},
            },
        ),
        ({"MTLSGATE_ENVIRONMENT": "other"}, "", {'0 server "x"': {"hosts": ["1"]}}),
        (
            {},
            'settings { environment = "stage" }\n',
            {
                "0 settings": {"environment": "stage"},
                '1 server "x"': {"hosts": ["2"], "idle_timeout": "1s", '0 protocol "echo"': {}},
            },
        ),
        (
            {"MTLSGATE_ENVIRONMENT": "other"},
            'settings { environment = "stage" }\n',
            {"0 settings": {"environment": "stage"}, '1 server "x"': {"hosts": ["1"]}},
        ),
    ],
)
def test_an_environment_block_takes_its_blocks_place(
    environ: Mapping[str, str], settings: str, expected: object
) -> None:
    """The content of a block that has the environment's name takes the block's place."""
    assert merged(settings + ENVIRONMENTS, environ=environ) == expected


def test_an_environment_must_be_named() -> None:
    """Or else nobody knows which rules hold."""
    _, problems = read(ENVIRONMENTS)
    assert problems == [
        f"a.hcl:{line}:{column}: environment {labels}: no environment is named: set "
        "MTLSGATE_ENVIRONMENT, or environment in settings"
        for line, column, labels in ((12, 1, '"test"'), (3, 3, '"prod" "stage"'), (8, 3, '"test"'))
    ]
    assert read("environment {\n}\n", environ={"MTLSGATE_ENVIRONMENT": "x"})[1] == [
        "a.hcl:1:1: configuration: environment needs the name of one, or several, as labels"
    ]
