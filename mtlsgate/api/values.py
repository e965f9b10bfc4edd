"""
Rules, conditions, pins and options of a gate in Python.

Each class corresponds to a block of the configuration file.  Parameters have the same
names, meaning and checks as the block's attributes; the checks run when a `Gate` is
made from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from mtlsgate.interfaces import IAuthorizer, IVerifiedPeer

#: The path of a file, or the content of one in PEM or DER.
Source: TypeAlias = str | os.PathLike[str] | bytes
#: One certificate or many: a path, PEM or DER, a certificate, or a list of these.
Certificates: TypeAlias = Source | x509.Certificate | Sequence[Source | x509.Certificate]
#: Likewise for revocation lists.
RevocationLists: TypeAlias = (
    Source | x509.CertificateRevocationList | Sequence[Source | x509.CertificateRevocationList]
)
PrivateKey: TypeAlias = (
    Source
    | rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


@frozen
class Svid:
    """
    A server certificate that a SPIFFE agent delivers, with its key, while the gate listens.

    :ivar spiffe: the agent's socket, as ``"unix:/run/spire/agent.sock"``.
    :ivar spiffe_id: which one of several; by default the agent's first.
    """

    spiffe: str
    spiffe_id: str | None = None


#: A server certificate with its intermediates after it, and its key; or where both come from.
Credential: TypeAlias = tuple[Certificates, PrivateKey] | Svid
#: Seconds, or text as in a configuration file: ``"10s"``.
Duration: TypeAlias = str | float | timedelta
#: An aware datetime, or text as in a configuration file: ``"2027-01-31T12:00:00Z"``.
Instant: TypeAlias = str | datetime
#: Whom to ask about clients that the rules admit: a callable, an object, or its name
#: as ``package.module:attribute``.
Authorize: TypeAlias = str | IAuthorizer | Callable[[IVerifiedPeer], Any]


@frozen(kw_only=True)
class _Condition:
    common_names: Sequence[str] | None = None
    organizations: Sequence[str] | None = None
    organizational_units: Sequence[str] | None = None
    dns_names: Sequence[str] | None = None
    uris: Sequence[str] | None = None
    email_addresses: Sequence[str] | None = None
    ip_addresses: Sequence[str] | None = None
    spiffe_ids: Sequence[str] | None = None
    sha256: Sequence[str] | None = None
    spki_sha256: Sequence[str] | None = None
    serial_numbers: Sequence[str] | None = None
    issuers: Sequence[str] | None = None


@frozen(kw_only=True)
class Allow(_Condition):
    """
    An ``allow`` block: it matches a certificate if all its attributes match.  An
    attribute matches if one of its values does.
    """


@frozen
class Registry:
    """
    A ``registry`` block: a store of devices that many gates share.

    :ivar url: where it is: ``redis://…``, ``postgresql://…``; may have a password.
    :ivar name: its name in logs; two different registries need two names.
    :ivar key: what a client is found by.
    :ivar prefix: what all keys in Redis begin with.
    :ivar table: the table in PostgreSQL.
    :ivar on_outage: whether new clients are rejected while it cannot be reached, or what is
        remembered counts.
    :ivar max_staleness: how long live connections stay without it.
    :ivar timeout: how long it may take to answer.
    :ivar cache_entries: how many answers are remembered.
    :ivar cache_time: how long one is remembered.
    :ivar password: if it is not in the URL.
    :ivar ca_file: the CAs of its certificate.
    :ivar certificate_file: the gate's certificate for it.
    :ivar private_key_file: its key.
    """

    url: str = field(repr=False)
    name: str = "registry"
    key: Literal["identity", "sha256", "spki_sha256", "spiffe_id", "common_name", "dns_name"] = (
        field(default="identity", kw_only=True)
    )
    prefix: str | None = field(default=None, kw_only=True)
    table: str | None = field(default=None, kw_only=True)
    on_outage: Literal["reject", "last_known"] = field(default="reject", kw_only=True)
    max_staleness: Duration = field(default="5m", kw_only=True)
    timeout: Duration = field(default="1s", kw_only=True)
    cache_entries: int = field(default=100_000, kw_only=True)
    cache_time: Duration = field(default="5m", kw_only=True)
    password: str | None = field(default=None, kw_only=True, repr=False)
    ca_file: str | None = field(default=None, kw_only=True)
    certificate_file: str | None = field(default=None, kw_only=True)
    private_key_file: str | None = field(default=None, kw_only=True)


@frozen(kw_only=True)
class Deny(_Condition):
    """
    A ``deny`` block: it matches like `Allow`, and rejects the client.

    :ivar registry: must list the client as well.
    """

    registry: Registry | None = None


@frozen
class Pin:
    """
    A ``pin`` block: one leaf, with a name and, for planned rotation, a beginning and
    an end.

    :ivar name: its name in logs.
    :ivar leaf: the leaf.
    :ivar not_before: the instant from which on it counts.
    :ivar retire_after: the instant after which it no longer counts.
    """

    name: str
    leaf: Source | x509.Certificate
    not_before: Instant | None = field(default=None, kw_only=True)
    retire_after: Instant | None = field(default=None, kw_only=True)


@frozen
class Rule:
    """
    A ``client_certificate`` block: which clients to admit.

    None means that a condition is not set.  An empty list of pins or of ``allow`` is an
    error: if other code left a list empty by mistake, every client of the CA would be
    admitted.

    :ivar name: its name in logs, and in `VerifiedPeer.rule`.
    :ivar ca: the trusted CAs (``ca_certificate``).
    :ivar leaf: the pins (``leaf_certificate``).
    :ivar leaf_certificate_dir: a directory of further pins.
    :ivar pin: further pins, with a name each.
    :ivar allow: one of them must match, if there are any.
    :ivar deny: none of them may match.
    :ivar registry: must list the client as active.
    :ivar max_depth: the highest number of intermediates allowed.
    :ivar crl: revocation lists.
    :ivar crl_dir: a directory of further revocation lists.
    :ivar crl_url: URLs to fetch revocation lists from.
    :ivar crl_scope: whether every certificate of the path below the CA must be
        covered (``"path"``, the default), or only the leaf (``"leaf"``).
    :ivar spiffe_trust_domain: the SPIFFE trust domain whose workloads are admitted, instead
        of CAs.
    :ivar spiffe_federated: further trust domains.
    :ivar spiffe_socket: the socket of the agent that delivers their CAs.
    """

    name: str
    ca: Certificates | None = field(default=None, kw_only=True)
    leaf: Certificates | None = field(default=None, kw_only=True)
    leaf_certificate_dir: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    pin: Sequence[Pin] | None = field(default=None, kw_only=True)
    allow: Sequence[Allow] | None = field(default=None, kw_only=True)
    deny: Sequence[Deny] = field(default=(), kw_only=True)
    registry: Registry | None = field(default=None, kw_only=True)
    max_depth: int | None = field(default=None, kw_only=True)
    crl: RevocationLists | None = field(default=None, kw_only=True)
    crl_dir: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    crl_url: str | Sequence[str] | None = field(default=None, kw_only=True)
    crl_scope: Literal["path", "leaf"] | None = field(default=None, kw_only=True)
    spiffe_trust_domain: str | None = field(default=None, kw_only=True)
    spiffe_federated: Sequence[str] | None = field(default=None, kw_only=True)
    spiffe_socket: str | None = field(default=None, kw_only=True)


class GateOptions(TypedDict, total=False):
    """The attributes of the ``server`` and ``tls`` blocks that `Gate` takes as keywords."""

    # The tls block.
    min_version: Literal["1.2", "1.3"]
    client_authentication: Literal["required", "none"]
    verification: Literal["strict", "compatible", "double"]
    deny: Sequence[Deny]
    send_ca_names: bool
    session_resumption: bool
    session_lifetime: Duration
    private_key_passphrase: str
    ocsp_stapling: bool
    # The server block.
    server_names: Sequence[str]
    default_server: bool
    authorize: Authorize
    authorize_timeout: Duration
    proxy_protocol: Literal["required"]
    trusted_proxies: Sequence[str]
    starttls: Literal["postgres", "smtp", "imap"]
    handshake_timeout: Duration
    idle_timeout: Duration
    max_connections: int
    max_connections_per_ip: int
    max_connections_per_identity: int
    count_in: Registry
    max_handshakes: int
    handshakes_per_second_per_ip: float
    handshake_bytes: int
    close_on_expiry: bool
    on_reload: Literal["judge", "keep"]
    revoke_grace: Duration
    log_admitted: bool
