"""
The TLS side of a server: one `SSL.Context`, its options and its callbacks.

The only module that sets OpenSSL options.  The verify callback never
overrides an OpenSSL error: it records the path that OpenSSL verified, hands it
to `AdmissionPolicy` at depth 0 and answers with the verdict, so a client that
is not admitted never completes a handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mtlsgate.admission import (
    AdmissionPolicy,
    Admitted,
    Path,
    Rejection,
    authorities_of,
    lone_pins_of,
)
from mtlsgate.authority import self_signed
from mtlsgate.credentials import UNPARSABLE, ServerCredential
from mtlsgate.names import certificate_names, first_by_name
from mtlsgate.paths import LongerPaths
from mtlsgate.reasons import Reason
from mtlsgate.verification import verification_rejection

#: TLS 1.2: ephemeral ECDH with AEAD only; 112 bits of security at least
#: (OpenSSL's level 2, which is said here so that no build's default matters).
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"

_OPTIONS = (
    SSL.OP_NO_COMPRESSION  # CRIME, CVE-2012-4929
    | SSL.OP_NO_RENEGOTIATION  # CVE-2009-3555, CVE-2011-1473
    | SSL.OP_NO_TICKET
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_ECDH_USE
)

#: The names of CAs in a CertificateRequest, in bytes, from which on none are
#: sent: the field holds 65,535 bytes, and clients take less.
_MAX_CA_NAMES = 32 * 1024

#: SSL_MODE_NO_AUTO_CHAIN, for which pyOpenSSL has no name: send the chain as
#: configured, and do not complete it out of the CAs that clients are judged by.
_NO_AUTO_CHAIN = 0x8

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_log = Logger("mtlsgate.context")


def utc_now() -> datetime:
    """:returns: the present, by the system's clock."""
    return datetime.now(UTC)


@frozen
class TlsPolicy:
    """
    What a server's `SSL.Context` is built from.

    :ivar credentials: what the gate shows of itself, at least one; the one
        that bears the name a client asks for (SNI), or else the first.
    :ivar admission: who is let in; None lets in anyone, without asking for a
        certificate.
    :ivar min_version: the oldest TLS version that is spoken.
    :ivar strict: whether certificates must keep to the RFC 5280 profile.
    :ivar alpn: the application protocols offered, the preferred first; empty
        leaves the extension unanswered.
    """

    credentials: tuple[ServerCredential, ...]
    admission: AdmissionPolicy | None
    min_version: Literal["1.2", "1.3"] = "1.2"
    strict: bool = True
    alpn: tuple[bytes, ...] = ()


class Handshake:
    """
    What is known of one connection's client while it shakes hands.

    :ivar certificates: what OpenSSL verified so far, by depth.
    :ivar verdict: the outcome, once there is one.  A rejection stands.
    """

    __slots__ = ("certificates", "verdict")

    def __init__(self) -> None:
        self.certificates: dict[int, x509.Certificate] = {}
        self.verdict: Admitted | Rejection | None = None


class GateConnection(SSL.Connection):
    """An OpenSSL connection that carries its `Handshake`."""

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.handshake = Handshake()

    def do_handshake(self) -> None:
        """
        Go on with the handshake.  A client that ends TLS in the middle of it
        is gone; Twisted does not expect the error that OpenSSL has for this.
        """
        try:
            super().do_handshake()
        except SSL.ZeroReturnError:
            raise SSL.SysCallError(-1, "Unexpected EOF") from None

    def presented_leaf(self) -> x509.Certificate | None:
        """
        The leaf that a rejected client presented, for the log; it may not have
        proved that it holds the key.
        """
        if 0 in self.handshake.certificates:
            return self.handshake.certificates[0]
        try:
            chain = self.get_verified_chain(as_cryptography=True)
        except UNPARSABLE:
            return None
        return chain[0] if chain else None


@implementer(IOpenSSLServerConnectionCreator)
class GateContext:
    """
    Makes the OpenSSL connections of one server.

    :ivar policy: what it was built from.
    :ivar admission: who is let in, or None for anyone.
    """

    def __init__(self, policy: TlsPolicy, now: Callable[[], datetime] = utc_now) -> None:
        """
        :param now: the time that certificates are judged by.
        :raises SSL.Error: if OpenSSL refuses the server's own certificate.
        """
        self.policy = policy
        self.admission = policy.admission
        self._now = now
        self._flags = X509StoreFlags.PARTIAL_CHAIN
        if policy.strict:
            self._flags |= X509StoreFlags.X509_STRICT
        rules = () if policy.admission is None else policy.admission.rules
        self._longer_paths = LongerPaths(authorities_of(rules), lone_pins_of(rules), self._flags)
        self._contexts = [self._new_context(one) for one in policy.credentials]
        if len(self._contexts) > 1:
            self._by_name = first_by_name(
                (certificate_names(one.chain[0]), context)
                for one, context in zip(policy.credentials, self._contexts, strict=True)
            )
            self._contexts[0].set_tlsext_servername_callback(self._choose_certificate)

    def _new_context(self, credential: ServerCredential) -> SSL.Context:
        context = _new_context(self.policy, credential)
        if self.admission is not None:
            _trust(context, self.admission, self._flags)
            context.set_verify(
                SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT | SSL.VERIFY_CLIENT_ONCE,
                self._verify,
            )
        return context

    def _choose_certificate(self, connection: SSL.Connection) -> None:
        # All contexts are alike but for the certificate, so what was begun
        # under the first one's verify settings goes on under the same.
        name = connection.get_servername()
        context = self._by_name.find(None if name is None else name.decode("latin-1"))
        if context is not None:
            connection.set_context(context)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> GateConnection:
        """Make the connection for an accepted one (`IOpenSSLServerConnectionCreator`)."""
        return GateConnection(self._contexts[0])

    def _verify(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        # An exception would leave the handshake without an alert, and a truthy
        # answer that is no bool would admit: everything ends in True or False.
        assert isinstance(connection, GateConnection)
        handshake = connection.handshake
        try:
            if isinstance(handshake.verdict, Rejection):
                return False
            verdict = self._step(handshake, certificate, error, depth, bool(ok))
        except Exception:  # noqa: BLE001 -- see above
            _log.failure("the verify callback failed")
            verdict = Rejection(Reason.INTERNAL_ERROR, "the verify callback failed", depth)
        handshake.verdict = verdict
        return not isinstance(verdict, Rejection)

    def _step(
        self, handshake: Handshake, certificate: X509, error: int, depth: int, ok: bool
    ) -> Admitted | Rejection | None:
        """
        :returns: the verdict at depth 0 or at an error; before that None.
        """
        if not ok:
            return verification_rejection(error, depth)
        try:
            handshake.certificates[depth] = certificate.to_cryptography()
        except UNPARSABLE as failed:
            return Rejection(Reason.MALFORMED_CERTIFICATE, str(failed).partition("\n")[0], depth)
        if depth > 0:
            return None
        # OpenSSL goes from the anchor down, so all depths are there by now.
        path = tuple(handshake.certificates[at] for at in range(len(handshake.certificates)))
        return self._judge(path)

    def _judge(self, path: Path) -> Admitted | Rejection:
        assert self.admission is not None
        now = self._now()
        verdict = self.admission.judge(path, now)
        if isinstance(verdict, Rejection):
            for longer in self._longer_paths.of(path):
                better = self.admission.judge(longer, now)
                if isinstance(better, Admitted):
                    return better
        return verdict


def _new_context(policy: TlsPolicy, credential: ServerCredential) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[policy.min_version])
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _NO_AUTO_CHAIN)
    context.set_cipher_list(_CIPHERS)
    # Both this and OP_NO_TICKET: either alone leaves a way to resume, and a
    # resumed session meets no verify callback.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # Without one, an attempt to resume would be an error and not a full handshake.
    context.set_session_id(b"mtlsgate")
    leaf, *intermediates = credential.chain
    context.use_certificate(leaf)
    for intermediate in intermediates:
        context.add_extra_chain_cert(intermediate)
    context.use_privatekey(credential.private_key)
    context.check_privatekey()
    if policy.alpn:
        context.set_alpn_select_callback(_alpn_choice(policy.alpn))
    return context


_AlpnChoice = Callable[[SSL.Connection, list[bytes]], bytes | SSL._NoOverlappingProtocols]


def _alpn_choice(ours: Sequence[bytes]) -> _AlpnChoice:
    def choose(
        connection: SSL.Connection, theirs: list[bytes]
    ) -> bytes | SSL._NoOverlappingProtocols:
        # An empty answer would end the handshake; this one leaves the extension out.
        return next((one for one in ours if one in theirs), SSL.NO_OVERLAPPING_PROTOCOLS)

    return choose


def _trust(context: SSL.Context, admission: AdmissionPolicy, flags: int) -> None:
    """Fill the store with the CAs and the pins that are their own anchors."""
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(flags)
    authorities = authorities_of(admission.rules)
    lone_pins = lone_pins_of(admission.rules)
    for anchor in authorities + lone_pins:
        store.add_cert(X509.from_cryptography(anchor))
    for named in _requested(authorities, lone_pins):
        context.add_client_ca(named)


def _requested(
    authorities: Sequence[x509.Certificate], lone_pins: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """
    :returns: certificates whose subjects are the names for the
        CertificateRequest: the CAs, and the issuers of lone pins, since a
        client may not offer a certificate whose issuer is not named
        (RFC 8446, 4.2.4).  None where that would not fit.
    """
    named: dict[bytes, x509.Certificate | x509.Name]
    named = {one.subject.public_bytes(): one for one in authorities}
    for pin in lone_pins:
        named.setdefault(pin.issuer.public_bytes(), pin.issuer)
    if sum(len(name) + 2 for name in named) > _MAX_CA_NAMES:
        return []
    return [_bearing(one) if isinstance(one, x509.Name) else one for one in named.values()]


def _bearing(name: x509.Name) -> x509.Certificate:
    """:returns: a certificate of that subject; OpenSSL takes names in no other form."""
    return self_signed(None, subject=name).certificate
