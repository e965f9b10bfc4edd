"""
The words of mod_ssl, held against OpenSSL, which mod_ssl lets say them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address

from mtlsgate.certificates.certificate import view
from mtlsgate.peer import TlsFacts, VerifiedPeer
from mtlsgate.protocols.web.variables import connection_variables, days_left, distinguished_name
from mtlsgate.testing import Authority, Credential
from tests.kits.programs import program, run

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "web.md"

NAMES = [
    [(NameOID.COMMON_NAME, "alice")],
    [],
    [
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Bayern"),
        (NameOID.LOCALITY_NAME, "München"),
        (NameOID.ORGANIZATION_NAME, "Weiß & Söhne, GmbH"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "First"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Second"),
        (NameOID.COMMON_NAME, "日本"),
        (NameOID.EMAIL_ADDRESS, "a@example.com"),
    ],
    [
        (NameOID.TITLE, "Dr"),
        (NameOID.INITIALS, "A. B."),
        (NameOID.GIVEN_NAME, "Ada"),
        (NameOID.SURNAME, "Byron"),
        (x509.ObjectIdentifier("2.5.4.13"), "who"),
        (NameOID.USER_ID, "ada"),
        (NameOID.DOMAIN_COMPONENT, "example"),
        (NameOID.SERIAL_NUMBER, "17"),
        (NameOID.STREET_ADDRESS, "Road 1"),
        (NameOID.POSTAL_CODE, "12345"),
        (NameOID.PSEUDONYM, "p"),
        (NameOID.DN_QUALIFIER, "q"),
        (NameOID.GENERATION_QUALIFIER, "III"),
        (NameOID.BUSINESS_CATEGORY, "b"),
        (NameOID.ORGANIZATION_IDENTIFIER, "o"),
        (NameOID.JURISDICTION_COUNTRY_NAME, "DE"),
        (NameOID.JURISDICTION_LOCALITY_NAME, "l"),
        (NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME, "s"),
    ],
    [(NameOID.COMMON_NAME, ' #lead, tail+plus"quote\\back<less>more;semi=equals ')],
    [(NameOID.COMMON_NAME, "#hash")],
    [(NameOID.COMMON_NAME, "a\0b\nc\x7fd")],
    [(NameOID.COMMON_NAME, "x,CN=admin"), (NameOID.ORGANIZATION_NAME, "O/CN=root")],
]


def named(parts: list[tuple[x509.ObjectIdentifier, str]]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


@pytest.mark.parametrize("parts", NAMES)
def test_whole_names_are_openssls(
    parts: list[tuple[x509.ObjectIdentifier, str]], tmp_path: Path
) -> None:
    """SSL_CLIENT_S_DN is what ``openssl x509 -nameopt RFC2253`` prints."""
    credential = Authority.create().issue(None, subject=named(parts))
    (tmp_path / "one.pem").write_bytes(credential.pem)
    status, printed = run(
        program("openssl"), "x509", "-noout", "-subject", "-nameopt", "RFC2253",
        "-in", tmp_path / "one.pem",
    )  # fmt: skip
    assert status == 0
    expected = printed.removesuffix("\n").partition("=")[2]
    assert distinguished_name(view(credential.certificate).subject) == expected


def test_serial_number_and_times_are_openssls(tmp_path: Path) -> None:
    """... and so are these."""
    for serial in (1, 0x80, 0xABC, 1 << 100):
        credential = Authority.create().issue("alice", serial=serial)
        (tmp_path / "one.pem").write_bytes(credential.pem)
        status, printed = run(
            program("openssl"), "x509", "-noout", "-serial", "-dates", "-in", tmp_path / "one.pem"
        )
        assert status == 0
        told = variables(credential)
        assert printed.splitlines() == [
            f"serial={told['SSL_CLIENT_M_SERIAL']}",
            f"notBefore={told['SSL_CLIENT_V_START']}",
            f"notAfter={told['SSL_CLIENT_V_END']}",
        ]


def variables(credential: Credential, *issuers: Authority) -> dict[str, object]:
    peer = VerifiedPeer(
        path=(credential.certificate, *(one.certificate for one in issuers)),
        rule="rule",
        address=IPv4Address("TCP", "127.0.0.1", 1),
        server_name="gate.example",
        tls_version="TLSv1.3",
        cipher="TLS_AES_128_GCM_SHA256",
        group=None,
        alpn=None,
        resumed=True,
    )
    tls = TlsFacts("gate.example", "TLSv1.3", "TLS_AES_128_GCM_SHA256")
    return connection_variables(peer, tls)


def test_parts_of_names_are_numbered_from_the_second_on() -> None:
    """As mod_ssl does; UTF-8 as PEP 3333 has bytes."""
    subject = named(NAMES[2])
    told = variables(Authority.create("CA").issue(None, subject=subject))
    parts = {name.removeprefix("SSL_CLIENT_S_DN_"): told[name] for name in told if "_S_DN_" in name}
    assert parts == {
        "C": "DE",
        "ST": "Bayern",
        "L": "MÃ¼nchen",
        "O": "Weiß & Söhne, GmbH".encode().decode("latin-1"),
        "OU": "First",
        "OU_1": "Second",
        "CN": "日本".encode().decode("latin-1"),
        "Email": "a@example.com",
    }
    assert told["SSL_CLIENT_I_DN_CN"] == "CA"
    assert told["SSL_CLIENT_I_DN"] == "CN=CA"


def test_parts_of_names_are_one_line_and_whole() -> None:
    """Control characters are escaped, NUL and what follows it too, and so is what escapes."""
    told = variables(Authority.create("CA").issue("a\0b\nc\\0A"))
    assert told["SSL_CLIENT_S_DN_CN"] == "a\\00b\\0Ac\\\\0A"


def test_alternative_names_and_chain_are_numbered_from_zero() -> None:
    root = Authority.create("Root")
    issuing = root.intermediate("Issuing")
    alice = issuing.issue(
        "alice", dns_names=["a.example", "b.example"], email_addresses=["a@example.com"]
    )
    told = variables(alice, issuing, root)
    assert told["SSL_CLIENT_SAN_DNS_0"] == "a.example"
    assert told["SSL_CLIENT_SAN_DNS_1"] == "b.example"
    assert told["SSL_CLIENT_SAN_Email_0"] == "a@example.com"
    assert told["SSL_CLIENT_CERT"] == alice.pem.decode().partition("-----END")[0] + (
        "-----END CERTIFICATE-----\n"
    )
    assert told["SSL_CLIENT_CERT_CHAIN_0"] == issuing.pem.decode()
    assert told["SSL_CLIENT_CERT_CHAIN_1"] == root.pem.decode()
    assert told["SSL_CLIENT_M_VERSION"] == "3"
    assert told["SSL_TLS_SNI"] == "gate.example"
    assert told["SSL_SESSION_RESUMED"] == "Resumed"


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(days=10), "11"),
        (timedelta(days=1, seconds=-1), "1"),
        (timedelta(seconds=1), "1"),
        (timedelta(seconds=-1), "0"),
        (timedelta(days=-10), "0"),
    ],
)
def test_the_day_that_has_begun_counts(left: timedelta, expected: str) -> None:
    now = datetime(2026, 6, 15, tzinfo=UTC)
    assert days_left(now + left, now) == expected


@pytest.mark.skipif(not PAGE.exists(), reason="installed without its docs")
def test_every_name_is_documented() -> None:
    """In the table of web.md."""
    root = Authority.create("Root")
    alice = root.issue(
        None, subject=named(NAMES[2]), dns_names=["a.example"], email_addresses=["a@example.com"]
    )
    page = PAGE.read_text()
    for name in [*variables(alice, root), "SSL_CLIENT_V_REMAIN", "REMOTE_USER"]:
        kind = re.sub(r"(_[SI]_DN)_.*", r"\1_x", name)
        kind = re.sub(r"_[0-9]+$", "_n", kind)
        assert f"`{kind}`" in page or f'`environ["{kind}"]`' in page


def test_every_text_is_one_that_pep_3333_allows() -> None:
    """No character beyond latin-1 in any of them."""
    told = variables(Authority.create("CA").issue(None, subject=named(NAMES[2])))
    for name, value in told.items():
        if isinstance(value, str):
            value.encode("latin-1")
        else:
            assert name == "mtlsgate.peer"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\0b", "a\\00b"),
        ("a\nX: b", "a\\0AX: b"),
        ("a\\0Ab", "a\\\\0Ab"),
        ("a\x7f\x1b[0m", "a\\7F\\1B[0m"),
        ("plain.example", "plain.example"),
    ],
)
def test_every_name_is_escaped_alike(name: str, shown: str) -> None:
    """Parts of subject and issuer, alternative names and the server name: no control character
    reaches the application, and a backslash is never an escape of the client's own."""

    class Named(VerifiedPeer):
        dns_names = (name,)
        email_addresses = (name,)

    authority = Authority.create(name)
    leaf = authority.issue(name).certificate
    address = IPv4Address("TCP", "127.0.0.1", 1)
    peer = Named((leaf,), "rule", address, name, "TLSv1.3", "C", None, None)
    told = connection_variables(peer, TlsFacts(name, "TLSv1.3", "C"))
    for variable in (
        "SSL_CLIENT_S_DN_CN",
        "SSL_CLIENT_I_DN_CN",
        "SSL_CLIENT_SAN_DNS_0",
        "SSL_CLIENT_SAN_Email_0",
        "SSL_TLS_SNI",
    ):
        assert told[variable] == shown
    for variable, value in told.items():
        if isinstance(value, str) and "CERT" not in variable:
            assert not any(one < " " or one == "\x7f" for one in value)
