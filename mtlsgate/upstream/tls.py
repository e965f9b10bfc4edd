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
from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.certificates.parsing import (
    ServerCredential,
    pair,
    parse_certificates,
    parse_private_key,
)
from mtlsgate.certificates.server_identity import as_address
from mtlsgate.config import Located, Material, Misconfigured
from mtlsgate.config.fields import position
from mtlsgate.config.material import unusable
from mtlsgate.config.source import relative_to_file
from mtlsgate.errors import CredentialError, Position
from mtlsgate.interfaces import IProtocolEnvironment
from mtlsgate.tls.client import ClientContext, system_store
from mtlsgate.tls.openssl_errors import REFUSALS, reasons_of
from mtlsgate.upstream.verified import TlsEndpoint

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
    :ivar server_name: the DNS name or IP address that the server's certificate
        must be for; by default the target's host.
    """

    at: Position = position()
    server_ca_certificate: Material | None = None
    server_leaf_certificate: Material | None = None
    client_certificate: Material | None = None
    client_private_key: Material | None = None
    client_private_key_passphrase: str | None = field(default=None, repr=False)
    server_name: Located[str] | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for each problem of the whole block."""
        if self.server_ca_certificate is None and self.server_leaf_certificate is None:
            yield (
                None,
                "no CA to verify the target with: set server_ca_certificate(_file), or "
                'server_ca_certificate_file = "system" for the system\'s trust store, or pin the '
                "target with server_leaf_certificate(_file)",
            )
        if self.client_certificate is not None and self.client_private_key is None:
            yield self.client_certificate.attribute, "client_certificate needs client_private_key"
        if self.client_private_key is not None and self.client_certificate is None:
            yield self.client_private_key.attribute, "client_private_key needs client_certificate"
        if self.client_private_key is None and self.client_private_key_passphrase is not None:
            yield "client_private_key_passphrase", "there is no client_private_key to decrypt"
        if self.server_name is not None and not _is_server_name(self.server_name.value):
            yield "server_name", "server_name must be a DNS name (ASCII) or an IP address"

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
            return TlsClient(anchors, self._credential(environment), name, alpn, pins)
        except REFUSALS as error:
            raise Misconfigured(self.at, f"OpenSSL refuses it: {reasons_of(error)}") from None

    def _anchors(self, environment: IProtocolEnvironment) -> tuple[Certificate, ...] | None:
        """:returns: the trusted CAs; None means the system's trust store."""
        trust = self.server_ca_certificate
        if trust is None:
            return ()  # `problems` has checked that there are pins
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
        if certificate is None or key is None:
            return None
        chain = _certificates(certificate, environment)
        data = environment.read(key)
        try:
            return pair(chain, parse_private_key(data, self.client_private_key_passphrase))
        except CredentialError as error:
            text = str(error).replace("private_key_passphrase", "client_private_key_passphrase")
            raise unusable(key, CredentialError(text)) from None


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

    :ivar anchors: the trusted certificates; None means the system's trust store.
    :ivar credential: the certificate to show if the server asks, or None.
    :ivar server_name: the name that every server's certificate must be for; None
        means the target's host.
    :ivar pins: if there are any, the server's leaf must be one of them.
    """

    def __init__(
        self,
        anchors: Iterable[Certificate | x509.Certificate] | None,
        credential: ServerCredential | None = None,
        server_name: str | None = None,
        alpn: Sequence[bytes] = (),
        pins: Iterable[Certificate] = (),
    ) -> None:
        """
        :param anchors: the trusted certificates.  One that is not a CA is trusted
            only as the server's own certificate.  None means the system's trust
            store.
        :param credential: the certificate to show if the server asks.
        :param alpn: the application protocols to offer.
        :param pins: if there are any, the server's leaf must be one of them.  Without
            anchors they are trusted themselves; without a server name they alone decide.
        :raises TlsError: if OpenSSL refuses one of these.
        """
        self.anchors = None if anchors is None else tuple(map(view, anchors))
        self.credential = credential
        self.server_name = server_name
        self.pins = tuple(pins)
        self._context = ClientContext(self.anchors, credential, alpn, self.pins)

    def wrap(
        self,
        endpoint: IStreamClientEndpoint,
        host: str | None,
        preface: bytes = b"",
    ) -> TlsEndpoint:
        """
        :param endpoint: connects to the server by TCP or a unix socket.
        :param host: the server's name, if the block has none.
        :param preface: bytes to send before TLS.
        :returns: an endpoint that connects with TLS.
        :raises ValueError: if there is no name to verify.
        """
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
        return self._context.refuse(path, self._expected_name(host), at)

    def _expected_name(self, host: str | None) -> str | None:
        # A pin alone says which server it is.
        return self.server_name or (None if self.pins else host)
