"""OCSP responses about a server's own certificate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.ocsp import Stapling, demands_stapling, stapling_of
from mtlsgate.clock import utc_now
from mtlsgate.errors import CredentialError
from mtlsgate.testing import Authority
from tests.kits.ocsp import REVOKED, UNKNOWN, response, with_responder

NOW = utc_now().replace(microsecond=0)
CA, OTHER = Authority.create("CA"), Authority.create("CA")
URL = "http://ocsp.example/"
SERVER, ANOTHER = with_responder(CA, URL), with_responder(CA, URL)
DELEGATE = CA.issue("responder", usages=["ocsp_signing"])


def certificates(*given: Any) -> list[Certificate]:
    return [Certificate(one.public_bytes(Encoding.DER)) for one in given]


def stapling() -> Stapling:
    return stapling_of(*certificates(SERVER.certificate, CA.certificate))


def answer(**options: Any) -> bytes:
    return response(SERVER, CA, now=NOW, **options)


def test_the_responder_comes_from_the_certificate() -> None:
    """The request is about this certificate, by the digest that all responders know."""
    found = stapling()
    assert found.url == URL
    request = ocsp.load_der_ocsp_request(found.request())
    assert request.serial_number == SERVER.certificate.serial_number
    assert isinstance(request.hash_algorithm, SHA1)


def test_a_certificate_without_a_responder_cannot_be_stapled() -> None:
    """The message says why, and what to do."""
    plain = CA.issue("server", usages=["server_auth"])
    with pytest.raises(CredentialError, match="remove ocsp_stapling"):
        stapling_of(*certificates(plain.certificate, CA.certificate))
    with pytest.raises(CredentialError, match="append it"):
        stapling_of(certificates(SERVER.certificate)[0], None)


@pytest.mark.parametrize("options", [{}, {"responder": DELEGATE}])
def test_a_good_response_counts_to_its_own_end(options: Any) -> None:
    """By the CA itself, or by whom it delegates that to."""
    data = answer(**options)
    found = stapling().responded(data, NOW).response
    assert found is not None
    assert found.der == data
    assert found.this_update == NOW - timedelta(hours=1)
    assert found.next_update == NOW - timedelta(hours=1) + timedelta(days=4)


@pytest.mark.parametrize("key", ["rsa", "p384"])
def test_signatures_of_each_kind_are_checked(key: str) -> None:
    made = rsa.generate_private_key(65537, 2048) if key == "rsa" else None
    authority = Authority.create(key=made or ec.generate_private_key(ec.SECP384R1()))
    server = with_responder(authority, URL)
    known = stapling_of(*certificates(server.certificate, authority.certificate))
    assert known.responded(response(server, authority, now=NOW), NOW).response is not None


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "garbage": (lambda: b"<html>", "does not parse"),
    "an error": (
        lambda: ocsp.OCSPResponseBuilder.build_unsuccessful(
            ocsp.OCSPResponseStatus.TRY_LATER
        ).public_bytes(Encoding.DER),
        'is an error of the responder, "try_later"',
    ),
    "of another certificate": (
        lambda: response(ANOTHER, CA, now=NOW),
        "is about another certificate",
    ),
    "of another issuer": (lambda: response(SERVER, OTHER, now=NOW), "about another certificate"),
    "forged": (
        lambda: response(SERVER, CA, now=NOW, responder=OTHER.issue("x", usages=["ocsp_signing"])),
        "is not signed by the certificate's CA or its responder",
    ),
    "by a leaf": (lambda: answer(responder=CA.issue("x")), "is not signed"),
    "by an old delegate": (
        lambda: answer(
            responder=CA.issue(
                "x",
                usages=["ocsp_signing"],
                not_before=NOW - timedelta(days=9),
                not_after=NOW - timedelta(days=1),
            )
        ),
        "is not signed",
    ),
    "by an unknown delegate": (lambda: answer(responder=DELEGATE, embedded=False), "not signed"),
    "revoked": (lambda: answer(status=REVOKED), "the gate's own certificate is revoked since"),
    "unknown": (lambda: answer(status=UNKNOWN), "the responder does not know the certificate"),
    "expired": (lambda: answer(life=timedelta(minutes=59)), "expired at"),
    "of tomorrow": (lambda: answer(age=timedelta(days=-1)), "is not yet valid"),
    "endless": (lambda: answer(life=None), "would never expire"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_must_not_be_stapled_is_refused(kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(CredentialError, match=words):
        stapling().responded(make(), NOW)


def test_an_older_response_is_refused() -> None:
    """Nobody in the network can bring one back."""
    newer = stapling().responded(answer(), NOW)
    with pytest.raises(CredentialError, match="older"):
        newer.responded(answer(age=timedelta(hours=2)), NOW)


def test_some_certificates_demand_stapling() -> None:
    """RFC 7633."""
    demanding = with_responder(CA, URL, must_staple=True)
    found = certificates(demanding.certificate, SERVER.certificate)
    assert [demands_stapling(one) for one in found] == [True, False]
