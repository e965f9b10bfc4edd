"""Directories of pins, revocation lists and private keys, through whole files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.admission import Rejection, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import views
from mtlsgate.certificates.parsing import read_file
from mtlsgate.reasons import Reason
from tests.kits.pki import NOW, Site, pki, server, site
from tests.kits.revocation import crl


@pytest.fixture
def here(tmp_path: Path) -> Site:
    made = site(tmp_path)
    for name in ("pins", "crls"):
        (tmp_path / name).mkdir()
    return made


def rule(body: str) -> str:
    """:returns: a rule; its body's first line is line 6 of the file."""
    return f"client_certificate {{\n{body}\n}}"


def only(here: Site, text: str) -> Rule:
    admission = here.load(server(text)).servers[0].gate.context.admission
    assert admission is not None
    [one] = admission.rules
    return one


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


CLIENT, OTHER = pki().client.certificate, pki().other.certificate
STRANGER = pki().stranger.certificate

# leaf_certificate_dir


def test_a_directory_of_pins(here: Site) -> None:
    """Every file that ends as certificates do, in the order of names; PEM, DER, many in one."""
    for name, content in {
        "b.der": CLIENT.public_bytes(Encoding.DER),
        "c.cer": pem(OTHER),
        "a.CRT": pem(STRANGER) + pem(OTHER),
        "d.pem": pem(CLIENT),
        "README": b"no certificate",
        "e.key": b"no certificate",
        "f.crt.bak": b"no certificate",
        ".hidden": b"no certificate",
    }.items():
        here.write(f"pins/{name}", content)
    found = only(here, rule('leaf_certificate_dir = "pins"')).pins
    assert [one.certificate for one in found] == list(
        views([STRANGER, OTHER, CLIENT, OTHER, CLIENT])
    )
    assert {one.name for one in found} == {None}


def test_an_absolute_directory(here: Site) -> None:
    here.write("pins/a.crt", pem(CLIENT))
    directory = here.directory / "pins"
    assert len(only(here, rule(f'leaf_certificate_dir = "{directory}"')).pins) == 1


PLACE = "6:24: client_certificate: leaf_certificate_dir: "


@pytest.mark.parametrize(
    ("files", "name", "problems"),
    [
        ({}, "none", ['"none" no such directory']),
        ({}, "client.crt", ['"client.crt" is not a directory']),
        ({}, "a\\u0000b", ['"a\\x00b" cannot be read: ']),
        ({}, "x" * 300, ['"' + "x" * 300 + '" cannot be read: File name too long']),
        ({}, "pins", ['"pins" holds no file that ends in .pem, .crt, .cer, .der']),
        ({"a.txt": b"x"}, "pins", ['"pins" holds no file that ends in .pem, .crt, .cer, .der']),
        (
            {"a.crt": b"x", "b.crt": pem(CLIENT), "c.pem": b"", "d.der": b"\x30\x00"},
            "pins",
            [
                '"pins/a.crt" is neither PEM nor DER nor base64 of DER',
                '"pins/c.pem" is empty',
                '"pins/d.der" the certificate does not parse: ',
            ],
        ),
        (
            {"a.crt": pem(CLIENT) + pem(OTHER)[:-40]},
            "pins",
            ['"pins/a.crt" the PEM is damaged: 2 BEGIN lines and 1 END lines make 1 whole blocks'],
        ),
    ],
)
def test_a_directory_in_error(
    here: Site, files: dict[str, bytes], name: str, problems: list[str]
) -> None:
    """One file that does not parse keeps the gate from starting: no pin is lost in silence."""
    for file, content in files.items():
        here.write(f"pins/{file}", content)
    found = here.problems(server(rule(f'leaf_certificate_dir = "{name}"')))
    assert len(found) == len(problems)
    for line, expected in zip(found, problems, strict=True):
        assert line.startswith(PLACE + expected)


def test_a_directory_that_ends_as_a_file_does(here: Site) -> None:
    (here.directory / "pins" / "old.crt").mkdir()
    assert here.problems(server(rule('leaf_certificate_dir = "pins"'))) == [
        f'{PLACE}"pins/old.crt" is a directory, not a file'
    ]


def test_a_link_to_nowhere(here: Site) -> None:
    (here.directory / "pins" / "old.crt").symlink_to("nowhere")
    assert here.problems(server(rule('leaf_certificate_dir = "pins"'))) == [
        f'{PLACE}"pins/old.crt" no such file'
    ]


OWN = "which is the gate's own: name a directory that holds nothing else"
MIXED = """
server_certificate {
  public_key_file = "here/server.crt"
  private_key_file = "server.key"
}
client_certificate {
  ca_certificate_file = "bundle.crt"
  %s
}
"""


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ('leaf_certificate_dir = "."', 'leaf_certificate_dir: "." holds "gate.hcl"'),
        ('leaf_certificate_dir = "./pins/.."', 'leaf_certificate_dir: "./pins/.." holds "gate.h'),
        ('leaf_certificate_dir = "link"', 'leaf_certificate_dir: "link" holds "gate.hcl"'),
        ('leaf_certificate_dir = "here"', 'leaf_certificate_dir: "here" holds "server.crt"'),
        ('crl_dir = "lists"', 'crl_dir: "lists" holds "gate.hcl"'),
    ],
)
def test_a_directory_that_holds_what_is_the_gates_own(
    here: Site, stated: str, problem: str
) -> None:
    """A slip of a path, or an empty variable in one, must not pin everything beside the
    configuration."""
    (here.directory / "here").mkdir()
    (here.directory / "link").symlink_to(here.directory)
    (here.directory / "lists").symlink_to(".")
    here.write("here/server.crt", pki().server.pem)
    here.write("one.crl", ROOT_LIST.public_bytes(Encoding.PEM))
    found = here.problems(server(MIXED % stated))
    assert any(problem in one and OWN in one for one in found), found


def test_a_directory_beside_the_configuration_is_fine(here: Site) -> None:
    """Also if the file is a link to somewhere else, as in a container."""
    here.write("pins/a.crt", pem(CLIENT))
    assert len(only(here, rule('leaf_certificate_dir = "pins"')).pins) == 1


def test_what_many_servers_name_is_held_once(here: Site) -> None:
    """Lists, CAs and pins, from files and from directories."""
    here.write("one.crl", ISSUING_LIST.public_bytes(Encoding.PEM))
    here.write("crls/root.crl", ROOT_LIST.public_bytes(Encoding.PEM))
    here.write("pins/a.crt", pem(CLIENT))
    text = server(
        rule(
            'ca_certificate_file = "bundle.crt"\nleaf_certificate_dir = "pins"\n'
            'crl_file = "one.crl"\ncrl_dir = "crls"'
        )
    )
    rules: list[Rule] = []
    for loaded in here.load(text * 3).servers:
        assert loaded.gate.context.admission is not None
        rules += loaded.gate.context.admission.rules
    for read in (
        lambda one: one.revocation.lists,
        lambda one: one.authorities,
        lambda one: one.pins,
    ):
        assert len({tuple(map(id, read(one))) for one in rules}) == 1


def test_what_many_servers_name_is_read_once(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the file: keys and certificates of servers, CAs, pins and lists."""
    here.write("one.crl", ISSUING_LIST.public_bytes(Encoding.PEM))
    here.write("crls/root.crl", ROOT_LIST.public_bytes(Encoding.PEM))
    here.write("pins/a.crt", pem(CLIENT))
    text = server(
        'server_certificate {\npublic_key_file = "server.crt"\n'
        'private_key_file = "server.key"\n}\n'
        + rule(
            'ca_certificate_file = "bundle.crt"\nleaf_certificate_dir = "pins"\n'
            'leaf_certificate_file = "clients.crt"\ncrl_file = "one.crl"\ncrl_dir = "crls"'
        )
    )
    read: list[str] = []

    def counting(path: Path, *arguments: Any) -> bytes:
        read.append(path.name)
        return read_file(path, *arguments)

    monkeypatch.setattr("mtlsgate.load.disk.read_file", counting)
    here.load(text * 3)
    assert sorted(read) == [
        *("a.crt", "bundle.crt", "clients.crt", "gate.hcl", "one.crl", "root.crl"),
        *("server.crt", "server.key"),
    ]


# crl_file, crl_dir


def revocation(here: Site, body: str) -> Revocation:
    found = only(here, rule(f'ca_certificate_file = "bundle.crt"\n{body}')).revocation
    assert found is not None
    return found


ROOT_LIST = crl(pki().root, now=NOW)
ISSUING_LIST = crl(pki().issuing, [pki().client], now=NOW)


@pytest.mark.parametrize(
    ("body", "issuers"),
    [
        ('crl_file = "one.crl"', ["Issuing CA"]),
        ('crl_file = "one.der"', ["Issuing CA"]),
        ('crl_file = "two.crl"', ["Root CA", "Issuing CA"]),
        ('crl_dir = "crls"', ["Issuing CA", "Root CA", "Issuing CA", "Root CA"]),
        (
            'crl_file = "one.crl"\ncrl_dir = "crls"',
            ["Issuing CA", "Issuing CA", "Root CA", "Issuing CA", "Root CA"],
        ),
    ],
)
def test_revocation_lists(here: Site, body: str, issuers: list[str]) -> None:
    """PEM or DER, one or many, from a file, a directory or both."""
    both = ROOT_LIST.public_bytes(Encoding.PEM) + ISSUING_LIST.public_bytes(Encoding.PEM)
    for name, content in {
        "one.crl": ISSUING_LIST.public_bytes(Encoding.PEM),
        "one.der": ISSUING_LIST.public_bytes(Encoding.DER),
        "two.crl": both,
        "crls/a.pem": ISSUING_LIST.public_bytes(Encoding.PEM),
        "crls/b.CRL": both,
        "crls/c.der": ROOT_LIST.public_bytes(Encoding.DER),
        "crls/d.crt": b"no list",
    }.items():
        here.write(name, content)
    lists = revocation(here, body).lists
    found = [one.issuer.rfc4514_string().removeprefix("CN=") for one in lists]
    assert found == issuers


@pytest.mark.parametrize("scope", ["path", "leaf", None])
def test_the_scope_of_revocation(here: Site, scope: str | None) -> None:
    """By default every certificate below the CA needs a list."""
    here.write("one.crl", crl(pki().issuing, now=NOW).public_bytes(Encoding.PEM))
    stated = "" if scope is None else f'crl_scope = "{scope}"'
    found = revocation(here, f'crl_file = "one.crl"\n{stated}')
    assert found.scope == (scope or "path")
    verdict = found.judge(views((CLIENT, pki().issuing.certificate, pki().root.certificate)), NOW)
    expected = None if scope == "leaf" else Reason.CRL_MISSING
    assert (verdict and verdict.reason) is expected


def test_no_revocation_unless_asked_for(here: Site) -> None:
    assert only(here, rule('ca_certificate_file = "root.crt"')).revocation is None


def test_a_revoked_client_of_a_whole_file(here: Site) -> None:
    here.write("one.crl", ISSUING_LIST.public_bytes(Encoding.DER))
    text = rule('ca_certificate_file = "issuing.crt"\ncrl_file = "one.crl"')
    admission = here.load(server(text)).servers[0].gate.context.admission
    assert admission is not None
    verdict = admission.judge(views((CLIENT, pki().issuing.certificate)), NOW)
    assert isinstance(verdict, Rejection)
    assert (verdict.reason, verdict.depth) == (Reason.REVOKED, 0)


DELTA = x509.DeltaCRLIndicator(1)
INDIRECT = x509.IssuingDistributionPoint(None, None, False, False, None, True, False)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('crl_file = "none.crl"', '7:1: client_certificate: crl_file: "none.crl" no such file'),
        (
            'crl_file = "crls"',
            '7:1: client_certificate: crl_file: "crls" is a directory, not a file',
        ),
        (
            'crl_file = "root.crt"',
            '7:1: client_certificate: crl_file: "root.crt" PEM block 1 of 1 is a CERTIFICATE, '
            "not an X509 CRL",
        ),
        (
            'crl_file = "delta.crl"',
            '7:1: client_certificate: crl_file: "delta.crl" has the delta CRL of "CN=Root CA" of '
            "2026-06-15T11:00:00+00:00: a complete one is needed",
        ),
        (
            'crl_file = "indirect.crl"',
            '7:1: client_certificate: crl_file: "indirect.crl" the CRL is an indirect CRL: one '
            "by the CA itself is needed",
        ),
        (
            'crl_file = "mixed.crl"',
            '7:1: client_certificate: crl_file: "mixed.crl" has the delta CRL of "CN=Root CA" of '
            "2026-06-15T11:30:00+00:00, which revokes certificates that no complete one revokes: "
            "a newer complete one is needed",
        ),
        (
            'crl_dir = "none"',
            '7:11: client_certificate: crl_dir: "none" no such directory',
        ),
        (
            'crl_dir = "root.crt"',
            '7:11: client_certificate: crl_dir: "root.crt" is not a directory',
        ),
        (
            'crl_dir = "pins"',
            '7:11: client_certificate: crl_dir: "pins" holds no file that ends in .pem, .crl, .der',
        ),
        (
            'crl_dir = "crls"',
            '7:11: client_certificate: crl_dir: "crls" has the delta CRL of "CN=Root CA" of '
            "2026-06-15T11:00:00+00:00: a complete one is needed",
        ),
    ],
)
def test_lists_in_error(here: Site, body: str, problem: str) -> None:
    delta = crl(pki().root, now=NOW, extensions=[(DELTA, True)]).public_bytes(Encoding.PEM)
    here.write("delta.crl", delta)
    here.write("crls/a.crl", delta)
    later: Any = {"this_update": NOW - timedelta(minutes=30), "number": 2}
    newer = crl(pki().root, [77], now=NOW, extensions=[(DELTA, True)], **later)
    here.write("mixed.crl", ROOT_LIST.public_bytes(Encoding.PEM) + newer.public_bytes(Encoding.PEM))
    here.write(
        "indirect.crl",
        crl(pki().root, now=NOW, extensions=[(INDIRECT, True)]).public_bytes(Encoding.DER),
    )
    text = server(rule(f'ca_certificate_file = "root.crt"\n{body}'))
    assert here.problems(text) == [problem]


def test_a_delta_that_is_not_needed(here: Site) -> None:
    """It is left out, and a warning says so."""
    delta = crl(pki().root, now=NOW, extensions=[(DELTA, True)]).public_bytes(Encoding.PEM)
    here.write("crls/base.crl", ROOT_LIST.public_bytes(Encoding.PEM))
    here.write("crls/delta.crl", delta)
    epoch = here.load(server(rule('ca_certificate_file = "root.crt"\ncrl_dir = "crls"')))
    [found] = epoch.servers[0].gate.context.admission.rules[0].revocation.lists  # type: ignore[union-attr]
    assert not found.is_delta
    [warning] = [one.text for one in epoch.warnings if "delta" in one.text]
    assert warning == (
        'crl_dir: "crls" has the delta CRL of "CN=Root CA" of 2026-06-15T11:00:00+00:00, which '
        "is left out"
    )


def test_compatible_takes_lists_without_a_number(here: Site) -> None:
    """Some tools leave the CRL number out, which RFC 5280 demands."""
    bare = crl(pki().root, now=NOW, number=None)
    here.write("bare.crl", bare.public_bytes(Encoding.PEM))
    text = rule('ca_certificate_file = "root.crt"\ncrl_file = "bare.crl"')
    [problem] = here.problems(server(text))
    assert problem.startswith('7:1: client_certificate: crl_file: "bare.crl" the CRL has no CRL')
    assert only(here, f'verification = "compatible"\n{text}').revocation is not None


# Private keys

KEY = """\
server_certificate "A" {
public_key_file = "server.crt"
private_key_file = "server.key"
}
client_certificate {
ca_certificate_file = "root.crt"
}"""


@pytest.mark.parametrize(
    ("mode", "warned"),
    [(0o600, False), (0o640, False), (0o400, False), (0o644, True), (0o604, True), (0o664, True)],
)
def test_a_key_that_all_may_read_is_warned_of(here: Site, mode: int, warned: bool) -> None:
    (here.directory / "server.key").chmod(mode)
    assert here.warnings(server(KEY)) == warned * [
        '7:1: server_certificate "A": private_key_file: "server.key" may be read by everybody on '
        "this machine: chmod o-r it"
    ]


def test_a_link_to_a_key_is_judged_by_the_key(here: Site) -> None:
    (here.directory / "server.key").rename(here.directory / "real.key")
    (here.directory / "server.key").symlink_to("real.key")
    assert here.warnings(server(KEY)) == []
    (here.directory / "real.key").chmod(0o644)
    assert len(here.warnings(server(KEY))) == 1


def test_a_key_from_elsewhere_has_no_mode(here: Site) -> None:
    (here.directory / "server.key").chmod(0o644)
    text = KEY.replace("private_key_file = ", "private_key = file(").replace('.key"', '.key")')
    assert here.warnings(server(text)) == []


def test_a_key_in_error_is_not_warned_of(here: Site) -> None:
    here.write("server.key", b"no key")
    (here.directory / "server.key").chmod(0o644)
    [problem] = here.problems(server(KEY))
    assert "is not a private key" in problem or "is neither PEM nor DER" in problem
