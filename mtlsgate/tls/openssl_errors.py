"""
OpenSSL's errors as `Rejection` values.

There are two tables: certificate verification errors (``X509_V_ERR_…`` in OpenSSL's
x509_vfy.h) and handshake errors (reason strings from its error queue).
"""

from __future__ import annotations

from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.reasons import Reason
from mtlsgate.starttls import plain_protocol

#: The exception that a failing TLS connection raises.
TlsError = SSL.Error

#: The exceptions that OpenSSL raises for bad certificates and keys.
REFUSALS = (SSL.Error, crypto.Error)

#: X509_V_ERR_… to the reason, and what it means for the certificate at that depth.
_VERIFY_ERRORS: dict[int, tuple[Reason, str]] = {
    2: (Reason.UNKNOWN_CA, "its issuer is no configured CA and was not sent along"),
    4: (Reason.BAD_SIGNATURE, "its signature cannot be decrypted"),
    6: (Reason.MALFORMED_CERTIFICATE, "the public key of its issuer does not parse"),
    7: (
        Reason.BAD_SIGNATURE,
        "its signature is not by the CA that it names: it was changed, or it comes from "
        "another CA of the same name",
    ),
    9: (Reason.NOT_YET_VALID, "its validity has not begun"),
    10: (Reason.EXPIRED, "its validity has ended"),
    13: (Reason.MALFORMED_CERTIFICATE, "its notBefore is no time"),
    14: (Reason.MALFORMED_CERTIFICATE, "its notAfter is no time"),
    18: (Reason.UNKNOWN_CA, "it is self-signed, and not pinned by a rule without a CA"),
    19: (Reason.UNKNOWN_CA, "the path ends in a self-signed CA that is not a configured one"),
    20: (Reason.UNKNOWN_CA, "its issuer is no configured CA and was not sent along"),
    21: (Reason.UNKNOWN_CA, "no configured CA issued it, and no intermediate was sent along"),
    22: (Reason.PATH_TOO_LONG, "the path is longer than the gate follows"),
    24: (Reason.MALFORMED_CERTIFICATE, "its issuer has no public key"),
    25: (Reason.PATH_TOO_LONG, "more intermediates follow than the CA's path length allows"),
    26: (Reason.WRONG_PURPOSE, "it may not be used for TLS client authentication"),
    27: (Reason.UNKNOWN_CA, "it is not trusted"),
    28: (Reason.WRONG_PURPOSE, "it is marked as rejected for TLS client authentication"),
    29: (Reason.UNKNOWN_CA, "the subject of its issuer is not the issuer that it names"),
    30: (Reason.UNKNOWN_CA, "its authority key identifier is not the key of its issuer"),
    31: (Reason.UNKNOWN_CA, "its authority key identifier names another issuer"),
    32: (Reason.INVALID_CA, "its key usage does not allow signing certificates"),
    34: (Reason.MALFORMED_CERTIFICATE, "it holds a critical extension that is not understood"),
    37: (Reason.INVALID_CA, "it is no CA, but is marked as one"),
    38: (Reason.PATH_TOO_LONG, "its proxy path length is exceeded"),
    39: (Reason.WRONG_PURPOSE, "its key usage does not allow digital signatures"),
    40: (Reason.WRONG_PURPOSE, "proxy certificates are not accepted"),
    41: (Reason.MALFORMED_CERTIFICATE, "one of its extensions does not parse"),
    42: (Reason.MALFORMED_CERTIFICATE, "its certificate policies do not parse"),
    43: (Reason.PROFILE_VIOLATION, "it has none of the policies asked for"),
    45: (Reason.MALFORMED_CERTIFICATE, "it uses an extension in a way that is not supported"),
    46: (Reason.NAME_CONSTRAINT, "its RFC 3779 resources lie outside those of its issuer"),
    47: (Reason.NAME_CONSTRAINT, "one of its names lies outside what a CA above permits"),
    48: (Reason.NAME_CONSTRAINT, "one of its names lies in what a CA above excludes"),
    49: (Reason.NAME_CONSTRAINT, "a CA above constrains names by minimum and maximum"),
    51: (Reason.NAME_CONSTRAINT, "a CA above constrains a kind of name that is not supported"),
    52: (Reason.NAME_CONSTRAINT, "a name constraint of a CA above does not parse"),
    53: (Reason.NAME_CONSTRAINT, "one of its names does not parse, so no constraint can hold"),
    55: (Reason.PATH_TOO_LONG, "the path runs in a circle"),
    66: (Reason.WEAK_KEY, "its key is too weak"),
    67: (Reason.WEAK_KEY, "the key of its CA is too weak"),
    68: (Reason.WEAK_KEY, "it is signed with a digest that is too weak"),
    76: (Reason.BAD_SIGNATURE, "its signature algorithm is not known"),
    77: (Reason.BAD_SIGNATURE, "its signature algorithm does not fit the key of its issuer"),
    78: (Reason.BAD_SIGNATURE, "its two signature algorithm fields differ"),
    79: (Reason.INVALID_CA, "it issued a certificate but is not a CA"),
    80: (Reason.PROFILE_VIOLATION, "it sets a path length but is not a CA"),
    81: (Reason.PROFILE_VIOLATION, "it sets a path length but may not sign certificates"),
    82: (Reason.PROFILE_VIOLATION, "it may sign certificates but is not a CA"),
    83: (Reason.PROFILE_VIOLATION, "it names no issuer"),
    84: (Reason.PROFILE_VIOLATION, "it has no subject"),
    85: (Reason.PROFILE_VIOLATION, "it has no authority key identifier"),
    86: (Reason.PROFILE_VIOLATION, "it is a CA without a subject key identifier"),
    87: (Reason.PROFILE_VIOLATION, "its subject alternative name is empty"),
    88: (
        Reason.PROFILE_VIOLATION,
        "its subject is empty, but its subject alternative name is not critical",
    ),
    89: (Reason.PROFILE_VIOLATION, "it is a CA whose basic constraints are not critical"),
    90: (Reason.PROFILE_VIOLATION, "its authority key identifier is critical"),
    91: (Reason.PROFILE_VIOLATION, "its subject key identifier is critical"),
    92: (Reason.PROFILE_VIOLATION, "it is a CA without a key usage"),
    93: (Reason.PROFILE_VIOLATION, "it has extensions but is not of version 3"),
    94: (Reason.PROFILE_VIOLATION, "its EC key spells out its curve"),
    102: (Reason.PROFILE_VIOLATION, "its authority key identifier is empty"),
    103: (
        Reason.PROFILE_VIOLATION,
        "its authority key identifier has only one of issuer and serial number",
    ),
}

#: Parts of OpenSSL's reason strings, with the reason and what it means.  The first
#: match is used.
_HANDSHAKE_ERRORS: tuple[tuple[str, Reason, str], ...] = (
    ("peer did not return a certificate", Reason.NO_CERTIFICATE, "the client sent no certificate"),
    ("http request", Reason.NOT_TLS, "an HTTP request without TLS"),
    ("https proxy request", Reason.NOT_TLS, "an HTTP proxy request without TLS"),
    ("wrong version number", Reason.NOT_TLS, "what arrived is no TLS record"),
    ("packet length too long", Reason.NOT_TLS, "what arrived is no TLS record"),
    ("unsupported protocol", Reason.UNSUPPORTED_TLS, "no TLS version in common"),
    ("no protocols available", Reason.UNSUPPORTED_TLS, "no TLS version in common"),
    ("unknown protocol", Reason.UNSUPPORTED_TLS, "no TLS version in common"),
    ("version too low", Reason.UNSUPPORTED_TLS, "no TLS version in common"),
    ("inappropriate fallback", Reason.UNSUPPORTED_TLS, "the client fell back to an older TLS"),
    ("no shared cipher", Reason.UNSUPPORTED_TLS, "no cipher suite in common"),
    ("no suitable key share", Reason.UNSUPPORTED_TLS, "no key exchange group in common"),
    ("no shared group", Reason.UNSUPPORTED_TLS, "no key exchange group in common"),
    ("no suitable signature algorithm", Reason.UNSUPPORTED_TLS, "no signature scheme in common"),
    ("no shared signature algorithms", Reason.UNSUPPORTED_TLS, "no signature scheme in common"),
    ("bad signature", Reason.BAD_SIGNATURE, "the client did not prove that it holds the key"),
    ("bad ecc cert", Reason.MALFORMED_CERTIFICATE, "the certificate's public key does not parse"),
    (
        "unable to find public key parameters",
        Reason.MALFORMED_CERTIFICATE,
        "the certificate's public key does not parse",
    ),
    (
        "unknown certificate type",
        Reason.MALFORMED_CERTIFICATE,
        "the certificate's public key is of a kind that TLS cannot use",
    ),
    ("unexpected eof", Reason.PEER_GONE, "the client went away in the handshake"),
)


#: For the alert: certificate_revoked, certificate_expired, unknown_ca,
#: unsupported_certificate, internal_error.
_ERROR_OF: dict[Reason | None, int] = {
    Reason.REVOKED: 23,
    Reason.EXPIRED: 10,
    Reason.UNKNOWN_CA: 20,
    Reason.WRONG_PURPOSE: 26,
    Reason.INTERNAL_ERROR: 1,
    None: 1,
}


def verification_rejection(error: int, depth: int) -> Rejection:
    """
    :param error: the verification error, as X509_V_ERR_….
    :param depth: the depth of the certificate at fault; 0 is the leaf.
    """
    reason, meaning = _VERIFY_ERRORS.get(
        error, (Reason.PROTOCOL_ERROR, "OpenSSL's verification failed")
    )
    return Rejection(reason, f"{meaning} (X509 error {error})", depth)


def verification_error(verdict: object) -> int:
    """
    :param verdict: the gate's verdict on a client that OpenSSL verified.
    :returns: the X509_V_ERR_… whose alert fits the verdict best.
    """
    reason = verdict.reason if isinstance(verdict, Rejection) else None
    return _ERROR_OF.get(reason, 28)  # X509_V_ERR_CERT_REJECTED: bad_certificate


def handshake_rejection(failure: Failure, beginning: bytes = b"") -> Rejection:
    """
    :param failure: why the connection ended before its handshake was complete.
    :param beginning: the first bytes from the client.
    :returns: the rejection.  Use it if the client's certificate was not the cause.
    """
    error = failure.value
    if isinstance(error, ConnectionClosed) or (isinstance(error, SSL.Error) and not error.args):
        return Rejection(Reason.PEER_GONE, "the client went away in the handshake")
    if not isinstance(error, SSL.Error):
        return Rejection(Reason.INTERNAL_ERROR, type(error).__name__)
    said = _reason_strings(error)
    for text in said:
        for part, reason, meaning in _HANDSHAKE_ERRORS:
            if part in text:
                plain = plain_protocol(beginning) if reason is Reason.NOT_TLS else None
                return Rejection(reason, meaning if plain is None else plain.words)
    for text in said:
        # OpenSSL queues the other side's alerts as "… alert …".
        if " alert " in f" {text} ":
            return Rejection(
                Reason.PEER_ALERT, f"the client broke off the handshake with the alert: {text}"
            )
    return Rejection(Reason.PROTOCOL_ERROR, "; ".join(said) or type(error).__name__)


def is_end_of_stream(error: Exception) -> bool:
    """:returns: whether the other side closed the connection without close_notify."""
    if not isinstance(error, SSL.Error):
        return False
    # OpenSSL 4 gives no reason in this case.
    return not error.args or any(one.startswith("unexpected eof") for one in _reason_strings(error))


def reasons_of(error: Exception) -> str:
    """:returns: the reasons in an error from OpenSSL or the system."""
    return "; ".join(_reasons(error)) or "no reason given"


def last_reason(error: Exception) -> str | None:
    """:returns: the latest of these reasons, or None."""
    reasons = _reasons(error)
    return reasons[-1] if reasons else None


def _reason_strings(error: SSL.Error) -> list[str]:
    """:returns: the reasons, lower case."""
    return [one.lower() for one in _reasons(error)]


def _reasons(error: Exception) -> list[str]:
    """:returns: the reason strings of OpenSSL's error queue, the oldest first."""
    queue = error.args[0] if error.args else []
    if isinstance(error, SSL.SysCallError) or not isinstance(queue, list):
        return [str(error.args[-1])]
    return [str(entry[-1]) for entry in queue]
