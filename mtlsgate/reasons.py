"""
The closed vocabularies: why a client was rejected, and why a connection ended.

The log, metrics, tests and documentation share these enums.  Each member has an
entry with the same name in ``docs/reasons.md``.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

__all__ = ["About", "Cause", "Reason"]


class About(Enum):
    """What a rejection is about: a chapter of ``docs/reasons.md``."""

    CERTIFICATE = auto()
    REGISTRY = auto()
    CONNECTION = auto()
    LIMIT = auto()
    AUTHORIZER = auto()
    CLIENT_GATE = auto()
    GATE = auto()


class Reason(StrEnum):
    """
    Why a connection was not handed to the application.

    :ivar about: what the rejection is about.
    """

    about: About

    def __new__(cls, value: str, about: About | None = None) -> Reason:
        """
        :param value: as logs and metrics name it.
        :param about: every member states it; ``Reason("denied")``, which finds one, does not.
        """
        assert about is not None, value
        self = str.__new__(cls, value)
        self._value_ = value
        self.about = about
        return self

    NO_CERTIFICATE = "no_certificate", About.CERTIFICATE
    UNKNOWN_CA = "unknown_ca", About.CERTIFICATE
    LEAF_MISMATCH = "leaf_mismatch", About.CERTIFICATE
    EXPIRED = "expired", About.CERTIFICATE
    NOT_YET_VALID = "not_yet_valid", About.CERTIFICATE
    WRONG_PURPOSE = "wrong_purpose", About.CERTIFICATE
    CA_AS_LEAF = "ca_as_leaf", About.CERTIFICATE
    BAD_SIGNATURE = "bad_signature", About.CERTIFICATE
    WEAK_KEY = "weak_key", About.CERTIFICATE
    PATH_TOO_LONG = "path_too_long", About.CERTIFICATE
    NAME_CONSTRAINT = "name_constraint", About.CERTIFICATE
    INVALID_CA = "invalid_ca", About.CERTIFICATE
    PROFILE_VIOLATION = "profile_violation", About.CERTIFICATE
    MALFORMED_CERTIFICATE = "malformed_certificate", About.CERTIFICATE
    DENIED = "denied", About.CERTIFICATE
    NOT_ALLOWED = "not_allowed", About.CERTIFICATE
    PIN_NOT_YET_VALID = "pin_not_yet_valid", About.CERTIFICATE
    PIN_RETIRED = "pin_retired", About.CERTIFICATE
    REVOKED = "revoked", About.CERTIFICATE
    CRL_MISSING = "crl_missing", About.CERTIFICATE
    CRL_EXPIRED = "crl_expired", About.CERTIFICATE
    CRL_INVALID = "crl_invalid", About.CERTIFICATE
    VALIDATORS_DISAGREE = "validators_disagree", About.CERTIFICATE
    SVID_INVALID = "svid_invalid", About.CERTIFICATE
    WRONG_TRUST_DOMAIN = "wrong_trust_domain", About.CERTIFICATE
    BUNDLE_MISSING = "bundle_missing", About.CERTIFICATE

    NOT_REGISTERED = "not_registered", About.REGISTRY
    REGISTRY_DENIED = "registry_denied", About.REGISTRY
    REGISTRY_UNAVAILABLE = "registry_unavailable", About.REGISTRY

    UNKNOWN_SERVER_NAME = "unknown_server_name", About.CONNECTION
    NOT_RESUMABLE = "not_resumable", About.CONNECTION
    UNTRUSTED_PROXY = "untrusted_proxy", About.CONNECTION
    PROXY_PROTOCOL_ERROR = "proxy_protocol_error", About.CONNECTION
    STARTTLS_REQUIRED = "starttls_required", About.CONNECTION
    STARTTLS_INJECTION = "starttls_injection", About.CONNECTION
    STARTTLS_ERROR = "starttls_error", About.CONNECTION
    NOT_TLS = "not_tls", About.CONNECTION
    UNSUPPORTED_TLS = "unsupported_tls", About.CONNECTION
    PROTOCOL_ERROR = "protocol_error", About.CONNECTION
    PEER_ALERT = "peer_alert", About.CONNECTION
    HANDSHAKE_TIMEOUT = "handshake_timeout", About.CONNECTION
    PEER_GONE = "peer_gone", About.CONNECTION

    TOO_MANY_CONNECTIONS = "too_many_connections", About.LIMIT
    TOO_MANY_FROM_ADDRESS = "too_many_from_address", About.LIMIT
    TOO_MANY_OF_IDENTITY = "too_many_of_identity", About.LIMIT
    TOO_MANY_HANDSHAKES = "too_many_handshakes", About.LIMIT
    HANDSHAKE_RATE = "handshake_rate", About.LIMIT
    HANDSHAKE_TOO_LARGE = "handshake_too_large", About.LIMIT

    NOT_AUTHORIZED = "not_authorized", About.AUTHORIZER
    AUTHORIZER_FAILED = "authorizer_failed", About.AUTHORIZER

    UID_NOT_ALLOWED = "uid_not_allowed", About.CLIENT_GATE
    WRONG_SERVER_NAME = "wrong_server_name", About.CLIENT_GATE
    TARGET_UNREACHABLE = "target_unreachable", About.CLIENT_GATE
    TARGET_TIMEOUT = "target_timeout", About.CLIENT_GATE
    REFUSED_BY_TARGET = "refused_by_target", About.CLIENT_GATE
    TARGET_REMOVED = "target_removed", About.CLIENT_GATE
    NO_CLIENT_CERTIFICATE = "no_client_certificate", About.CLIENT_GATE

    NO_SERVER_CERTIFICATE = "no_server_certificate", About.GATE
    SERVER_REMOVED = "server_removed", About.GATE
    CLOSED_BY_GATE = "closed_by_gate", About.GATE
    INTERNAL_ERROR = "internal_error", About.GATE


class Cause(StrEnum):
    """Why an admitted connection ended."""

    CLIENT = "client"
    APPLICATION = "application"
    CONNECTION_LOST = "connection_lost"
    IDLE_TIMEOUT = "idle_timeout"
    CERTIFICATE_EXPIRED = "certificate_expired"
    PIN_RETIRED = "pin_retired"
    NO_LONGER_ADMITTED = "no_longer_admitted"
    REFUSED_BY_TARGET = "refused_by_target"
    DRAINED = "drained"
    CLOSED_BY_OPERATOR = "closed_by_operator"
