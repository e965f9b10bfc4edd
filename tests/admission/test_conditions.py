"""What ``allow`` and ``deny`` blocks ask of a leaf, as decision tables."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from mtlsgate.admission.conditions import Condition, Leaf, clause, read_value
from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.config import model
from mtlsgate.testing import Authority
from tests.kits.forgery import edited
from tests.kits.pki import Site, server, site

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SPIFFE = "spiffe://td.example/fleet/a"


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


ISSUER = name(
    (NameOID.COUNTRY_NAME, "DE"),
    (NameOID.ORGANIZATION_NAME, "Acme, Inc. + Sons"),
    (NameOID.COMMON_NAME, "Issuing #1"),
)
CA = Authority.create("x", subject=ISSUER, now=NOW)
MADE = CA.issue(
    "device-7",
    organization="Acme",
    organizational_unit="Fleet",
    dns_names=["A.example", "b.example"],
    uris=[SPIFFE],
    email_addresses=["Ops@example.org"],
    ip_addresses=["10.1.2.3", "2001:db8::1"],
    serial=0x0ABC01,
    now=NOW,
)
LEAF = Leaf(view(MADE.certificate))
BARE = Leaf(view(CA.issue(None, now=NOW).certificate))
SPKI = hashlib.sha256(LEAF.certificate.spki).hexdigest()
#: What looks like a DNS name, a URI and so on, but stands in the subject only.
PRETENDER = Leaf(
    view(
        CA.issue(
            None,
            subject=name(
                (NameOID.COMMON_NAME, "a.example"),
                (NameOID.COMMON_NAME, SPIFFE),
                (NameOID.COMMON_NAME, "10.1.2.3"),
                (NameOID.EMAIL_ADDRESS, "Ops@example.org"),
            ),
            now=NOW,
        ).certificate
    )
)


def condition(stated: Mapping[str, Sequence[str]]) -> Condition:
    return Condition(
        tuple(
            clause(attribute, {value: read_value(attribute, value) for value in values})
            for attribute, values in stated.items()
        )
    )


def holds(leaf: Leaf, **stated: Sequence[str]) -> bool:
    """:returns: whether a block with these attributes holds of a leaf, which is
    the same for ``allow`` and ``deny`` but where a test says otherwise."""
    read = condition(stated)
    assert read.allows(leaf) is read.denies(leaf)
    return read.allows(leaf)


ATTRIBUTES: list[tuple[str, str, bool]] = [
    ("common_names", "device-7", True),
    ("common_names", "Device-7", False),
    ("common_names", "device", False),
    ("common_names", "device-*", False),
    ("common_names", "*", False),
    ("organizations", "Acme", True),
    ("organizations", "acme", False),
    ("organizations", "Fleet", False),
    ("organizational_units", "Fleet", True),
    ("organizational_units", "Acme", False),
    ("dns_names", "a.example", True),
    ("dns_names", "A.EXAMPLE.", True),
    ("dns_names", "b.example", True),
    ("dns_names", "*.example", True),
    ("dns_names", "c.example", False),
    ("dns_names", "*.a.example", False),
    ("dns_names", "device-7", False),
    ("uris", SPIFFE, True),
    ("uris", "spiffe://td.example/*/a", True),
    ("uris", "spiffe://td.example/fleet", False),
    ("email_addresses", "Ops@example.org", True),
    ("email_addresses", "ops@example.org", False),
    ("email_addresses", "*@example.org", False),
    ("email_addresses", "example.org", False),
    ("ip_addresses", "10.1.2.3", True),
    ("ip_addresses", "10.1.2.0/24", True),
    ("ip_addresses", "10.1.2.3/32", True),
    ("ip_addresses", "10.1.3.0/24", False),
    ("ip_addresses", "10.1.2.4", False),
    ("ip_addresses", "2001:db8::1", True),
    ("ip_addresses", "2001:DB8:0:0::1", True),
    ("ip_addresses", "2001:db8::/32", True),
    ("ip_addresses", "2001:db9::/32", False),
    ("ip_addresses", "::ffff:10.1.2.3", False),
    ("spiffe_ids", SPIFFE, True),
    ("spiffe_ids", "spiffe://td.example/fleet/*", True),
    ("spiffe_ids", "spiffe://td.example/**", True),
    ("spiffe_ids", "spiffe://td.example/*", False),
    ("spiffe_ids", "spiffe://other.example/**", False),
    ("sha256", MADE.sha256, True),
    ("sha256", MADE.sha256.upper(), True),
    ("sha256", ":".join(MADE.sha256[at : at + 2] for at in range(0, 64, 2)), True),
    ("sha256", SPKI, False),
    ("spki_sha256", SPKI, True),
    ("spki_sha256", SPKI.upper(), True),
    ("spki_sha256", b64encode(bytes.fromhex(SPKI)).decode(), True),
    ("spki_sha256", MADE.sha256, False),
    ("spki_sha256", b64encode(bytes(32)).decode(), False),
    ("serial_numbers", "0abc01", True),
    ("serial_numbers", "ABC01", True),
    ("serial_numbers", "0A:BC:01", True),
    ("serial_numbers", "000000abc01", True),
    ("serial_numbers", "703489", False),
    ("serial_numbers", "-abc01", False),
    ("serial_numbers", "abc0", False),
    ("issuers", ISSUER.rfc4514_string(), True),
    ("issuers", "CN=Issuing #1,O=Acme\\, Inc. \\+ Sons,C=DE", True),
    ("issuers", "CN=Issuing \\231,O=Acme\\2c Inc. \\2B Sons,C=DE", True),
    ("issuers", "2.5.4.3=Issuing #1,O=Acme\\, Inc. \\+ Sons,C=DE", True),
    ("issuers", "C=DE,O=Acme\\, Inc. \\+ Sons,CN=Issuing #1", False),
    ("issuers", "CN=Issuing #1,O=Acme\\, Inc. \\+ Sons", False),
    ("issuers", "CN=Issuing #1+O=Acme\\, Inc. \\+ Sons,C=DE", False),
    ("issuers", "CN=issuing #1,O=Acme\\, Inc. \\+ Sons,C=DE", True),
    ("issuers", "CN=Issuing  #1,O=Acme\\, Inc. \\+ Sons,C=DE", True),
    ("issuers", "CN=Issuing#1,O=Acme\\, Inc. \\+ Sons,C=DE", False),
    ("issuers", "CN=device-7,OU=Fleet,O=Acme", False),
]


@pytest.mark.parametrize(("attribute", "value", "expected"), ATTRIBUTES)
def test_each_attribute_matches_its_names_exactly(
    attribute: str, value: str, expected: bool
) -> None:
    """Names match exactly, in the place that the attribute says and no other."""
    assert holds(LEAF, **{attribute: [value]}) is expected


@pytest.mark.parametrize("attribute", sorted({row[0] for row in ATTRIBUTES}))
def test_what_a_leaf_lacks(attribute: str) -> None:
    """A leaf without names has none of them, and its own fingerprint all the same."""
    values = [value for each, value, expected in ATTRIBUTES if each == attribute and expected]
    assert holds(BARE, **{attribute: values}) is (attribute == "issuers")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("dns_names", "a.example"),
        ("dns_names", "*.example"),
        ("uris", SPIFFE),
        ("spiffe_ids", SPIFFE),
        ("ip_addresses", "10.1.2.3"),
        ("email_addresses", "Ops@example.org"),
    ],
)
def test_common_names_are_common_names(attribute: str, value: str) -> None:
    """The subject is never taken for a subject alternative name."""
    assert not holds(PRETENDER, **{attribute: [value]})
    assert holds(PRETENDER, common_names=["a.example"])


def test_common_names_are_not_dns_names() -> None:
    """... nor the other way round."""
    assert not holds(LEAF, common_names=["a.example", "A.example"])
    assert not holds(PRETENDER, common_names=["*.example"])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"common_names": ["x", "device-7", "y"]}, True),
        ({"common_names": ["x", "y"]}, False),
        ({"common_names": ["device-7"], "organizations": ["Acme"]}, True),
        ({"common_names": ["x", "device-7"], "organizations": ["y", "Acme"]}, True),
        ({"common_names": ["device-7"], "organizations": ["x"]}, False),
        ({"common_names": ["x"], "organizations": ["Acme"]}, False),
        ({"dns_names": ["*.example"], "serial_numbers": ["abc01"], "sha256": [SPKI]}, False),
        ({"dns_names": ["*.example"], "serial_numbers": ["abc01"], "spki_sha256": [SPKI]}, True),
    ],
)
def test_any_of_a_list_and_all_of_a_block(stated: dict[str, list[str]], expected: bool) -> None:
    assert holds(LEAF, **stated) is expected


def test_key_pins_survive_a_new_certificate() -> None:
    """... for the same key; a fingerprint does not."""
    again = Leaf(view(CA.issue("another", key=MADE.private_key, now=NOW).certificate))
    assert holds(again, spki_sha256=[SPKI])
    assert not holds(again, sha256=[MADE.sha256])
    stranger = Leaf(view(CA.issue("device-7", now=NOW).certificate))
    assert not holds(stranger, spki_sha256=[SPKI])


def test_several_values_of_a_name() -> None:
    """A subject may have several common names: each counts."""
    assert holds(PRETENDER, common_names=[SPIFFE])
    assert holds(PRETENDER, common_names=["10.1.2.3"])


def test_networks_in_a_certificate() -> None:
    """A network in a leaf, which is for constraints, is no address of it."""
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))])
    leaf = Leaf(view(CA.issue("a", extra_extensions=[(names, False)], now=NOW).certificate))
    for text in ("10.0.0.0/8", "10.0.0.0", "192.0.2.1"):
        read = condition({"ip_addresses": [text]})
        assert not read.allows(leaf)
        # What cannot be read saves nobody from a deny.
        assert read.denies(leaf)


def of_uris(*uris: str) -> Leaf:
    return Leaf(view(CA.issue("a", uris=uris, now=NOW).certificate))


@pytest.mark.parametrize("uris", [(SPIFFE, "https://h/"), ("https://h/", SPIFFE), (SPIFFE,) * 2])
def test_a_spiffe_id_is_alone(uris: tuple[str, ...]) -> None:
    """With a second URI it is no SPIFFE ID (SPIFFE X509-SVID, 2) to allow anything;
    to deny, it is."""
    read = condition({"spiffe_ids": ["spiffe://td.example/**"]})
    assert not read.allows(of_uris(*uris))
    assert read.denies(of_uris(*uris))
    assert holds(of_uris(*uris), uris=[SPIFFE])


@pytest.mark.parametrize("attribute", ["uris", "spiffe_ids"])
@pytest.mark.parametrize("segment", ["a%2Fb", "..", "%2e%2e", "", "a\\b", "a%00"])
def test_odd_names_are_denied_and_not_allowed(attribute: str, segment: str) -> None:
    """Whoever denies a whole directory means these, too."""
    read = condition({attribute: ["spiffe://td.example/fleet/*"]})
    leaf = of_uris(f"spiffe://td.example/fleet/{segment}")
    assert not read.allows(leaf)
    assert read.denies(leaf)


def test_a_name_that_only_lower_case_makes_ascii_does_not_match() -> None:
    """A DNS name that is no ASCII, and becomes one by ``str.lower``, is another."""
    made = CA.issue("leaf", dns_names=["kxx.example"], now=NOW)
    forged = edited(CA, made, b"kxx.example", "\N{KELVIN SIGN}.example".encode())
    leaf = Leaf(Certificate(forged))
    assert leaf.certificate.names.dns == ("\N{KELVIN SIGN}.example",)
    for name in ("k.example", "*.example"):
        assert not condition({"dns_names": [name]}).allows(leaf)
    assert condition({"dns_names": ["*.example"]}).denies(leaf)


def test_bytes_after_a_nul_count() -> None:
    """What stands behind a NUL counts."""
    made = CA.issue("leaf", dns_names=["good.example.xevil.example"], now=NOW)
    leaf = Leaf(Certificate(edited(CA, made, b"good.example.x", b"good.example.\0")))
    assert not holds(leaf, dns_names=["good.example"])
    assert not condition({"dns_names": ["*.evil.example", "*.example"]}).allows(leaf)


HEX = "is no SHA-256 fingerprint: 64 hex digits, with or without colons"
KEY = "is no SHA-256 of a public key: 64 hex digits, or base64 of 32 bytes"
SERIAL = "is no serial number: write it in hex, with or without colons"

WRONG: list[tuple[str, str, str]] = [
    *(
        (attribute, "", "is empty")
        for attribute in (
            "common_names",
            "organizations",
            "organizational_units",
            "dns_names",
            "uris",
            "email_addresses",
            "issuers",
        )
    ),
    ("dns_names", "a.*", 'a "*" is one whole label, and the first: write "*.b.example"'),
    ("uris", "**", "would match everything"),
    ("spiffe_ids", "spiffe://*/a", "a pattern never crosses trust domains: name one"),
    ("spiffe_ids", "", 'is no SPIFFE ID: write "spiffe://trust-domain/path"'),
    ("ip_addresses", "0.0.0.0/0", "would match everything"),
    ("ip_addresses", "::/0", "would match everything"),
    ("ip_addresses", "10.0.0.1/8", "is no IP address or network: 10.0.0.1/8 has host bits set"),
    ("ip_addresses", "10.0.0.0/255.0.0.0/8", "is no IP address or network: "),
    ("ip_addresses", "10.0.0.*", "is no IP address or network: "),
    ("ip_addresses", "", "is no IP address or network: "),
    ("ip_addresses", "localhost", "is no IP address or network: "),
    ("sha256", "", HEX),
    ("sha256", "ab", HEX),
    ("sha256", "ab" * 32 + "ab", HEX),
    ("sha256", "xy" * 32, HEX),
    ("sha256", b64encode(bytes(32)).decode(), HEX),
    ("spki_sha256", "", KEY),
    ("spki_sha256", "ab" * 20, KEY),
    ("spki_sha256", b64encode(bytes(31)).decode(), KEY),
    ("spki_sha256", "sha256/" + b64encode(bytes(32)).decode(), KEY),
    ("spki_sha256", "ä", KEY),
    ("serial_numbers", "", SERIAL),
    ("serial_numbers", "0xab", SERIAL),
    ("serial_numbers", "xyz", SERIAL),
    ("serial_numbers", "-", SERIAL),
    ("serial_numbers", "1" * 65, SERIAL),
    ("serial_numbers", "١٢", SERIAL),
    ("issuers", "Acme", "is no RFC 4514 name: write"),
    ("issuers", "CN=a,,O=b", "is no RFC 4514 name: write"),
    ("issuers", "XX=a", "is no RFC 4514 name: write"),
]


@pytest.mark.parametrize(("attribute", "value", "problem"), WRONG)
def test_values_that_cannot_be_read(attribute: str, value: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(problem)):
        read_value(attribute, value)


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


@pytest.mark.parametrize(
    ("kind", "attribute", "value", "problem"),
    [
        # One wrong value of each attribute: what is wrong with the others is tested above.
        *(("allow", *row) for row in {row[0]: row for row in WRONG if row[1]}.values()),
        ("deny", *WRONG[0]),
    ],
)
def test_they_are_located(here: Site, kind: str, attribute: str, value: str, problem: str) -> None:
    """... at the value itself, in a list of several."""
    good = next(row[1] for row in ATTRIBUTES if row[0] == attribute)
    listed = ",\n".join('"' + one.replace("\\", "\\\\") + '"' for one in (good, value))
    rule = f'client_certificate {{\nca_certificate_file = "root.crt"\n{kind} {{\n'
    [found] = here.problems(server(f"{rule}{attribute} = [{listed}]\n}}\n}}"))
    assert found.startswith(f"9:1: {kind}: {attribute}: ")
    assert problem in found


def test_every_attribute_is_tried() -> None:
    attributes = {one.name for one in attrs.fields(model.ConditionBlock)} - {"at"}
    assert {row[0] for row in ATTRIBUTES} == attributes
