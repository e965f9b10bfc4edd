"""
Random edits of valid files: the loader says what is wrong, and where, or loads.

Always the same inputs, unless ``MTLSGATE_FUZZ_SEED`` says otherwise;
``MTLSGATE_FUZZ_INPUTS`` is their number, for longer runs.
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.config import model
from mtlsgate.errors import ConfigError
from mtlsgate.load.loading import load
from tests.kits.pki import NOW, pki
from tests.kits.revocation import crl

INPUTS = int(os.environ.get("MTLSGATE_FUZZ_INPUTS", "4000"))
SEED = os.environ.get("MTLSGATE_FUZZ_SEED", "1")

#: Between them these have every block and every attribute.
FILES = {
    "server": """\
settings { handshake_timeout = "250ms" }
server "a" {
  hosts = ["127.0.0.1:0"]
  server_names = ["a.example", "*.b.example"]
  default_server = true
  proxy_protocol = "required"
  trusted_proxies = ["10.0.0.0/8", "2001:db8::1"]
  starttls = "postgres"
  protocol "echo" {}
  tls {
    min_version = "1.3"
    verification = "double"
    server_certificate "A" {
      public_key_file = "server.crt"
      private_key_file = "server.key"
      ocsp_stapling = false
    }
    client_certificate "IOT" { ca_certificate_file = "issuing.crt" }
  }
}
""",
    "limits": """\
settings {
  environment = "a"
  watch = true
  drain_timeout = "0s"
  state_dir = "state"
  quiet = true
  audit {
    file = "audit.log"
    format = "json"
  }
  on_reload = "keep"
}
defaults {
  environment_variables = { UNSET = "x" }
}
environment "b" {
  admin { listen = "unix:other.sock" }
}
admin {
  listen = "unix:admin.sock"
  token = "0123456789abcdef0123456789abcdef"
}
registry "devices" {
  url = "redis://127.0.0.1"
  max_staleness = "5m"
}
server "limited" {
  hosts = ["127.0.0.1:0"]
  idle_timeout = "5m"
  max_connections = 100
  max_connections_per_ip = 10
  max_connections_per_identity = 2
  count_in = "devices"
  max_handshakes = 50
  handshakes_per_second_per_ip = 0.5
  handshake_bytes = 65536
  close_on_expiry = false
  log_admitted = false
  revoke_grace = "1m"
  authorize = "math:isfinite"
  authorize_timeout = "2s"
  protocol "echo" {}
  tls {
    client_certificate { ca_certificate_file = "issuing.crt" }
  }
}
""",
    "conditions": """\
server {
  hosts = ["127.0.0.1:0"]
  protocol "echo" {}
  tls {
    deny { common_names = ["x"] }
    client_certificate {
      ca_certificate_file = "issuing.crt"
      max_depth = 1
      allow {
        dns_names = ["*.example"]
        ip_addresses = ["10.0.0.0/8"]
        serial_numbers = ["0a:1b"]
      }
      deny { issuers = ["CN=x,O=y"] }
    }
  }
}
""",
    "http": """\
server {
  hosts = ["127.0.0.1:0"]
  protocol "http" {
    target = ["127.0.0.1:1", "unix:/x"]
    x_forwarded_client_cert = ["Hash"]
    max_body_size = "1MiB"
    headers {
      X-CN = default(peer.common_name, env.X, "-")
      X-Who = "${peer.rule}: ${join(",", peer.dns_names)}"
      X-List = [peer.serial, trim("a")]
    }
  }
  tls {
    client_certificate { ca_certificate_file = "issuing.crt" }
  }
}
""",
    "names": """\
server {
  hosts = ["127.0.0.1:0"]
  protocol "whoami" {}
  tls {
    client_certificate {
      ca_certificate_file = "issuing.crt"
      allow {
        common_names = ["client", "${env.X}"]
        uris = ["https://h/*/a"]
        spiffe_ids = ["spiffe://td/**"]
        spki_sha256 = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
        organizations = ["a"]
        organizational_units = ["b"]
        email_addresses = ["c@d"]
        sha256 = ["HEX"]
      }
    }
  }
}
""".replace("HEX", "ab" * 32),
    "pins": """\
server {
  hosts = ["127.0.0.1:0"]
  protocol "echo" {}
  tls {
    client_certificate "pins" {
      leaf_certificate_file = "client.crt"
      leaf_certificate_dir = "pins"
      pin "old" {
        leaf_certificate_file = "stranger.crt"
        not_before = "2026-01-01T00:00:00Z"
        retire_after = "2026-12-31T23:59:59+01:00"
      }
    }
  }
}
""",
    "revocation": """\
server {
  hosts = ["127.0.0.1:0"]
  protocol "echo" {}
  tls {
    session_resumption = true
    session_lifetime = "10m"
    send_ca_names = false
    client_certificate {
      ca_certificate = file("root.crt")
      crl_file = "one.crl"
      crl_dir = "crls"
      crl_url = "http://ca.example/fleet.crl"
      crl_scope = "leaf"
    }
  }
}
""",
    "open": """\
server "b" {
  hosts = ["unix:${env.X}.sock"]
  protocol "echo" {}
  tls { client_authentication = "none" }
}
server "c" {
  hosts = [default(env.Y, "[::1]:0")]
  protocol "echo" {}
  tls {
    client_certificate {
      leaf_certificate = <<END
${file("client.crt")}
END
    }
  }
}
""",
}

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|\w+|\s+|.', re.DOTALL)

#: What is put in: what the language is made of, and what has been somebody's bug.
TOKENS = [
    *(token for text in FILES.values() for token in _TOKEN.findall(text) if token.strip()),
    *"{}[]()=,.:?!&|<>+-*/%\"'\\#$~\n\t ",
    "${", "%{", "}", "<<X\n", "<<-X\n", "\nX\n", "/*", "*/", "//", "...", "=>", "==", "!=", "&&",
    "null", "true", "false", "0", "-1", "1.5", "1e9", "99999999999999999999999999", "0x1",
    '""', '"*"', '"**"', '"*."', '"."', '".."', '"/"', '"\\u0000"', '"\\n"', '"ü"', '"\U0001f511"',
    '"spiffe://*/a"', '"https://h/**/**"', '"::/0"', '"0.0.0.0/0"', '"2026-02-30T00:00:00Z"',
    '"0000-00-00T00:00:00Z"', '"9999-12-31T23:59:59-23:59"', '"99999h"', '"crls"', '"server.key"',
    '"/dev/zero"', '"65536"', '"unix:"', '"tcp:"', '"ssl:1"', '"systemd:domain=INET:index=0"',
    "env.X", "env.NONE", "env", 'env["X"]', 'file("client.crt")', 'file("none")', "file()",
    'split(",", "a")', "[1, [2]]", "{ a = 1 }", "[for x in y : x]", "a ? b : c",
    "leaf_certificate", "ca_certificate", "private_key_passphrase", "private_key", "hosts",
    "server", "tls", "pin", "allow", "deny", "settings", "protocol", "client_certificate",
    "\ufeff", "\u2028", "\r", "\0", "\N{RIGHT-TO-LEFT OVERRIDE}",
]  # fmt: skip


def edited_tokens(tokens: list[str], source: random.Random) -> bytes:
    """:returns: the file with a few tokens taken away, put in, doubled or exchanged."""
    tokens = list(tokens)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        at = source.randrange(len(tokens))
        match source.randrange(6):
            case 0:
                del tokens[at : at + source.choice((1, 1, 2, 8))]
            case 1:
                tokens.insert(at, source.choice(TOKENS))
            case 2:
                other = source.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                length = source.choice((1, 2, 5, 20))
                tokens[at:at] = tokens[at : at + length] * source.choice((1, 1, 2))
            case _:
                tokens[at] = source.choice(TOKENS)
        if not tokens:
            return b""
    return "".join(tokens).encode("utf-8", "surrogatepass")


def edited_bytes(data: bytes, source: random.Random) -> bytes:
    """:returns: the file with a few bytes taken away, put in or exchanged, or cut off."""
    octets = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        at = source.randrange(len(octets) + 1)
        match source.randrange(5):
            case 0:
                del octets[at : at + source.choice((1, 1, 2, 8))]
            case 1:
                octets[at:at] = source.randbytes(source.choice((1, 1, 2)))
            case 2:
                octets[at : at + 1] = bytes([source.choice(b'{}[]()="\\$%<#/*,.\n\0')])
            case 3:
                octets[at : at + 1] = bytes([source.randrange(256)])
            case _:
                if source.random() < 0.2:
                    del octets[at:]
    return bytes(octets)


def edits(text: str, source: random.Random) -> Iterator[bytes]:
    tokens, data = _TOKEN.findall(text), text.encode()
    assert "".join(tokens) == text
    while True:
        yield edited_tokens(tokens, source)
        yield edited_tokens(tokens, source)
        yield edited_bytes(data, source)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that the files name; and neither a network nor a slow look for plugins."""
    pki().write(tmp_path)
    lists = {name: crl(ca, now=NOW) for name, ca in (("a", pki().root), ("b", pki().issuing))}
    for name in ("pins", "crls"):
        (tmp_path / name).mkdir()
    (tmp_path / "pins" / "a.crt").write_bytes(pki().other.pem)
    for name, one in lists.items():
        (tmp_path / "crls" / f"{name}.crl").write_bytes(one.public_bytes(Encoding.PEM))
    (tmp_path / "one.crl").write_bytes(lists["a"].public_bytes(Encoding.DER))

    look_up_any = socket.getaddrinfo

    def look_up(host: str, *args: Any, **options: Any) -> Any:
        return look_up_any(host, *args, **options | {"flags": socket.AI_NUMERICHOST})

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("mtlsgate.protocols.entry_points", cache(entry_points))
    return tmp_path / "gate.hcl"


def outcome(config: Path, data: bytes) -> str | None:
    """:returns: what the loader says, or None where it loads; all of it sound."""
    config.write_bytes(data)
    try:
        load(str(config), {"X": "x"}, lambda: NOW)
    except ConfigError as error:
        check(error, config, data)
        return str(error)
    return None


def check(error: ConfigError, config: Path, data: bytes) -> None:
    """Every problem is at a place in the file, and in one line."""
    lines = data.decode("utf-8", "replace").split("\n")
    assert error.problems
    for problem in error.problems:
        assert 1 <= problem.at.line <= len(lines)
        line = lines[problem.at.line - 1]
        # Where bytes are no UTF-8, their number bounds the characters.
        bound = len(data) if "\N{REPLACEMENT CHARACTER}" in line else len(line)
        assert 1 <= problem.at.column <= bound + 1
        text = str(problem)
        assert text.startswith(f"{config}:{problem.at.line}:{problem.at.column}: ")
        assert text.isprintable()
        assert "-----BEGIN" not in text


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_valid(config: Path, name: str) -> None:
    assert outcome(config, FILES[name].encode()) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_nothing_but_located_errors(config: Path, name: str) -> None:
    source = random.Random(f"{SEED} {name}")
    loaded, said = 0, set()
    for _, data in zip(range(INPUTS // len(FILES)), edits(FILES[name], source), strict=False):
        try:
            found = outcome(config, data)
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise
        loaded += found is None
        said.add(found)
    # Otherwise the edits are too wild or too tame to say anything.
    assert 0 < loaded < INPUTS // len(FILES)
    assert len(said) > min(100, INPUTS // len(FILES) // 10)


def test_every_attribute_is_in_a_file() -> None:
    """A new one must be added to the files above."""
    words = set(re.findall(r"\w+", "".join(FILES.values())))
    for cls in vars(model).values():
        if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == model.__name__:
            for field in attrs.fields(cls):
                if field.name not in ("at", "label", "body", "name", "private_key_passphrase"):
                    assert {field.name, f"{field.name}_file"} & words, field.name


#: What people paste by mistake, and no message may repeat.
SECRETS = {
    "PEM": "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZk1V\\n"
    "-----END PRIVATE KEY-----\\n",
    "base64": "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZk1VKq8vXy3TnB7w",
    "hex": "9d1a8d7b4c2f6e5a3b0918273645546372819a0b1c2d3e4f5061728394a5b6c7ff",
    "token": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "path": "/run/secrets/tls.key:9d1a8d7b4c2f6e5a3b0918273645546372819a0b",
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", FILES)
def test_no_message_repeats_a_secret(config: Path, name: str, secret: str) -> None:
    """Wherever a string stands, a label included."""
    text = FILES[name]
    pieces = [SECRETS[secret][at : at + 12] for at in range(len(SECRETS[secret]) - 11)]
    public = "-----BEGIN PRIVATE KEY-----\\n-----END PRIVATE KEY-----\\n/run/secrets/tls.key"
    private = [piece for piece in pieces if piece not in public and "\\" not in piece]
    for found in re.finditer(r'"[^"\n]*"', text):
        edited = text[: found.start()] + f'"{SECRETS[secret]}"' + text[found.end() :]
        said = outcome(config, edited.encode()) or ""
        assert not any(piece in said for piece in private), said
