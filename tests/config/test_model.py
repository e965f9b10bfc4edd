from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.config import Located, Material
from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import Scope
from mtlsgate.config.model import (
    ClientCertificate,
    Configuration,
    Protocol,
    Server,
    ServerCertificate,
    Settings,
    Tls,
)
from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import Body
from mtlsgate.errors import START, Position, Report

WHOLE = """\
settings {
  handshake_timeout = "5s"
}
server "devices" {
  hosts = ["*:8443", "[::1]:9"]
  protocol "echo" {}
  tls {
    min_version = "1.3"
    verification = "compatible"
    server_certificate "main" {
      public_key_file = "server.crt"
      private_key = "inline"
      private_key_passphrase = "secret"
    }
    client_certificate "IOT" {
      ca_certificate_file = "ca.crt"
      leaf_certificate = "leaf"
    }
    client_certificate {
      leaf_certificate_file = "leaf.crt"
    }
  }
}
server {
  hosts = ["unix:/run/x"]
  protocol "whoami" {}
  tls {
    client_authentication = "none"
  }
}
"""


def _no_files(path: str) -> bytes:
    raise AssertionError(path)


def read(text: str) -> tuple[Configuration | None, list[str]]:
    report = Report("f")
    body = parse(text.encode(), report)
    assert body is not None
    decoded = Decoder(Scope({}, _no_files), report).decode(Configuration, body, START, "file")
    return decoded, [str(one).removeprefix("f:") for one in sorted(report.errors)]


def test_a_whole_file_is_values_all_the_way() -> None:
    decoded, problems = read(WHOLE)
    assert problems == []
    assert decoded == Configuration(
        settings=Settings(handshake_timeout=5.0),
        server=(
            Server(
                at=Position(4, 1),
                label="devices",
                hosts=(
                    Located("*:8443", Position(5, 12)),
                    Located("[::1]:9", Position(5, 22)),
                ),
                protocol=Protocol(name="echo", at=Position(6, 3), body=Body((), ())),
                tls=Tls(
                    at=Position(7, 3),
                    min_version="1.3",
                    verification="compatible",
                    server_certificate=(
                        ServerCertificate(
                            at=Position(10, 5),
                            label="main",
                            public_key=Material(
                                "public_key_file", Position(11, 7), path=Path("server.crt")
                            ),
                            private_key=Material("private_key", Position(12, 7), text="inline"),
                            private_key_passphrase="secret",
                        ),
                    ),
                    client_certificate=(
                        ClientCertificate(
                            at=Position(15, 5),
                            label="IOT",
                            ca_certificate=Material(
                                "ca_certificate_file", Position(16, 7), path=Path("ca.crt")
                            ),
                            leaf_certificate=Material(
                                "leaf_certificate", Position(17, 7), text="leaf"
                            ),
                        ),
                        ClientCertificate(
                            at=Position(19, 5),
                            leaf_certificate=Material(
                                "leaf_certificate_file", Position(20, 7), path=Path("leaf.crt")
                            ),
                        ),
                    ),
                ),
            ),
            Server(
                at=Position(24, 1),
                hosts=(Located("unix:/run/x", Position(25, 12)),),
                protocol=Protocol(name="whoami", at=Position(26, 3), body=Body((), ())),
                tls=Tls(at=Position(27, 3), client_authentication="none"),
            ),
        ),
    )


def test_defaults_are_the_safe_ones() -> None:
    tls = Tls(at=START)
    assert (tls.min_version, tls.client_authentication, tls.verification) == (
        "1.2",
        "required",
        "strict",
    )
    settings = Settings()
    assert (settings.watch, settings.drain_timeout, settings.quiet) == (False, 10.0, False)


def test_blocks_are_headed_as_they_are_written() -> None:
    decoded, _ = read(WHOLE)
    assert decoded is not None
    one, other = decoded.server
    assert (one.heading, other.heading) == ('server "devices"', "server")
    assert (one.name, other.name) == ("devices", "unix:/run/x")
    assert one.tls.server_certificate[0].heading == 'server_certificate "main"'
    assert [rule.heading for rule in one.tls.client_certificate] == [
        'client_certificate "IOT"',
        "client_certificate",
    ]
    odd = ClientCertificate(at=START, label='a"b\n\x1b[31m')
    assert odd.heading == 'client_certificate "a\\"b\\n\\x1b[31m"'


def test_secrets_are_not_in_the_repr() -> None:
    decoded, _ = read(WHOLE)
    assert "secret" not in repr(decoded)
    assert "inline" not in repr(decoded)


NO_RULE = (
    "no client_certificate block says who may come in: add one, or set "
    'client_authentication = "none" to let in anyone'
)


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("", [f"4:1: tls: {NO_RULE}"]),
        ('client_authentication = "required"', [f"4:1: tls: {NO_RULE}"]),
        ("client_authentication = null", [f"4:1: tls: {NO_RULE}"]),
        ('client_authentication = "none"', []),
        (
            'client_authentication = "None"',
            ['5:25: tls: client_authentication: must be "required" or "none"'],
        ),
        (
            "client_authentication = false",
            ['5:25: tls: client_authentication: must be "required" or "none"'],
        ),
        (
            'client_authentication = "none"\nclient_certificate { ca_certificate = "x" }',
            [
                '5:1: tls: client_authentication = "none" lets in anyone, so no '
                "client_certificate block would be heard: remove one or the other"
            ],
        ),
        (
            "client_certificate {}",
            [
                "5:1: client_certificate: neither a CA nor a leaf: set ca_certificate(_file), "
                "leaf_certificate(_file) or both"
            ],
        ),
        (
            'client_certificate "A" {\nca_certificate = null\nleaf_certificate_file = null\n}',
            [
                '5:1: client_certificate "A": neither a CA nor a leaf: set ca_certificate(_file),'
                " leaf_certificate(_file) or both"
            ],
        ),
        (
            'client_certificate {\nca_certificate = "a"\nca_certificate_file = "b"\n'
            'leaf_certificate = "a"\nleaf_certificate_file = "b"\n}',
            [
                "7:1: client_certificate: ca_certificate and ca_certificate_file are mutually "
                "exclusive",
                "9:1: client_certificate: leaf_certificate and leaf_certificate_file are mutually "
                "exclusive",
            ],
        ),
        (
            'client_certificate { ca_certificate = 1 + true }',
            None,
        ),
        (
            'client_certificate "A" { ca_certificate = "x" }\n'
            'client_certificate "A" { ca_certificate = "x" }',
            ['6:1: client_certificate "A": this label is taken by the block in line 5'],
        ),
        (
            'client_certificate { ca_certificate = "x" }\nmin_version = "1.1"',
            ['6:15: tls: min_version: must be "1.2" or "1.3"'],
        ),
        (
            'client_certificate { ca_certificate = "x" }\nmin_version = 1.2',
            ['6:15: tls: min_version: must be "1.2" or "1.3": put it in quotes'],
        ),
        (
            'client_certificate { ca_certificate = "x" }\nverification = "none"',
            ['6:16: tls: verification: must be "strict" or "compatible" or "double"'],
        ),
        (
            'client_certificate { ca_certificate = "x" }\nserver_certificate {}',
            [
                "6:1: server_certificate: private_key or private_key_file is missing",
                "6:1: server_certificate: public_key or public_key_file is missing",
            ],
        ),
        (
            'client_certificate { ca_certificat = "x" }',
            [
                '5:22: client_certificate: unknown attribute "ca_certificat"; did you mean '
                '"ca_certificate"?'
            ],
        ),
        (
            'client_certificate = "x"',
            [
                "5:1: tls: client_certificate is a block: write client_certificate { … }",
            ],
        ),
        (
            'client_certificates {}',
            [
                '5:1: tls: unknown block "client_certificates"; did you mean '
                '"client_certificate"?'
            ],
        ),
        (
            'client_certificate "a" "b" { ca_certificate = "x" }',
            ['5:1: client_certificate "a" "b": takes one label, not several'],
        ),
    ],
)  # fmt: skip
def test_who_may_come_in_is_said_once_and_clearly(tls: str, expected: list[str] | None) -> None:
    text = f'server {{\nhosts = ["1"]\nprotocol "echo" {{}}\ntls {{\n{tls}\n}}\n}}\n'
    _, problems = read(text)
    if expected is None:
        # What is in error is reported, and nothing follows from it.
        assert len(problems) == 1
    else:
        assert problems == expected


SERVER = (
    'server "%s" {\nhosts = ["1"]\nprotocol "echo" {}\ntls { client_authentication = "none" }\n}\n'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: file: no server block, and no client block"]),
        ("settings {}\n", ["1:1: file: no server block, and no client block"]),
        (
            "server {}\n",
            [
                "1:1: server: hosts is missing",
                "1:1: server: the protocol block is missing",
                "1:1: server: the tls block is missing",
            ],
        ),
        (
            SERVER % "a" + SERVER % "b" + SERVER % "a",
            ['11:1: server "a": this label is taken by the block in line 1'],
        ),
        (SERVER % "", ['1:1: server "": the label is empty']),
        (
            SERVER % "c2VjcmV0IHRva2VuIDEyMzQ1Njc4OTA",
            [
                '1:1: server "(what looks like a secret, 31 characters)": the label is '
                "(what looks like a secret, 31 characters): write a name"
            ],
        ),
        (
            (SERVER % "a").replace('["1"]', "[]"),
            ['2:1: server "a": hosts is empty: name at least one address, as in ["*:8443"]'],
        ),
        (
            (SERVER % "a").replace('["1"]', '"1"'),
            ['2:9: server "a": hosts: must be a list, not a string: put it in [brackets]'],
        ),
        (
            (SERVER % "a").replace('["1"]', "[8443]"),
            ['2:10: server "a": hosts: must be a string, not a whole number: put it in quotes'],
        ),
        (
            (SERVER % "a").replace('["1"]', "null"),
            ['1:1: server "a": hosts is missing'],
        ),
        (
            (SERVER % "a").replace('"echo"', ""),
            ['3:1: protocol: needs a label: protocol "…" {'],
        ),
        (
            (SERVER % "a").replace('"echo"', '"echo" "b"'),
            ['3:1: protocol "echo" "b": takes one label, not several'],
        ),
        (
            (SERVER % "a").replace("tls", 'protocol "x" {}\ntls'),
            ['4:1: protocol "x": only one protocol block is allowed here; the first is in line 3'],
        ),
        (
            (SERVER % "a").replace("tls", "tls {}\ntls"),
            [
                "4:1: tls: no client_certificate block says who may come in: add one, or set "
                'client_authentication = "none" to let in anyone',
                "5:1: tls: only one tls block is allowed here; the first is in line 4",
            ],
        ),
        (
            (SERVER % "a").replace("tls", 'tls "x"'),
            ['4:1: tls "x": takes no label'],
        ),
        (
            "settings {}\nsettings {}\n" + SERVER % "a",
            ["2:1: settings: only one settings block is allowed here; the first is in line 1"],
        ),
        (
            'settings "x" {}\n' + SERVER % "a",
            ['1:1: settings "x": takes no label'],
        ),
        (
            'settings { handshake_timeout = "10" }\n' + SERVER % "a",
            [
                "1:32: settings: handshake_timeout: not a duration; write it as "
                '"250ms", "10s", "5m" or "1h"'
            ],
        ),
        (
            "settings { handshake_timeot = 1 }\n" + SERVER % "a",
            [
                '1:12: settings: unknown attribute "handshake_timeot"; did you mean '
                '"handshake_timeout"?'
            ],
        ),
        (
            "sever {}\n" + SERVER % "a",
            ['1:1: file: unknown block "sever"; did you mean "server"?'],
        ),
        (
            'definitions {}\napi "x" {}\n' + SERVER % "a",
            [
                '1:1: file: unknown block "definitions"; it is Couper\'s, and means nothing here',
                '2:1: file: unknown block "api"; it is Couper\'s, and means nothing here',
            ],
        ),
    ],
)
def test_the_blocks_of_a_file(text: str, expected: list[str]) -> None:
    assert read(text)[1] == expected
