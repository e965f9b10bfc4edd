"""
TLS to a target: the nested ``tls`` block of a protocol, and the client that is built
from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from twisted.internet.interfaces import IStreamClientEndpoint

from mtlsgate.admission import Path as CertificatePath
from mtlsgate.admission import Rejection
from mtlsgate.admission.conditions import Condition, clause, read_value
from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.certificates.keystore import parse_keystore
from mtlsgate.certificates.parsing import (
    ServerCredential,
    pair,
    parse_certificates,
    parse_private_key,
)
from mtlsgate.certificates.server_identity import as_address
from mtlsgate.config import Located, Material, Misconfigured
from mtlsgate.config.agents import parse_agent, wrong_agent, wrong_spiffe_id
from mtlsgate.config.fields import position
from mtlsgate.config.material import unusable
from mtlsgate.config.source import relative_to_file
from mtlsgate.errors import CredentialError, Position
from mtlsgate.interfaces import IProtocolEnvironment
from mtlsgate.spiffe.agents import SvidSource
from mtlsgate.spiffe.subscription import Stream
from mtlsgate.text import quoted
from mtlsgate.tls.client import ClientContext, system_store
from mtlsgate.tls.openssl_errors import REFUSALS, reasons_of
from mtlsgate.upstream.verified import NotReadyEndpoint, TlsEndpoint
from mtlsgate.upstream.workloads import Workloads

_SYSTEM = "system"


@frozen(kw_only=True)
class TargetTls:
    """
    The ``tls`` block of a protocol that connects to a target.

    :ivar server_ca_certificate: the trusted CAs; the file name ``system`` means the
        system's trust store.
    :ivar server_leaf_certificate: pins: the server's certificate must be one of these.
        Without CAs they are trusted by themselves, and no name is needed.
    :ivar client_certificate: the gate's own certificate, leaf first.
    :ivar client_private_key: its key.
    :ivar client_private_key_passphrase: the passphrase of an encrypted key.
    :ivar client_pkcs12: a keystore with both, and the intermediates, instead.
    :ivar client_pkcs12_passphrase: the keystore's.
    :ivar server_name: the DNS name or IP address that the server's certificate
        must be for; by default the target's host.
    :ivar spiffe: the socket of the SPIFFE agent whose X.509-SVID the gate shows instead of
        a certificate of files.
    :ivar spiffe_id: which one of several; by default the agent's first.
    :ivar server_spiffe_ids: the SPIFFE IDs that a target may have, all of one trust domain,
        instead of CAs and a name.
    :ivar spiffe_socket: the socket of the SPIFFE agent that delivers the bundle of that trust
        domain; by default that of ``spiffe``.
    """

    at: Position = position()
    server_ca_certificate: Material | None = None
    server_leaf_certificate: Material | None = None
    client_certificate: Material | None = None
    client_private_key: Material | None = None
    client_private_key_passphrase: str | None = field(default=None, repr=False)
    client_pkcs12: Material | None = field(default=None, repr=False)
    client_pkcs12_passphrase: str | None = field(default=None, repr=False)
    server_name: Located[str] | None = None
    spiffe: Located[str] | None = None
    spiffe_id: Located[str] | None = None
    server_spiffe_ids: tuple[Located[str], ...] = ()
    spiffe_socket: Located[str] | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for each problem of the whole block."""
        trust = (self.server_ca_certificate, self.server_leaf_certificate)
        if trust == (None, None) and not self.server_spiffe_ids:
            yield (
                None,
                "no CA to verify the target with: set server_ca_certificate(_file), or "
                'server_ca_certificate_file = "system" for the system\'s trust store, or pin the '
                "target with server_leaf_certificate(_file), or name it by server_spiffe_ids",
            )
        if self.client_private_key is None and self.client_private_key_passphrase is not None:
            yield "client_private_key_passphrase", "there is no client_private_key to decrypt"
        yield from self._pair_problems() if self.client_pkcs12 is None else ()
        yield from self._keystore_problems()
        yield from self._spiffe_problems(trust)
        if self.server_name is not None and not _is_server_name(self.server_name.value):
            yield "server_name", "server_name must be a DNS name (ASCII) or an IP address"

    @property
    def own(self) -> Material | None:
        """Where the gate's own certificate is, or None."""
        return self.client_pkcs12 or self.client_certificate

    @property
    def own_key(self) -> Material | None:
        """Where the key of the gate's own certificate is, or None."""
        return self.client_pkcs12 or self.client_private_key

    def _pair_problems(self) -> Iterator[tuple[str | None, str]]:
        certificate, key = self.client_certificate, self.client_private_key
        if certificate is not None and key is None:
            yield certificate.attribute, "client_certificate needs client_private_key"
        if key is not None and certificate is None:
            yield key.attribute, "client_private_key needs client_certificate"

    def _keystore_problems(self) -> Iterator[tuple[str | None, str]]:
        keystore = self.client_pkcs12
        if keystore is None:
            if self.client_pkcs12_passphrase is not None:
                yield "client_pkcs12_passphrase", "there is no client_pkcs12_file to decrypt"
            return
        for material in (self.client_certificate, self.client_private_key):
            if material is not None:
                name = material.attribute
                yield name, f"{name} and {keystore.attribute} are mutually exclusive"
        if self.spiffe is not None:
            yield "spiffe", f"spiffe and {keystore.attribute} are mutually exclusive"

    def _spiffe_problems(
        self, trust: tuple[Material | None, ...]
    ) -> Iterator[tuple[str | None, str]]:
        for name in ("spiffe", "spiffe_socket"):
            written = getattr(self, name)
            if written is not None:
                yield from wrong_agent(name, written)
        yield from wrong_spiffe_id("spiffe_id", self.spiffe_id)
        if self.spiffe_id is not None and self.spiffe is None:
            yield "spiffe_id", "spiffe_id needs spiffe, the socket of the agent"
        if self.spiffe is not None and self.client_certificate is not None:
            name = self.client_certificate.attribute
            yield name, f"{name} and spiffe are mutually exclusive"
        if not self.server_spiffe_ids:
            if self.spiffe_socket is not None:
                yield "spiffe_socket", "spiffe_socket needs server_spiffe_ids"
            return
        for material in trust:
            if material is not None:
                name = material.attribute
                yield name, f"{name} and server_spiffe_ids are mutually exclusive"
        if self.spiffe is None and self.spiffe_socket is None:
            yield (
                "server_spiffe_ids",
                "no agent delivers the bundle to verify the target with: set spiffe_socket, as in "
                '"unix:/run/spire/agent.sock", or spiffe',
            )
        try:
            _condition(self.server_spiffe_ids)
        except ValueError as error:
            yield "server_spiffe_ids", f"server_spiffe_ids: {error}"

    def _workloads(self, environment: IProtocolEnvironment) -> Workloads | None:
        own = bundles = domain = condition = None
        if self.spiffe is not None:
            agent = parse_agent(self.spiffe.value)
            own = SvidSource(agent, None if self.spiffe_id is None else self.spiffe_id.value)
        if self.server_spiffe_ids:
            written = self.spiffe_socket or self.spiffe
            assert written is not None
            bundles = parse_agent(written.value)
            domain, condition = _condition(self.server_spiffe_ids)
        if own is None and bundles is None:
            return None
        return Workloads(environment.agents, own, bundles, domain, condition)

    def client(self, environment: IProtocolEnvironment, alpn: Sequence[bytes] = ()) -> TlsClient:
        """
        :param environment: reads the files.
        :param alpn: the application protocols to offer.
        :returns: makes connections to any server.
        :raises Misconfigured: at the value that cannot be used.
        """
        pinned = self.server_leaf_certificate
        pins = () if pinned is None else _certificates(pinned, environment)
        anchors = self._anchors(environment)
        name = None if self.server_name is None else self.server_name.value
        try:
            return TlsClient(
                anchors,
                self._credential(environment),
                name,
                alpn,
                pins,
                self._workloads(environment),
            )
        except REFUSALS as error:
            raise Misconfigured(self.at, f"OpenSSL refuses it: {reasons_of(error)}") from None

    def _anchors(self, environment: IProtocolEnvironment) -> tuple[Certificate, ...] | None:
        """:returns: the trusted CAs; None means the system's trust store."""
        trust = self.server_ca_certificate
        if trust is None:
            return ()  # `problems` has checked that there are pins or SPIFFE IDs
        # As every name of a file, it was made relative to the file that it stands in.
        if trust.path != Path(relative_to_file(_SYSTEM, trust.at)):
            return _certificates(trust, environment)
        if not any(system_store()):
            raise Misconfigured(
                trust.at,
                f"{trust.attribute}: this system has no trust store where Python's ssl looks "
                "for it: name a file",
            )
        return None

    def _credential(self, environment: IProtocolEnvironment) -> ServerCredential | None:
        certificate, key = self.client_certificate, self.client_private_key
        keystore = self.client_pkcs12
        if keystore is not None:
            try:
                return parse_keystore(
                    environment.read(keystore),
                    self.client_pkcs12_passphrase,
                    "client_pkcs12_passphrase",
                )
            except CredentialError as error:
                raise unusable(keystore, error) from None
        if certificate is None or key is None:
            return None
        chain = _certificates(certificate, environment)
        data = environment.read(key)
        try:
            return pair(chain, parse_private_key(data, self.client_private_key_passphrase))
        except CredentialError as error:
            text = str(error).replace("private_key_passphrase", "client_private_key_passphrase")
            raise unusable(key, CredentialError(text)) from None


def _condition(written: Iterable[Located[str]]) -> tuple[str, Condition]:
    """
    :param written: SPIFFE IDs, as in ``spiffe_ids`` of ``allow``.
    :returns: their trust domain, and the condition to be one of them.
    :raises ValueError: if one is none, or is of another trust domain.
    """
    found, domains = {}, set()
    for one in written:
        try:
            found[one.value] = read_value("spiffe_ids", one.value)
        except ValueError as error:
            raise ValueError(f"{quoted(one.value)} {error}") from None
        domains.add(one.value.removeprefix("spiffe://").partition("/")[0])
    if len(domains) > 1:
        # The bundle of one trust domain must not vouch for another's workloads.
        names = " and ".join(sorted(domains))
        raise ValueError(f"{names} are two trust domains: use a protocol block for each")
    return domains.pop(), Condition((clause("spiffe_ids", found),))


def _certificates(material: Material, environment: IProtocolEnvironment) -> tuple[Certificate, ...]:
    try:
        return parse_certificates(environment.read(material))
    except CredentialError as error:
        raise unusable(material, error) from None


def _is_server_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    ordinary = text.isascii() and all(
        0 < len(one) <= 63 and one.replace("-", "").replace("_", "").isalnum() for one in labels
    )
    return as_address(text) is not None or (ordinary and not labels[-1].isdecimal())


class TlsClient:
    """
    Makes TLS connections to servers whose path, and name or pin, are verified.

    :ivar server_name: the name that every server's certificate must be for; None
        means the target's host.
    :ivar pins: if there are any, the server's leaf must be one of them.
    :ivar _version: of what agents had delivered when `_made` was made.
    """

    def __init__(
        self,
        anchors: Iterable[Certificate | x509.Certificate] | None,
        credential: ServerCredential | None = None,
        server_name: str | None = None,
        alpn: Sequence[bytes] = (),
        pins: Iterable[Certificate] = (),
        workloads: Workloads | None = None,
    ) -> None:
        """
        :param anchors: the trusted certificates.  One that is not a CA is trusted
            only as the server's own certificate.  None means the system's trust
            store.
        :param credential: the certificate to show if the server asks.
        :param alpn: the application protocols to offer.
        :param pins: if there are any, the server's leaf must be one of them.  Without
            anchors they are trusted themselves; without a server name they alone decide.
        :param workloads: what SPIFFE agents deliver instead of credential or anchors.
        :raises TlsError: if OpenSSL refuses one of these.
        """
        self._anchors = None if anchors is None else tuple(map(view, anchors))
        self._credential = credential
        self.server_name = server_name
        self.pins = tuple(pins)
        self._alpn = alpn
        self._workloads = workloads
        self._version = self.version
        self._made = self._new_context()

    @property
    def anchors(self) -> tuple[Certificate, ...] | None:
        """The trusted certificates; None means the system's trust store."""
        bundle = None if self._workloads is None else self._workloads.bundle
        return self._anchors if bundle is None else bundle.authorities

    @property
    def credential(self) -> ServerCredential | None:
        """The certificate to show if the server asks, or None."""
        if self._workloads is None or self._workloads.own is None:
            return self._credential
        return self._workloads.credential

    @property
    def own_source(self) -> SvidSource | None:
        """Where its certificate comes from, if a SPIFFE agent delivers it; otherwise None."""
        return None if self._workloads is None else self._workloads.own

    @property
    def wanted(self) -> Iterator[tuple[str, Stream]]:
        """The streams of SPIFFE agents that it needs."""
        return iter(()) if self._workloads is None else self._workloads.wanted

    @property
    def version(self) -> int:
        """Differs if something else may be trusted, or shown, than before."""
        return 0 if self._workloads is None else self._workloads.agents.version

    @property
    def _context(self) -> ClientContext:
        version = self.version
        if version != self._version:
            self._made, self._version = self._new_context(), version
        return self._made

    def _new_context(self) -> ClientContext:
        """:raises TlsError: if OpenSSL refuses something."""
        names = None if self._workloads is None else self._workloads.spiffe_ids
        return ClientContext(self.anchors, self.credential, self._alpn, self.pins, names)

    def wrap(
        self,
        endpoint: IStreamClientEndpoint,
        host: str | None,
        preface: bytes = b"",
    ) -> TlsEndpoint | NotReadyEndpoint:
        """
        :param endpoint: connects to the server by TCP or a unix socket.
        :param host: the server's name, if the block has none.
        :param preface: bytes to send before TLS.
        :returns: an endpoint that connects with TLS.
        :raises ValueError: if there is no name to verify.
        """
        if self._workloads is not None:
            problem = self._workloads.problem()
            if problem is not None:
                return NotReadyEndpoint(problem)
            if self._workloads.spiffe_ids is not None:
                asked_for = self.server_name or host
                return TlsEndpoint(endpoint, self._context, None, preface, asked_for)
        name = self._expected_name(host)
        if name is None and not self.pins:
            raise ValueError("the target has no host name: set server_name in the tls block")
        return TlsEndpoint(endpoint, self._context, name, preface, name or host)

    def refuse(self, path: CertificatePath, host: str | None, at: datetime) -> Rejection | None:
        """
        Judge a server again that was verified before.

        :param path: its path, leaf first.
        :param host: the server's name, if the block has none.
        :param at: the time to judge by.
        :returns: why its certificate would not be accepted now, or None.
        """
        bundle = None if self._workloads is None else self._workloads.bundle
        if bundle is None:
            return self._context.refuse(path, self._expected_name(host), at)
        return bundle.missing or self._context.refuse(path, None, at)

    def _expected_name(self, host: str | None) -> str | None:
        # A pin alone says which server it is.
        return self.server_name or (None if self.pins else host)
