"""
The closed vocabularies: why a client was rejected, and why a connection ended.

The log, metrics, tests and documentation share these enums.  Each member has an
entry with the same name in ``docs/reasons.md``.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Cause", "Reason"]


class Reason(StrEnum):
    """Why a connection was not handed to the application."""

    # Rejections caused by the certificate.
    NO_CERTIFICATE = "no_certificate"
    UNKNOWN_CA = "unknown_ca"
    LEAF_MISMATCH = "leaf_mismatch"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_PURPOSE = "wrong_purpose"
    CA_AS_LEAF = "ca_as_leaf"
    BAD_SIGNATURE = "bad_signature"
    WEAK_KEY = "weak_key"
    PATH_TOO_LONG = "path_too_long"
    NAME_CONSTRAINT = "name_constraint"
    INVALID_CA = "invalid_ca"
    PROFILE_VIOLATION = "profile_violation"
    MALFORMED_CERTIFICATE = "malformed_certificate"
    DENIED = "denied"
    NOT_ALLOWED = "not_allowed"
    PIN_NOT_YET_VALID = "pin_not_yet_valid"
    PIN_RETIRED = "pin_retired"
    REVOKED = "revoked"
    CRL_MISSING = "crl_missing"
    CRL_EXPIRED = "crl_expired"
    CRL_INVALID = "crl_invalid"
    VALIDATORS_DISAGREE = "validators_disagree"
    SVID_INVALID = "svid_invalid"
    WRONG_TRUST_DOMAIN = "wrong_trust_domain"
    BUNDLE_MISSING = "bundle_missing"

    # Rejections caused by a registry.
    NOT_REGISTERED = "not_registered"
    REGISTRY_DENIED = "registry_denied"
    REGISTRY_UNAVAILABLE = "registry_unavailable"

    # Rejections caused by the connection.
    UNKNOWN_SERVER_NAME = "unknown_server_name"
    NOT_RESUMABLE = "not_resumable"
    UNTRUSTED_PROXY = "untrusted_proxy"
    PROXY_PROTOCOL_ERROR = "proxy_protocol_error"
    STARTTLS_REQUIRED = "starttls_required"
    STARTTLS_INJECTION = "starttls_injection"
    STARTTLS_ERROR = "starttls_error"
    NOT_TLS = "not_tls"
    UNSUPPORTED_TLS = "unsupported_tls"
    PROTOCOL_ERROR = "protocol_error"
    PEER_ALERT = "peer_alert"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    PEER_GONE = "peer_gone"

    # Rejections caused by limits.
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"
    TOO_MANY_OF_IDENTITY = "too_many_of_identity"
    TOO_MANY_HANDSHAKES = "too_many_handshakes"
    HANDSHAKE_RATE = "handshake_rate"
    HANDSHAKE_TOO_LARGE = "handshake_too_large"

    # Rejections caused by the authorizer.
    NOT_AUTHORIZED = "not_authorized"
    AUTHORIZER_FAILED = "authorizer_failed"

    # Rejections of connections to a client gate.
    UID_NOT_ALLOWED = "uid_not_allowed"
    WRONG_SERVER_NAME = "wrong_server_name"
    TARGET_UNREACHABLE = "target_unreachable"
    TARGET_TIMEOUT = "target_timeout"
    REFUSED_BY_TARGET = "refused_by_target"
    TARGET_REMOVED = "target_removed"
    NO_CLIENT_CERTIFICATE = "no_client_certificate"

    # Rejections caused by the gate itself.
    NO_SERVER_CERTIFICATE = "no_server_certificate"
    SERVER_REMOVED = "server_removed"
    CLOSED_BY_GATE = "closed_by_gate"
    INTERNAL_ERROR = "internal_error"


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
