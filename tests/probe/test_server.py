"""
What the probe says of a server's certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mtlsgate.certificates.certificate import view
from mtlsgate.probe import (
    Verdict,
    describe,
    name_problem,
)
from mtlsgate.testing import Authority, Credential, self_signed
from tests.kits.forgery import edited, present
from tests.kits.probe import (
    SHORT,
    Tls,
    authority,
    both_versions,
    client_authority,
    knock,
    past,
    server,
    server_context,
    tls_server,
)


def unnamed() -> Credential:
    return authority().issue("localhost", usages=["server_auth"])


BAD_SERVERS: list[tuple[str, Callable[[], Credential], str, str]] = [
    ("expired", lambda: server(not_after=past(3)), "NOT VERIFIED: expired", "matches"),
    (
        "not yet valid",
        lambda: server(not_before=past(-3)),
        "NOT VERIFIED: not yet valid",
        "matches",
    ),
    (
        "wrong name",
        lambda: server(dns_names=["a.example", "b.example"], ip_addresses=["192.0.2.1"]),
        "the chain leads to a CA in --ca",
        "NO MATCH: the certificate is for a.example, b.example, 192.0.2.1",
    ),
    (
        "no SAN",
        unnamed,
        "the chain leads to a CA in --ca",
        "NO MATCH: the certificate has neither DNS name nor IP address (a common name is none)",
    ),
    (
        "self-signed",
        lambda: self_signed("s", dns_names=["localhost"], usages=["server_auth"]),
        "NOT VERIFIED: self-signed, and not in --ca",
        "matches",
    ),
    (
        "unknown CA",
        lambda: client_authority().issue("s", dns_names=["localhost"], usages=["server_auth"]),
        "NOT VERIFIED: the issuer is unknown, neither in --ca nor sent along: CN=Client CA",
        "matches",
    ),
    (
        "for clients",
        lambda: server(usages=["client_auth"]),
        "NOT VERIFIED: not meant for TLS servers (extended key usage)",
        "matches",
    ),
    (
        "missing intermediate and expired",
        lambda: Credential(*leaf_and_key(authority().intermediate("Middle"), past(1))),
        "NOT VERIFIED: the issuer is unknown, neither in --ca nor sent along: CN=Middle; expired",
        "matches",
    ),
    (
        "expired intermediate",
        lambda: (
            authority()
            .intermediate("Middle", not_after=past(1))
            .issue("s", dns_names=["localhost"], usages=["server_auth"])
        ),
        "NOT VERIFIED: CN=Middle: expired",
        "matches",
    ),
]


def leaf_and_key(issuer: Authority, until: datetime) -> tuple[x509.Certificate, Any]:
    made = issuer.issue("s", dns_names=["localhost"], usages=["server_auth"], not_after=until)
    return made.certificate, made.private_key


@both_versions
@pytest.mark.parametrize(
    ("make", "verified", "name"), [row[1:] for row in BAD_SERVERS], ids=[r[0] for r in BAD_SERVERS]
)
def test_a_bad_server_certificate(
    make: Callable[[], Credential], verified: str, name: str, tls: Tls
) -> None:
    """Each defect is said, and with --ca the exit status is 1 though the client is admitted."""
    outcome = knock(tls_server(server_context(make())), ca=authority(), tls=tls, wait=SHORT)
    lines = describe(outcome)
    assert f"verified   {verified}" in lines
    assert f"name       localhost: {name}" in lines
    assert lines[-1] == "but        the server did not prove that it is the one you meant"
    assert (outcome.verdict, outcome.exit_status) == (Verdict.ADMITTED, 1)


def test_without_a_ca_nothing_counts_as_verified() -> None:
    """The verdict alone decides the exit status, and the words claim nothing."""
    outcome = knock(tls_server(server_context(server(not_after=past(3)))), wait=SHORT)
    assert (outcome.verified, outcome.exit_status) == (None, 0)
    lines = describe(outcome)
    assert "server     CN=server, issued by CN=Server CA, EXPIRED 3 days ago" in lines
    assert "verified   not verified: no --ca was given" in lines


def test_a_server_key_that_openssl_refuses() -> None:
    """A server too weak for other clients does not verify."""
    weak = rsa.generate_private_key(65537, 1024)
    leaf = server(key=weak)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    context.use_certificate(leaf.certificate)
    context.use_privatekey(leaf.private_key)
    outcome = knock(tls_server(context), ca=authority(), wait=SHORT)
    assert "verified   NOT VERIFIED: the key is too weak" in describe(outcome)
    assert outcome.exit_status == 1


def test_ca_may_be_anything_in_the_path() -> None:
    """An intermediate will do for --ca, and so will a self-signed leaf itself."""
    middle = authority().intermediate()
    below = middle.issue("s", dns_names=["localhost"], usages=["server_auth"])
    alone = self_signed("s", dns_names=["localhost"], usages=["server_auth"])
    for shown, ca in ((below, middle), (alone, alone)):
        outcome = knock(tls_server(server_context(shown)), ca=ca, wait=SHORT)
        assert (outcome.verified, outcome.exit_status) == (True, 0)


def test_an_address_is_looked_for_among_addresses() -> None:
    """An IP address is matched by service-identity as such, and not sent as SNI."""
    seen = []
    context = server_context(server(dns_names=[], ip_addresses=["127.0.0.1"]))
    handle = tls_server(
        context, lambda connection, _socket: seen.append(connection.get_servername())
    )
    outcome = knock(handle, ca=authority(), wait=SHORT, server_name="127.0.0.1")
    assert (outcome.name_matches, outcome.exit_status, seen) == (True, 0, [None])
    handle = tls_server(server_context(server(dns_names=["127.0.0.1"])))
    outcome = knock(handle, ca=authority(), wait=SHORT, server_name="127.0.0.1")
    assert (outcome.name_matches, outcome.exit_status) == (False, 1)


def test_the_name_is_sent() -> None:
    """A name goes into SNI."""
    seen = []
    context = server_context(server(dns_names=["*.gate.example"]))
    handle = tls_server(
        context, lambda connection, _socket: seen.append(connection.get_servername())
    )
    outcome = knock(handle, ca=authority(), wait=SHORT, server_name="a.gate.example")
    assert (outcome.name_matches, seen) == (True, [b"a.gate.example"])


def test_a_server_certificate_that_does_not_parse() -> None:
    """A name that cannot be read matches nothing."""
    leaf = server(dns_names=["a.b.example"])
    der = edited(authority(), leaf, b"\x82\x0ba.b.example", b"\x81\x0b\xff.b.example")
    handle = tls_server(server_context(leaf), before=lambda connection: present(connection, der))
    outcome = knock(handle, ca=authority(), wait=SHORT, server_name="a.b.example")
    assert (outcome.name_matches, outcome.exit_status) == (False, 1)
    [name] = [line for line in describe(outcome) if line.startswith("name ")]
    assert "NO MATCH: the certificate has neither DNS name nor IP address" in name


def test_a_subject_that_does_not_parse() -> None:
    """A subject that is no text harms nobody: no name of a server is in it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "ZZ")])
    leaf = server(subject=subject)
    der = edited(authority(), leaf, b"\x13\x02ZZ", b"\x13\x02\xff\xff")
    handle = tls_server(server_context(leaf), before=lambda connection: present(connection, der))
    outcome = knock(handle, wait=SHORT)
    lines = describe(outcome)
    assert any(line.startswith("server     C=#ffff, ") for line in lines)
    assert "name       localhost: matches" in lines


NAMES = [
    (["localhost"], [], "LOCALHOST", None),
    (["*.gate.example"], [], "a.gate.example", None),
    (["*.gate.example"], [], "a.b.gate.example", "the certificate is for *.gate.example"),
    (["localhost", "*.example"], [], "localhost", "the certificate's names cannot be used: "),
    (["xn--bcher-kva.example"], [], "xn--bcher-kva.example", None),
    ([], ["::1"], "::1", None),
    ([], ["::1"], "0:0:0:0:0:0:0:1", None),
    ([], ["::1"], "127.0.0.1", "the certificate is for ::1"),
    (["a*.example"], [], "ab.example", "the certificate's names cannot be used: "),
    (["a.example"], [], "2130706433", "the names cannot be compared: "),
    (
        ["a", "b", "c", "d", "e", "f", "g"],
        [],
        "h",
        "the certificate is for a, b, c, d, e, 2 more",
    ),
]


@pytest.mark.parametrize(("names", "addresses", "wanted", "problem"), NAMES)
def test_a_name_that_is_not_affirmed_is_a_mismatch(
    names: list[str], addresses: list[str], wanted: str, problem: str | None
) -> None:
    """Whatever service-identity does not affirm is a mismatch."""
    shown = server(dns_names=names, ip_addresses=addresses)
    found = name_problem(view(shown.certificate), wanted)
    assert found == problem or (problem is not None and str(found).startswith(problem))


def test_a_name_of_another_kind_that_is_odd() -> None:
    """A URI that service-identity does not take harms no other name."""
    shown = server(dns_names=["a.example"], uris=["spiffe://td:8443/x"])
    assert name_problem(view(shown.certificate), "a.example") is None


def test_other_names_are_no_names() -> None:
    """A URI or an email address does not name a server."""
    shown = authority().issue("localhost", uris=["spiffe://td/x"], email_addresses=["a@localhost"])
    assert name_problem(view(shown.certificate), "localhost") == (
        "the certificate has neither DNS name nor IP address (a common name is none)"
    )
