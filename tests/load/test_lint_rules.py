"""Warnings about rules, CAs and pins that cannot do what they say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import certifi
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.certificates.development_ca import Authority, Credential, self_signed
from tests.kits.pki import NOW, Site, pki, server, site
from tests.kits.revocation import crl


@pytest.fixture
def here(tmp_path: Path) -> Site:
    made = site(tmp_path)
    made.write("one.crl", crl(pki().issuing, now=NOW).public_bytes(Encoding.PEM))
    return made


def rule(body: str, label: str = "") -> str:
    """:returns: a rule of as many lines as its body has, and two."""
    return f"client_certificate {label}{{\n{body}\n}}\n"


def pem(*ones: Credential | Authority) -> bytes:
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in ones)


CA, ROOT = 'ca_certificate_file = "issuing.crt"', 'ca_certificate_file = "root.crt"'
LEAF, LEAVES = 'leaf_certificate_file = "client.crt"', 'leaf_certificate_file = "clients.crt"'
CRL = 'crl_file = "one.crl"'
ASKS, ASKS_OTHERS = 'registry = "devices"', 'registry = "others"'


def registries(text: str) -> str:
    """:returns: the registries that a text names."""
    named = [label for label in ("devices", "others") if f'registry = "{label}"' in text]
    return "".join(f'registry "{one}" {{ url = "redis://127.0.0.1" }}\n' for one in named)


def two_rules(first: str, second: str) -> str:
    """:returns: a configuration with two rules, ``a`` and ``b``."""
    return server(rule(first, '"a" ') + rule(second, '"b" ')) + registries(first + second)


ORDINARY = f"""\
server_certificate {{
public_key_file = "server.crt"
private_key_file = "server.key"
}}
deny {{ common_names = ["gone"] }}
send_ca_names = false
session_resumption = true
client_certificate "fleet" {{
{CA}
max_depth = 0
{CRL}
allow {{ common_names = ["client", "other"] }}
allow {{ organizations = ["Acme"] }}
deny {{ serial_numbers = ["0a"] }}
}}
client_certificate "rotation" {{
{CA}
pin "old" {{
{LEAF}
retire_after = "2026-08-01T00:00:00Z"
}}
pin "new" {{
leaf_certificate_file = "other.crt"
not_before = "2026-06-30T00:00:00Z"
}}
}}
client_certificate "workshop" {{
leaf_certificate_file = "stranger.crt"
}}"""


def test_an_ordinary_file_is_not_warned_of(here: Site) -> None:
    here.write("other.crt", pem(pki().other))
    assert here.warnings(server(ORDINARY)) == []


# Rules and rules

EFFECT = 'has no effect: client_certificate "a" in line 5 admits every leaf of the same CA'


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (CA, f"{CA}\n{LEAF}", [f'8:1: client_certificate "b": {EFFECT}']),
        (CA, f"{CA}\nmax_depth = 1", [f'8:1: client_certificate "b": {EFFECT}']),
        (CA, CA + '\nallow { common_names = ["x"] }', [f'8:1: client_certificate "b": {EFFECT}']),
        (CA, f"{CA}\n{CRL}", [f'8:1: client_certificate "b": {EFFECT}']),
        # A rule that demands more hides nothing.
        (f"{CA}\nmax_depth = 1", f"{CA}\n{LEAF}", []),
        (CA + '\nallow { common_names = ["x"] }', f"{CA}\n{LEAF}", []),
        (CA + '\ndeny { common_names = ["x"] }', f"{CA}\n{LEAF}", []),
        (f"{CA}\n{CRL}", f"{CA}\n{LEAF}", []),
        (f"{CA}\n{ASKS}", f"{CA}\n{LEAF}", []),
        (CA, f"{CA}\n{ASKS}", [f'8:1: client_certificate "b": {EFFECT}']),
        (CA, ROOT, []),
    ],
)
def test_a_rule_that_a_wider_one_covers_is_warned_of(
    here: Site, first: str, second: str, expected: list[str]
) -> None:
    """A rule that states less on the same CA admits whomever the other does."""
    assert here.warnings(two_rules(first, second)) == expected


@pytest.mark.parametrize(
    ("lone", "expected"),
    [
        (LEAVES, True),
        (LEAF, True),
        ('leaf_certificate_file = "stranger.crt"', False),
        (f'pin "p" {{\n{LEAF}\n}}', True),
        (f'pin "p" {{\n{LEAF}\nretire_after = "2026-08-01T00:00:00Z"\n}}', False),
        (f'pin "p" {{\n{LEAF}\nnot_before = "2026-06-01T00:00:00Z"\n}}', False),
        (LEAF + '\ndeny { common_names = ["x"] }', False),
    ],
)
def test_shadowed_by_lone_pins(here: Site, lone: str, expected: bool) -> None:
    """Those that count for ever, and without more to hold."""
    found = here.warnings(server(rule(f"{CA}\n{LEAF}") + rule(lone)))
    assert found == expected * [
        "5:1: client_certificate: has no effect: a rule without a CA admits the same leaves"
    ]


SAME = 'is client_certificate "a" in line 5 but for its label'


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (CA, CA, True),
        (f"{CA}\n{LEAF}", f"{LEAF}\n{CA}", True),
        (LEAF, 'leaf_certificate_file = "client.der"', True),
        (LEAF, f'pin "p" {{\n{LEAF}\n}}', True),
        (f"{CA}\nmax_depth = 1", f"{CA}\nmax_depth = 1", True),
        (f"{CA}\nmax_depth = 1", f"{CA}\nmax_depth = 2", False),
        (f"{CA}\n{CRL}", f"{CA}\n{CRL}", True),
        (f"{CA}\n{CRL}", f'{CA}\n{CRL}\ncrl_scope = "path"', True),
        (f"{CA}\n{CRL}", f'{CA}\n{CRL}\ncrl_scope = "leaf"', False),
        (
            CA + '\nallow { common_names = ["x"] }',
            CA + '\nallow { common_names = ["x"] }',
            True,
        ),
        (
            CA + '\nallow { common_names = ["x"] }\nallow { organizations = ["y"] }',
            CA + '\nallow { organizations = ["y"] }\nallow { common_names = ["x"] }',
            True,
        ),
        (
            CA + '\nallow { common_names = ["x"] }',
            CA + '\nallow { common_names = ["y"] }',
            False,
        ),
        (
            CA + '\nallow { common_names = ["x"] }',
            CA + '\ndeny { common_names = ["x"] }',
            False,
        ),
        (
            f'pin "p" {{\n{LEAF}\nretire_after = "2026-07-01T00:00:00Z"\n}}',
            f'pin "p" {{\n{LEAF}\nretire_after = "2026-07-02T00:00:00Z"\n}}',
            False,
        ),
        (f"{CA}\n{LEAF}", f"{CA}\n{LEAVES}", False),
        (f"{CA}\n{ASKS}", f"{CA}\n{ASKS}", True),
        (f"{CA}\n{ASKS}", f"{CA}\n{ASKS_OTHERS}", False),
        (CA, f"{CA}\n{ASKS}", False),
        (f"{CA}\ndeny {{ {ASKS} }}", f"{CA}\ndeny {{ {ASKS_OTHERS} }}", False),
    ],
)
def test_two_rules_that_differ_only_in_label_are_warned_of(
    here: Site, first: str, second: str, same: bool
) -> None:
    """Two rules that differ only in label: one of them was meant otherwise."""
    found = here.warnings(two_rules(first, second))
    assert any(SAME in one for one in found) is same


@pytest.mark.parametrize(
    ("denying", "admits_nobody"),
    [
        (f"deny {{ {ASKS} }}", True),
        (f'deny {{\n{ASKS}\ncommon_names = ["x"]\n}}', False),
        (f"deny {{ {ASKS_OTHERS} }}", False),
    ],
)
@pytest.mark.parametrize("is_inside", [True, False])
def test_a_rule_that_denies_whom_it_demands_is_warned_of(
    here: Site, denying: str, admits_nobody: bool, is_inside: bool
) -> None:
    """A deny block keeps out whoever is listed, not only who is denied there."""
    inside, beside = (f"\n{denying}", "") if is_inside else ("", f"{denying}\n")
    text = server(beside + rule(f"{CA}\n{ASKS}{inside}", '"a" ')) + registries(denying + ASKS)
    found = [one.partition(": ")[2] for one in here.warnings(text)]
    assert found == admits_nobody * [
        'client_certificate "a": admits nobody: a deny block keeps out whoever registry "devices" '
        "lists, active or not; without that block the rule still keeps out devices that are "
        "denied there"
    ]


# CAs


def test_a_public_root(here: Site) -> None:
    """Whoever gets a certificate for a web site would be a client."""
    begin = b"-----BEGIN CERTIFICATE-----"
    root = begin + certifi.contents().encode().split(begin)[1]
    here.write("public.crt", pem(pki().root) + root)
    found = here.warnings(server(rule('ca_certificate_file = "public.crt"')))
    [public] = [one for one in found if "WebPKI" in one]
    assert public.startswith("6:1: client_certificate: the CA '")
    assert public.endswith(
        "is a public (WebPKI) root: whoever can get a certificate under it is a client; name a "
        "CA of your own"
    )


def test_path_lengths(here: Site) -> None:
    """A CA that cannot stand below the one that issued it, and a pin for which no
    intermediate can stand between."""
    root = Authority.create("Short", path_length=0, now=NOW)
    below = root.intermediate("Below", now=NOW)
    here.write("ca.crt", pem(root, below))
    here.write("short.crt", pem(root))
    here.write("pin.crt", pem(below.issue("pin", now=NOW)))
    assert here.warnings(server(rule('ca_certificate_file = "ca.crt"'))) == [
        "6:1: client_certificate: the CA 'CN=Below' cannot be reached from the CA 'CN=Short', "
        "whose path length is 0: it counts by itself only"
    ]
    text = rule('ca_certificate_file = "short.crt"\nleaf_certificate_file = "pin.crt"')
    assert here.warnings(server(text)) == [
        "7:1: client_certificate: the pin 'CN=pin' can never be admitted: no CA of its rule "
        "issued it, and by their path length no intermediate can stand between"
    ]


def test_a_path_length_that_suffices(here: Site) -> None:
    root = Authority.create("Long", path_length=1, now=NOW)
    here.write("ca.crt", pem(root, root.intermediate("Below", path_length=0, now=NOW)))
    assert here.warnings(server(rule('ca_certificate_file = "ca.crt"'))) == []


# Pins


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f'{LEAF}\nallow {{ common_names = ["client"] }}', []),
        (f'{LEAVES}\nallow {{ common_names = ["client"] }}', []),
        (f'{LEAF}\nallow {{ common_names = ["x"] }}', ["7:1"]),
        (
            f'{LEAF}\nallow {{ common_names = ["client"] }}\nallow {{ common_names = ["x"] }}',
            ["8:1"],
        ),
        (
            f'{LEAF}\nallow {{ common_names = ["x"] }}\nallow {{ organizations = ["y"] }}',
            ["7:1", "8:1"],
        ),
        (CA + '\nallow { common_names = ["x"] }', []),
    ],
)
def test_an_allow_block_that_no_pin_satisfies(here: Site, body: str, expected: list[str]) -> None:
    assert here.warnings(server(rule(body))) == [
        f"{at}: client_certificate: no pin of the rule satisfies this allow block"
        for at in expected
    ]


GONE = "the pin 'CN=client' is denied by a deny block"


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        (
            rule(f'{LEAF}\ndeny {{ common_names = ["client"] }}'),
            [f"6:1: client_certificate: {GONE}"],
        ),
        pytest.param(
            f'deny {{ sha256 = ["{pki().client.sha256}"] }}\n' + rule(LEAVES),
            [f"7:1: client_certificate: {GONE}"],
            id="by fingerprint",
        ),
        (
            rule(f'pin "p" {{\n{LEAF}\n}}\ndeny {{ common_names = ["client"] }}'),
            [f"6:1: client_certificate: {GONE}"],
        ),
        (rule(f'{LEAF}\ndeny {{ common_names = ["other"] }}'), []),
        (rule(LEAF) + rule(CA + '\ndeny { common_names = ["client"] }'), []),
    ],
)
def test_a_pin_that_is_denied(here: Site, tls: str, expected: list[str]) -> None:
    """In the rule or in the server; another rule's deny is not its concern."""
    assert here.warnings(server(tls)) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (NOW + timedelta(days=30), []),
        (NOW + timedelta(days=29), ["retires soon, on 2026-07-14"]),
        (NOW, ["retires soon, on 2026-06-15"]),
        (NOW - timedelta(seconds=1), ["was retired on 2026-06-15"]),
    ],
)
def test_a_retired_pin(here: Site, end: object, expected: list[str]) -> None:
    stated = str(end).replace(" ", "T").replace("+00:00", "Z")
    text = rule(f'{LEAVES}\npin "old" {{\n{LEAF}\nretire_after = "{stated}"\n}}')
    found = here.warnings(server(text))
    assert found == [f"7:1: client_certificate: the pin 'CN=client' {one}" for one in expected]


def test_a_pin_of_a_directory(here: Site) -> None:
    """It is told of where the directory is named."""
    (here.directory / "pins").mkdir()
    here.write("pins/a.crt", pem(pki().root.issue("own", is_ca=True, now=NOW)))
    assert here.warnings(server(rule('leaf_certificate_dir = "pins"'))) == [
        "6:24: client_certificate: the pin 'CN=own' is a CA (CA:TRUE): it is admitted itself, and "
        "nothing that it issued is"
    ]


def test_a_pin_that_openssl_would_refuse(here: Site) -> None:
    """The purpose is OpenSSL's notion of it, for which any is not enough."""
    for usage in ("server_auth", "any_extended_key_usage"):
        here.write("pin.crt", pem(self_signed("any", usages=[usage], now=NOW)))
        [found] = here.warnings(server(rule('leaf_certificate_file = "pin.crt"')))
        assert "can never be admitted" in found
