"""
What OpenSSL takes and no rule asks for is nobody's business: certificates with odd
fields are read everywhere, and keep nobody out.
"""

from __future__ import annotations

from base64 import encodebytes
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509

from mtlsgate.admission import Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.certificates.names import COMMON_NAME
from mtlsgate.certificates.parsing import ServerCredential, parse_certificates
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Version
from tests.kits.forgery import present, present_also, raw, tlv
from tests.kits.gate import Log, MemoryGate, admitted, condition, rejected, rule
from tests.kits.hostile import name
from tests.kits.odd_encodings import LEAVES, LOOSE_LEAVES, UNREADABLE
from tests.kits.pki import Site, server, site
from tests.kits.revocation import crl, der

ROOT, OTHER = Authority.create("Root"), Authority.create("Other")
HOLDER = ROOT.issue("holder")
KEY = HOLDER.private_key
KEY_ID = "2.5.29.14"
KEY_IDENTIFIER = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())


@cache
def leaf(kind: str) -> bytes:
    return raw(ROOT, KEY, **{**LEAVES, **LOOSE_LEAVES}[kind])


@cache
def authority(kind: str) -> bytes:
    """:returns: an intermediate CA with such a field, that has the holder's key."""
    shape: dict[str, Any] = dict(LEAVES[kind])
    shape["extensions"] = [
        ("!2.5.29.19", b"\x30\x03\x01\x01\xff"),
        ("!2.5.29.15", b"\x03\x02\x01\x86"),
        (KEY_ID, KEY_IDENTIFIER.public_bytes()),
        *shape.get("extensions", ()),
    ]
    return raw(ROOT, KEY, **{"subject": name(b"Odd CA"), **shape})


@cache
def client_of(kind: str) -> bytes:
    """:returns: a leaf of the odd CA."""
    issuer = Authority(HOLDER.certificate, KEY)
    named = ("2.5.29.35", tlv(0x30, tlv(0x80, KEY_IDENTIFIER.digest)))
    subject = Certificate(authority(kind)).subject.der
    return raw(issuer, KEY, extensions=[named], issuer_name=subject)


def pem(encoded: bytes) -> bytes:
    body = encodebytes(encoded)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def judged(gate: MemoryGate, encoded: bytes, version: Version, chain: Any = ()) -> object:
    client = gate.connect(HOLDER, version, chain=chain)
    present(client.connection, encoded)
    return gate.judge(client)


@pytest.mark.parametrize("kind", LEAVES)
def test_a_leaf(log: Log, version: Version, kind: str) -> None:
    """It comes in by its CA, and as a pin out of a file, however strict the gate is."""
    [pin] = parse_certificates(pem(leaf(kind)))
    for strict in (True, False):
        for rules in (
            [rule(ca=ROOT)],
            [Rule("rule", pins=(pin,))],
            [Rule("rule", (ROOT.certificate,), (pin,))],
        ):
            gate = MemoryGate(rules, log, strict=strict)
            assert judged(gate, leaf(kind), version) == admitted(), (strict, rules)


@pytest.mark.parametrize("kind", LOOSE_LEAVES)
def test_a_leaf_that_violates_the_profile(log: Log, version: Version, kind: str) -> None:
    """It comes in if nobody is strict."""
    [pin] = parse_certificates(leaf(kind))
    for one in (rule(ca=ROOT), Rule("rule", (ROOT.certificate,), (pin,))):
        gate = MemoryGate([one], log, strict=False)
        assert judged(gate, leaf(kind), version) == admitted()
        gate = MemoryGate([one], log)
        assert judged(gate, leaf(kind), version).reason in (  # type: ignore[attr-defined]
            None,
            Reason.PROFILE_VIOLATION,
        )


@pytest.mark.parametrize("kind", LEAVES)
def test_a_ca(log: Log, version: Version, kind: str) -> None:
    """One of a bundle that has such a field does not refuse the whole bundle; its
    clients come in, as the rule's CA and as one between."""
    bundle = pem(authority(kind)) + OTHER.pem
    one = Rule("rule", parse_certificates(bundle))
    for strict in (True, False):
        gate = MemoryGate([one], log, strict=strict)
        assert judged(gate, client_of(kind), version) == admitted(), strict
        assert gate.try_in(OTHER.issue("other"), version) == admitted()
        gate = MemoryGate([rule(ca=ROOT)], log, strict=strict)
        client = gate.connect(HOLDER, version, chain=())
        present(client.connection, client_of(kind))
        present_also(client.connection, authority(kind))
        assert gate.judge(client) == admitted(), strict


@pytest.mark.parametrize("kind", ["PrintableString with an asterisk", "T61String in Latin-1"])
def test_names_that_are_asked_for(log: Log, version: Version, kind: str) -> None:
    """They match as they read."""
    [value] = [one.text for one in Certificate(leaf(kind)).subject.attributes(COMMON_NAME)]
    assert value is not None
    mine, other = condition(common_names=[value]), condition(common_names=["other"])
    everyone = rule(ca=ROOT)
    for one, expected in (
        (evolve(everyone, allow=(mine,)), admitted()),
        (evolve(everyone, allow=(other,)), rejected(Reason.NOT_ALLOWED)),
        (evolve(everyone, deny=(mine,)), rejected(Reason.DENIED)),
        (evolve(everyone, deny=(other,)), admitted()),
    ):
        assert judged(MemoryGate([one], log), leaf(kind), version) == expected


@pytest.mark.parametrize("kind", ["PrintableString with an asterisk", "notice in Latin-1"])
def test_a_server_certificate(log: Log, version: Version, kind: str) -> None:
    """The gate shows one with such a field itself."""
    credential = ServerCredential(parse_certificates(pem(leaf(kind))), KEY)
    gate = MemoryGate([rule(ca=ROOT)], log, credentials=(credential,))
    assert gate.try_in(HOLDER, version) == admitted()


@pytest.mark.parametrize("kind", ["PrintableString with an asterisk", "T61String in Latin-1"])
def test_a_revocation_list(log: Log, version: Version, kind: str) -> None:
    """The list of a CA with such a name is found, in whatever type it has the name."""
    certificate = Certificate(authority(kind))
    [text] = [one.text for one in certificate.subject.attributes(COMMON_NAME)]
    assert text is not None
    spelt = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text.upper())])
    twin = Authority.create("twin", subject=spelt, key=KEY)
    now = datetime.now(UTC)
    for serials, expected in (((), admitted()), ((1,), rejected(Reason.REVOKED))):
        lists = parse_crls(der(crl(twin, serials, now=now)))
        one = Rule("rule", (certificate,), revocation=Revocation(lists))
        gate = MemoryGate([one], log)
        assert judged(gate, client_of(kind), version) == expected


def test_what_an_application_gets(log: Log, version: Version) -> None:
    """Everything that is told of a peer but the object of cryptography."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    client = gate.connect(HOLDER, version)
    present(client.connection, leaf("PrintableString with an asterisk"))
    client.send(b"x")
    [protocol] = gate.recorder.protocols
    peer = protocol.peer
    assert peer is not None
    assert (peer.common_name, peer.subject) == ("*.corp.example", "CN=*.corp.example")
    assert peer.certificates[0].der == leaf("PrintableString with an asterisk")
    assert peer.to_dict()["fingerprint_sha256"] == peer.sha256
    with pytest.raises(ValueError, match="error parsing asn1 value"):
        _ = peer.leaf


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_openssl_cannot_read(here: Site, kind: str) -> None:
    """It is refused when it is loaded, and not by a traceback later."""
    here.write("odd.der", raw(ROOT, KEY, **UNREADABLE[kind]))
    for attribute in ("ca_certificate_file", "leaf_certificate_file"):
        [problem] = here.problems(server(f'client_certificate {{ {attribute} = "odd.der" }}'))
        assert "OpenSSL cannot read the certificate of" in problem
