"""``mtlsgate explain``: why a client would be let in or not, without a connection."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.certificates.development_ca import Authority, Credential
from mtlsgate.commands.cli import main
from tests.kits.pki import NOW, Site, pki, server, site
from tests.kits.revocation import crl

AT = "2026-06-15T12:00:00Z"


@pytest.fixture
def here(tmp_path: Path) -> Site:
    made = site(tmp_path)
    made.write("one.crl", crl(pki().issuing, [pki().other], now=NOW).public_bytes(Encoding.PEM))
    return made


def run(here: Site, config: str | None, *arguments: str) -> Result:
    if config is not None:
        here.write("gate.hcl", config)
    paths = [
        str(here.directory / one) if one.endswith((".crt", ".der")) else one for one in arguments
    ]
    return CliRunner().invoke(main, ["explain", "--config", str(here.config), "--at", AT, *paths])


def said(here: Site, tls: str, *chain: Credential | Authority) -> list[str]:
    """:returns: what it says of a chain, without the first line, which names the leaf."""
    names = []
    for number, one in enumerate(chain):
        names.append(f"chain-{number}.crt")
        here.write(names[-1], one.certificate.public_bytes(Encoding.PEM))
    result = run(here, server(tls, label='"door"'), *names)
    assert result.exit_code in (0, 1), result.output
    head, *lines = result.output.splitlines()
    leaf = chain[0].certificate
    assert head.startswith(f"door: {leaf.subject.rfc4514_string()} sha256=")
    assert (result.exit_code == 0) == lines[0].startswith("  admitted")
    return lines


def hints(here: Site, tls: str, *chain: Credential | Authority) -> list[str]:
    """:returns: the near misses of the last rule, of a chain that is rejected."""
    lines = said(here, tls, *chain)
    at = max(number for number, line in enumerate(lines) if line.startswith("  rule "))
    assert ": rejected: " in lines[at]
    return [line.strip() for line in lines[at + 1 :]]


def tls(body: str, label: str = "") -> str:
    return f"client_certificate {label}{{\n{body}\n}}\n"


CA, ROOT = 'ca_certificate_file = "issuing.crt"', 'ca_certificate_file = "root.crt"'
LEAF = 'leaf_certificate_file = "client.crt"'
CLIENT, OTHER, STRANGER = pki().client, pki().other, pki().stranger

# The nearest miss


def test_a_renewed_certificate_is_called_one(here: Site) -> None:
    again = pki().issuing.issue("client", key=CLIENT.private_key, now=NOW)
    assert hints(here, tls(f"{CA}\n{LEAF}"), again) == [
        "same key, another serial: a renewed certificate? pin it with leaf_certificate; its "
        f"sha256 is {again.sha256}"
    ]


def test_a_new_key(here: Site) -> None:
    again = pki().issuing.issue("client", now=NOW)
    assert hints(here, tls(f"{CA}\n{LEAF}"), again) == [
        "same subject as a pin, another key: a new key? pin it with leaf_certificate; its "
        f"sha256 is {again.sha256}"
    ]


def test_an_unknown_pin(here: Site) -> None:
    assert hints(here, tls(f"{CA}\n{LEAF}"), OTHER) == [
        "none of the pins of the rule (1); if it should be: pin it with leaf_certificate; "
        f"its sha256 is {OTHER.sha256}"
    ]


TWIN = Authority.create("Issuing CA", now=NOW)
NAMESAKE = "issued by a CA with the configured name but another key"


@pytest.mark.parametrize("sent", [[], [TWIN]], ids=["alone", "with its CA"])
@pytest.mark.parametrize("pins", ["", LEAF], ids=["", "pins"])
def test_a_ca_of_the_same_name(here: Site, sent: list[Authority], pins: str) -> None:
    """... and no word of how to pin what no configured CA issued."""
    assert hints(here, tls(f"{CA}\n{pins}"), TWIN.issue("client", now=NOW), *sent) == [NAMESAKE]


def test_a_missing_intermediate(here: Site) -> None:
    expected = "chain lacks the intermediate CN=Issuing CA, or it is another CA's"
    assert hints(here, tls(ROOT), CLIENT) == [expected]
    below = pki().issuing.intermediate("Below", now=NOW)
    assert hints(here, tls(ROOT), below.issue("x", now=NOW), below) == [expected]
    assert hints(here, tls(f"{ROOT}\n{LEAF}"), CLIENT) == [expected]


def test_an_intermediate_of_the_same_name(here: Site) -> None:
    assert hints(here, tls(ROOT), CLIENT, TWIN) == [
        "not issued by the CN=Issuing CA that was sent along"
    ]


def test_signed_by_itself(here: Site) -> None:
    assert hints(here, tls(CA), STRANGER) == ["CN=stranger is self-signed, and no CA of the rule"]
    other = Authority.create("Elsewhere", now=NOW)
    assert hints(here, tls(CA), other.issue("x", now=NOW), other) == [
        "CN=Elsewhere is self-signed, and no CA of the rule"
    ]


def test_circles_end(here: Site) -> None:
    """Two CAs that issued each other."""
    one, two = Authority.create("One", now=NOW), Authority.create("Two", now=NOW)
    by_two = two.intermediate("One", key=one.private_key, now=NOW)
    by_one = one.intermediate("Two", key=two.private_key, now=NOW)
    found = hints(here, tls(CA), one.issue("x", now=NOW), by_two, by_one)
    assert found == ["chain lacks the intermediate CN=One, or it is another CA's"]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (timedelta(days=-3), "expired 3 days ago"),
        (timedelta(days=-1, hours=-5), "expired 1 day ago"),
        (timedelta(hours=-2), "expired 2 hours ago"),
        (timedelta(minutes=-1), "expired 1 minute ago"),
        (timedelta(seconds=-5), "expired 5 seconds ago"),
    ],
)
def test_an_expired_certificate_says_since_when(here: Site, end: timedelta, expected: str) -> None:
    leaf = pki().issuing.issue("x", not_before=NOW - timedelta(days=9), not_after=NOW + end)
    assert hints(here, tls(CA), leaf) == [expected]


def test_not_yet_valid(here: Site) -> None:
    leaf = pki().issuing.issue("x", not_before=NOW + timedelta(days=2), now=NOW)
    assert hints(here, tls(CA), leaf) == ["valid in 2 days"]


def test_an_allow_block_says_what_it_asks_for(here: Site) -> None:
    leaf = pki().issuing.issue("x", uris=["spiffe://td/b"], organization="Acme", now=NOW)
    allow = 'allow {{ {} = ["{}"] }}'
    assert hints(here, tls(CA + "\n" + allow.format("spiffe_ids", "spiffe://td/a")), leaf) == [
        "allowed spiffe_ids: spiffe://td/a; this has spiffe://td/b"
    ]
    assert hints(here, tls(CA + '\nallow { dns_names = ["a", "b", "c", "d", "e"] }'), leaf) == [
        "allowed dns_names: a or b or c or 2 more; this has none"
    ]
    two = 'allow {\norganizations = ["Acme"]\ncommon_names = ["y"]\n}\n'
    two += 'allow { serial_numbers = ["0a"] }'
    assert hints(here, tls(f"{CA}\n{two}"), leaf) == [
        "allowed common_names: y; this has x",
        f"allowed serial_numbers: 0a; this has {leaf.certificate.serial_number:x}",
    ]
    issuers = allow.format("issuers", "CN=Root CA")
    assert hints(here, tls(f"{CA}\n{issuers}"), leaf) == [
        "allowed issuers: CN=Root CA; this has CN=Issuing CA"
    ]


def test_a_deny_block_says_which_attribute_matches(here: Site) -> None:
    deny = 'deny {\ncommon_names = ["client"]\nissuers = ["CN=Issuing CA"]\n}'
    assert hints(here, tls(f"{CA}\n{deny}"), CLIENT) == ["denied by common_names, issuers"]


def test_names_cannot_forge_lines(here: Site) -> None:
    leaf = pki().issuing.issue("x", uris=["spiffe://td/\n  admitted"], now=NOW)
    [hint] = hints(here, tls(CA + '\nallow { uris = ["urn:x"] }'), leaf)
    assert hint == "allowed uris: urn:x; this has spiffe://td/\\n  admitted"


# Rule by rule


def test_each_rule(here: Site) -> None:
    """In the order of the file, each as if there were no other."""
    text = (
        tls(ROOT, '"root" ')
        + tls(f"{CA}\n{LEAF}", '"pin" ')
        + tls(CA + '\nallow { common_names = ["x"] }', '"x" ')
        + tls(f'{CA}\ncrl_file = "one.crl"', '"crl" ')
        + tls(CA, '"all" ')
    )
    lines = [line.split(" (")[0] for line in said(here, text, OTHER) if not line.startswith("    ")]
    assert lines == [
        "  admitted by rule all",
        "  rule root: rejected: unknown_ca at depth 0: its issuer is no configured CA and was not "
        "sent along",
        "  rule pin: rejected: leaf_mismatch at depth 0: the CA is a configured one, but the "
        "client's certificate is none of its pins",
        "  rule x: rejected: not_allowed at depth 0: none of the rule's allow blocks matches",
        '  rule crl: rejected: revoked at depth 0: revoked by "CN=Issuing CA" at '
        "2026-06-15T11:00:00+00:00, reason unspecified",
        "  rule all: admitted by rule all",
    ]


def test_a_path_that_openssl_did_not_choose(here: Site) -> None:
    """A rule holds by a CA above the one at which OpenSSL stops, here as at the gate."""
    text = tls(CA + '\ndeny { common_names = ["client"] }', '"a" ') + tls(ROOT, '"b" ')
    lines = said(here, text, CLIENT, pki().issuing)
    assert lines[0] == "  admitted by rule b"
    assert "  rule b: admitted by rule b" in lines


def test_deny_of_the_server_counts_in_each_rule(here: Site) -> None:
    text = 'deny { common_names = ["client"] }\n' + tls(CA) + tls(LEAF)
    assert [": rejected: denied at depth 0" in line for line in said(here, text, CLIENT)[1:]] == [
        True,
        True,
    ]


# The command


def test_the_json_has_everything_that_the_words_say(here: Site) -> None:
    """Everything that is said in words, with the same names as in the log."""
    text = server(tls(f"{CA}\n{LEAF}", '"pin" ') + tls(CA, '"all" '), label='"door"')
    here.write("other.crt", OTHER.certificate.public_bytes(Encoding.PEM))
    result = run(here, text, "--json", "other.crt")
    assert result.exit_code == 0
    found = json.loads(result.output)
    [hint] = found["rules"][0].pop("hints")
    assert OTHER.sha256 in hint
    assert found == {
        "server": "door",
        "subject": "CN=other",
        "fingerprint_sha256": OTHER.sha256,
        "admitted": True,
        "by": "all",
        "tls_versions": ["1.2", "1.3"],
        "rules": [
            {
                "rule": "pin",
                "admitted": False,
                "reason": "leaf_mismatch",
                "depth": 0,
                "detail": "the CA is a configured one, but the client's certificate is none of "
                "its pins",
            },
            {"rule": "all", "admitted": True, "by": "all", "hints": []},
        ],
    }
    rejected = run(here, server(tls(ROOT), label='"door"'), "--json", "other.crt")
    assert rejected.exit_code == 1
    found = json.loads(rejected.output)
    assert (found["admitted"], found["reason"], found["depth"]) == (False, "unknown_ca", 0)
    assert set(found) == {
        "server", "subject", "fingerprint_sha256", "admitted", "reason", "depth", "detail", "rules",
        "tls_versions",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("at", "code"),
    [
        ("2026-06-15T12:00:00Z", 0),
        ("2026-06-15T14:00:00+02:00", 0),
        ("2036-06-15T12:00:00Z", 1),
        ("2016-06-15T12:00:00Z", 1),
        ("tomorrow", 2),
        ("2026-06-15", 2),
    ],
)
def test_a_rotation_can_be_tried_beforehand(here: Site, at: str, code: int) -> None:
    """A planned rotation can be tried beforehand."""
    assert run(here, server(tls(CA)), "--at", at, "client.crt").exit_code == code


def test_a_pin_retires_at_its_time(here: Site) -> None:
    text = server(tls(f'pin "p" {{\n{LEAF}\nretire_after = "2026-07-01T00:00:00Z"\n}}'))
    assert run(here, text, "--at", "2026-07-01T00:00:00Z", "client.crt").exit_code == 0
    late = run(here, None, "--at", "2026-07-01T00:00:01Z", "client.crt")
    assert late.exit_code == 1
    assert "pin_retired" in late.output


def test_forms_of_the_chain(here: Site) -> None:
    """PEM or DER, in one file or several."""
    here.write("chain.crt", CLIENT.pem)
    here.write("issuing.der", pki().issuing.certificate.public_bytes(Encoding.DER))
    text = server(tls(ROOT))
    for names in (
        ["chain.crt"],
        ["client.crt", "issuing.crt"],
        ["client.der", "issuing.der"],
        ["client.der", "stranger.crt", "bundle.crt"],
    ):
        assert run(here, text, *names).exit_code == 0, names
    for names in (["client.crt"], ["issuing.crt", "client.crt"]):
        assert run(here, text, *names).exit_code == 1, names


TWO = server(tls(CA), label='"one"') + server(tls(LEAF), label='"two"')


@pytest.mark.parametrize(
    ("config", "arguments", "error"),
    [
        ("server {", ["client.crt"], "gate.hcl:1:"),
        (server(tls('ca_certificate_file = "no.crt"')), ["client.crt"], "gate.hcl:6:1: "),
        (TWO, ["client.crt"], 'has several servers: name one with --server: "one", "two"'),
        (
            TWO,
            ["--server", "tow", "client.crt"],
            'has no server "tow"; did you mean "two"?: "one", "two"',
        ),
        (
            server(tls(CA)) * 2,
            ["--server", "127.0.0.1:0", "client.crt"],
            'has several servers "127.0.0.1:0": give them labels',
        ),
        (
            server('client_authentication = "none"', label='"all"'),
            ["client.crt"],
            'server "all" lets in anyone: it judges nobody',
        ),
        (server(tls(CA)), ["no.crt"], "no.crt: no such file"),
        (server(tls(CA)), ["client.crt", "no.der"], "no.der: no such file"),
        (server(tls(CA)), ["junk.crt"], "junk.crt: is neither PEM nor DER nor base64 of DER"),
        (server(tls(CA)), ["--at", "soon", "client.crt"], "not an instant"),
        (server(tls(CA)), [], "Missing argument 'CERT...'"),
        (server(tls(CA)), ["--sever", "x", "client.crt"], "No such option"),
    ],
)
def test_what_cannot_be_told(here: Site, config: str, arguments: list[str], error: str) -> None:
    """Exit code 2, one line, and no traceback."""
    here.write("junk.crt", b"???")
    result = run(here, config, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr
    assert "Traceback" not in result.stderr


def test_what_only_a_running_gate_can_tell(here: Site) -> None:
    """Nobody asks a SPIFFE agent: that is no verdict on the client."""
    rule = 'spiffe_trust_domain = "plants.example"\n spiffe_socket = "unix:/run/agent.sock"'
    result = run(here, server(tls(rule)), "client.crt")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "/explain of its admin endpoint" in result.stderr


def test_a_server_by_name(here: Site) -> None:
    here.write("other.crt", OTHER.certificate.public_bytes(Encoding.PEM))
    assert run(here, TWO, "--server", "one", "other.crt").exit_code == 0
    assert run(here, TWO, "--server", "two", "other.crt").exit_code == 1


def test_no_file(here: Site) -> None:
    assert run(here, None, "client.crt").exit_code == 2


def test_no_socket_is_opened_and_no_name_looked_up(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket is opened and no name looked up, whatever ``hosts`` says."""

    def refuse(*args: object, **kwargs: object) -> Any:
        raise AssertionError("explain went online")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    shown = 'server_certificate {\npublic_key_file="server.crt"\nprivate_key_file="server.key"\n}\n'
    for hosts in ('["*:8443"]', '["8443"]', '["gate.example:8443", "[::]:8443"]'):
        assert run(here, server(shown + tls(CA), hosts=hosts), "client.crt").exit_code == 0
