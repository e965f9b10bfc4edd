"""
Key exchange groups and alerts, which pyOpenSSL has no public way to choose.

If these tests fail after an upgrade of pyOpenSSL or cryptography, look at
`mtlsgate.tls.openssl_private`: it uses private names of pyOpenSSL.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from OpenSSL.crypto import X509StoreContextError

from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import Certificate, views
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Credential, Version
from mtlsgate.tls import openssl_private
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.openssl_private import use_elliptic_groups
from mtlsgate.tls.paths import verified_path
from tests.kits.gate import Log, MemoryGate, admitted, condition, past, rule
from tests.kits.revocation import crl, der

ROOT = Authority.create("Root")
ALICE, BOB = ROOT.issue("alice"), ROOT.issue("bob")


def only_group(client: Client, group: bytes) -> None:
    """Offer no other."""
    lib = Binding().lib
    assert lib.SSL_set1_curves_list(client.connection._ssl, group) == 1


@pytest.mark.parametrize("group", [b"ffdhe2048", b"ffdhe3072", b"ffdhe8192"])
def test_no_finite_fields(log: Log, group: bytes) -> None:
    """A client that can do nothing else is turned away before it costs anything."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    client = gate.connect(ALICE, "1.3")
    only_group(client, group)
    client.send(b"knock")
    assert not client.established
    assert log.only["reason"] == "unsupported_tls"


@pytest.mark.parametrize("group", [b"X25519", b"P-256", b"P-384", b"P-521", b"X448"])
def test_elliptic_curves(log: Log, group: bytes) -> None:
    """Nobody is kept out who can do any of OpenSSL's curves."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    client = gate.connect(ALICE, "1.3")
    only_group(client, group)
    assert gate.judge(client) == admitted()


def test_the_best_group_of_both(log: Log) -> None:
    """A post-quantum hybrid is chosen where both sides have it, as by default."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    client = gate.connect(ALICE, "1.3")
    assert gate.judge(client) == admitted()
    assert client.connection.get_group_name() == "X25519MLKEM768"


def test_no_groups_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenSSL does not take is an error, and not no limit."""
    monkeypatch.setattr(openssl_private, "_GROUPS", (b"nonsense",))
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    with pytest.raises(SSL.Error):
        use_elliptic_groups(context)


def revoking() -> Revocation:
    now = datetime.now(UTC)
    listed = crl(ROOT, [BOB], now=now)
    return Revocation(tuple(parse_crls(der(listed))))


@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("pin", "bad certificate"),
        ("allow", "bad certificate"),
        ("deny", "bad certificate"),
        ("revoked", "certificate revoked"),
        ("stranger", "unknown ca"),
        ("expired", "certificate expired"),
    ],
)
def test_the_alert_fits(log: Log, version: Version, kind: str, alert: str) -> None:
    """A rejected client is told by the alert what its certificate lacks."""
    who: Credential = BOB
    rules = [rule(ca=ROOT)]
    if kind == "pin":
        rules = [rule(ca=ROOT, pins=ALICE)]
    elif kind == "allow":
        rules = [evolve(rule(ca=ROOT), allow=(condition(common_names=["alice"]),))]
    elif kind == "deny":
        rules = [evolve(rule(ca=ROOT), deny=(condition(common_names=["bob"]),))]
    elif kind == "revoked":
        rules = [evolve(rule(ca=ROOT), revocation=revoking())]
    elif kind == "stranger":
        who = Authority.create("Other").issue("bob")
    else:
        who = ROOT.issue("bob", not_after=past())
    client = MemoryGate(rules, log).connect(who, version)
    client.send(b"knock")
    assert client.alert is not None
    assert alert in client.alert
    assert not client.established


def test_the_alert_of_a_late_verdict(log: Log, version: Version) -> None:
    """In TLS 1.2 a client that is rejected when its handshake is done is told so, too; in
    TLS 1.3 there is no way."""
    lower = ROOT.intermediate("Lower")
    gate = MemoryGate([rule("low", lower, lower.issue("x")), rule("other", ROOT, ALICE)], log)
    client = gate.connect(lower.issue("leaf"), version)
    client.send(b"knock")
    assert not client.established
    assert log.only["reason"] == "leaf_mismatch"
    if version == "1.2":
        assert client.alert is not None
        assert "bad certificate" in client.alert


def is_queue_empty() -> bool:
    return bool(Binding().lib.ERR_peek_error() == 0)


def spoilt() -> Certificate:
    """:returns: a certificate whose signature is not by the CA that it names."""
    return Certificate(ALICE.der[:-1] + bytes([ALICE.der[-1] ^ 1]))


def test_a_path_with_an_error_leaves_none_behind() -> None:
    """OpenSSL before 4.0 would take it for one of the next connection."""
    [anchor] = views((ROOT.certificate,))
    found = verified_path(spoilt(), (), (anchor,), 0, datetime.now(UTC))
    assert isinstance(found, X509StoreContextError)
    assert is_queue_empty()


def test_an_error_that_a_handshake_goes_on_from_is_forgotten(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no error of this connection yet, nor of any other ever."""
    shake, seen = EngineConnection.do_handshake, list[bool]()

    def look(self: EngineConnection) -> None:
        try:
            shake(self)
        finally:
            seen.append(is_queue_empty())

    monkeypatch.setattr(EngineConnection, "do_handshake", look)
    gate = MemoryGate([rule(ca=ROOT, pins=BOB)], log)
    forged = Credential(x509.load_der_x509_certificate(spoilt().der), ALICE.private_key)
    assert gate.try_in(forged, version).reason is Reason.BAD_SIGNATURE
    assert seen
    assert all(seen)
