"""What OpenSSL says, translated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from OpenSSL import SSL
from OpenSSL.crypto import Error as CryptoError
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.reasons import Reason
from mtlsgate.tls import openssl_errors as verification
from mtlsgate.tls.openssl_errors import handshake_rejection, verification_rejection

SOURCE = Path(__file__).parent.parent.parent / "mtlsgate"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (2, Reason.UNKNOWN_CA),
        (7, Reason.BAD_SIGNATURE),
        (9, Reason.NOT_YET_VALID),
        (10, Reason.EXPIRED),
        (18, Reason.UNKNOWN_CA),
        (19, Reason.UNKNOWN_CA),
        (20, Reason.UNKNOWN_CA),
        (21, Reason.UNKNOWN_CA),
        (22, Reason.PATH_TOO_LONG),
        (25, Reason.PATH_TOO_LONG),
        (26, Reason.WRONG_PURPOSE),
        (32, Reason.INVALID_CA),
        (34, Reason.MALFORMED_CERTIFICATE),
        (41, Reason.MALFORMED_CERTIFICATE),
        (47, Reason.NAME_CONSTRAINT),
        (48, Reason.NAME_CONSTRAINT),
        (66, Reason.WEAK_KEY),
        (67, Reason.WEAK_KEY),
        (68, Reason.WEAK_KEY),
        (79, Reason.INVALID_CA),
        (85, Reason.PROFILE_VIOLATION),
        (92, Reason.PROFILE_VIOLATION),
        (93, Reason.PROFILE_VIOLATION),
    ],
)
def test_a_verification_error_has_a_reason_and_depth(error: int, reason: Reason) -> None:
    """A verification error is a reason at the depth that it was found at."""
    rejection = verification_rejection(error, error % 8)
    assert (rejection.reason, rejection.depth) == (reason, error % 8)
    assert f"(X509 error {error})" in rejection.detail


@pytest.mark.parametrize("error", [-1, 0, 1, 3, 50, 999, 2**31])
def test_unknown_verification_error(error: int) -> None:
    """A code without an entry, or OpenSSL's next, is a rejection all the same."""
    rejection = verification_rejection(error, 2)
    assert (rejection.reason, rejection.depth) == (Reason.PROTOCOL_ERROR, 2)
    assert str(error) in rejection.detail


def test_details_are_one_line() -> None:
    """Each is the end of a sentence: what it says of the certificate at that depth."""
    for _, meaning in verification._VERIFY_ERRORS.values():
        assert meaning.isprintable()
        assert meaning == meaning.strip(" .")


def ssl(*reasons: str) -> SSL.Error:
    """As pyOpenSSL raises it: a queue of (library, function, reason)."""
    return SSL.Error([("SSL routines", "", reason) for reason in reasons])


#: The shapes and words that pyOpenSSL 26 with OpenSSL 4.0 was seen to raise.
HANDSHAKES: list[tuple[BaseException, Reason]] = [
    (ssl("peer did not return a certificate"), Reason.NO_CERTIFICATE),
    (ssl("http request"), Reason.NOT_TLS),
    (ssl("https proxy request"), Reason.NOT_TLS),
    (ssl("wrong version number"), Reason.NOT_TLS),
    (ssl("packet length too long"), Reason.NOT_TLS),
    (ssl("unsupported protocol"), Reason.UNSUPPORTED_TLS),
    (ssl("unknown protocol"), Reason.UNSUPPORTED_TLS),
    (ssl("version too low"), Reason.UNSUPPORTED_TLS),
    (ssl("inappropriate fallback"), Reason.UNSUPPORTED_TLS),
    (ssl("no shared cipher"), Reason.UNSUPPORTED_TLS),
    (ssl("no suitable key share"), Reason.UNSUPPORTED_TLS),
    (ssl("no suitable signature algorithm"), Reason.UNSUPPORTED_TLS),
    (ssl("bad signature"), Reason.BAD_SIGNATURE),
    (ssl("bad ecc cert"), Reason.MALFORMED_CERTIFICATE),
    (ssl("unknown certificate type"), Reason.MALFORMED_CERTIFICATE),
    (ssl("unexpected eof while reading"), Reason.PEER_GONE),
    (ssl("tlsv1 alert unknown ca"), Reason.PEER_ALERT),
    (ssl("ssl/tls alert bad certificate"), Reason.PEER_ALERT),
    (ssl("tlsv13 alert certificate required"), Reason.PEER_ALERT),
    (ssl("length mismatch"), Reason.PROTOCOL_ERROR),
    (ssl("something that OpenSSL 5 says"), Reason.PROTOCOL_ERROR),
    # The queue holds causes first; whichever is known counts.
    (ssl("invalid encoding", "bad ecc cert"), Reason.MALFORMED_CERTIFICATE),
    (ssl("something", "no shared cipher"), Reason.UNSUPPORTED_TLS),
    (SSL.Error([]), Reason.PROTOCOL_ERROR),
    (SSL.Error(), Reason.PEER_GONE),
    (SSL.ZeroReturnError(), Reason.PEER_GONE),
    (SSL.SysCallError(-1, "Unexpected EOF"), Reason.PEER_GONE),
    (SSL.SysCallError(104, "ECONNRESET"), Reason.PROTOCOL_ERROR),
    (ConnectionDone(), Reason.PEER_GONE),
    (ConnectionLost(), Reason.PEER_GONE),
    (ConnectionAborted(), Reason.PEER_GONE),
    # Nothing that the TLS layer is known to raise.
    (IndexError("x"), Reason.INTERNAL_ERROR),
    (CryptoError([("a", "b", "c")]), Reason.INTERNAL_ERROR),
]


@pytest.mark.parametrize(("error", "reason"), HANDSHAKES, ids=lambda one: repr(one)[:60])
def test_a_failed_handshake_has_a_reason(error: Exception, reason: Reason) -> None:
    """Whatever ends a handshake has a reason, and no certificate to blame."""
    rejection = handshake_rejection(Failure(error))
    assert (rejection.reason, rejection.depth) == (reason, None)
    assert rejection.detail


def test_alert_is_told() -> None:
    rejection = handshake_rejection(Failure(ssl("tlsv1 alert unknown ca")))
    assert "tlsv1 alert unknown ca" in rejection.detail


def test_unknown_errors_are_told() -> None:
    """What the gate has no words for is passed on in OpenSSL's."""
    assert handshake_rejection(Failure(ssl("One", "two"))).detail == "one; two"


def test_exceptions_are_not_told() -> None:
    """What an unforeseen exception says could be anything."""
    assert "secret" not in handshake_rejection(Failure(ValueError("secret"))).detail


def test_every_reason_has_a_cause() -> None:
    """Each of the words that a verdict on a handshake needs is said by something."""
    said = {reason for reason, _ in verification._VERIFY_ERRORS.values()}
    said |= {reason for _, reason, _ in verification._HANDSHAKE_ERRORS}
    for module in SOURCE.rglob("*.py"):
        text = module.read_text()
        said |= {Reason[name] for name in re.findall(r"Reason\.([A-Z_]+)", text)}
    assert said >= {
        Reason.NO_CERTIFICATE,
        Reason.UNKNOWN_CA,
        Reason.LEAF_MISMATCH,
        Reason.EXPIRED,
        Reason.NOT_YET_VALID,
        Reason.WRONG_PURPOSE,
        Reason.CA_AS_LEAF,
        Reason.BAD_SIGNATURE,
        Reason.WEAK_KEY,
        Reason.PATH_TOO_LONG,
        Reason.NAME_CONSTRAINT,
        Reason.INVALID_CA,
        Reason.PROFILE_VIOLATION,
        Reason.MALFORMED_CERTIFICATE,
        Reason.NOT_TLS,
        Reason.UNSUPPORTED_TLS,
        Reason.PROTOCOL_ERROR,
        Reason.PEER_ALERT,
        Reason.HANDSHAKE_TIMEOUT,
        Reason.PEER_GONE,
        Reason.INTERNAL_ERROR,
    }


def test_reasons_are_their_own_text() -> None:
    """What is logged is what the enum is called, for ever."""
    for reason in Reason:
        assert reason.value == reason.name.lower()
        assert f"{reason}" == reason.value


def test_every_reason_is_documented() -> None:
    """docs/reasons.md has an entry for each."""
    page = SOURCE.parent / "docs" / "reasons.md"
    if not page.exists():
        pytest.skip("installed without its docs")
    headings = re.findall(r"^(?:#+ |\()`?([a-z_]+)`?", page.read_text(), re.MULTILINE)
    assert set(Reason) <= set(headings)


def test_rejections_are_values() -> None:
    assert verification_rejection(10, 0) == verification_rejection(10, 0)
    assert isinstance(verification_rejection(10, 0), Rejection)
