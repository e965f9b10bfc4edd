"""
The TLS side of a server: one `SSL.Context`, its options and its callbacks.

The verify callback records the path that OpenSSL verified, passes it to the `Judge`
at depth 0, and answers with the verdict.  In two cases the verdict only comes when
the handshake is complete: for a resumed session, and if the judge returns `Pending`
because the verdict depends on certificates that OpenSSL did not use and does not
show yet.  Nothing is handed over before the verdict.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

from attrs import frozen
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate
from twisted.logger import Logger

from mtlsgate.admission import (
    AdmissionPolicy,
    Admitted,
    Rejection,
)
from mtlsgate.certificates.certificate import known
from mtlsgate.certificates.names import bearing
from mtlsgate.certificates.ocsp import OcspResponse
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.certificates.server_names import first_by_name
from mtlsgate.clock import utc_now
from mtlsgate.reasons import Reason
from mtlsgate.tls.ca_names import LONGEST_MESSAGE, ca_names, message_size
from mtlsgate.tls.contexts import new_context, use_credential
from mtlsgate.tls.engine import Engine
from mtlsgate.tls.handshake import EngineConnection, Handshake
from mtlsgate.tls.judge import Judge, Pending
from mtlsgate.tls.openssl_errors import verification_error
from mtlsgate.tls.openssl_private import CERTIFICATE_REJECTED, set_verify, use_elliptic_groups
from mtlsgate.tls.own_certificates import OwnCertificate
from mtlsgate.tls.trust import encoded, fill

#: Without a session id, OpenSSL fails when a client tries to resume.  It should do
#: a full handshake instead.
_SESSION_ID = b"mtlsgate"

_log = Logger("mtlsgate.context")


@frozen
class TlsPolicy:
    """
    The settings of a server's `SSL.Context`.

    :ivar own: the server's own certificates with their keys, at least one.  The gate
        shows the one with the name that the client asks for (SNI), or else the first
        that is there.
    :ivar admission: the rules for clients; None admits everyone and asks for no
        certificate.
    :ivar min_version: the oldest TLS version allowed.
    :ivar strict: whether certificates must follow the RFC 5280 profile.
    :ivar always_ask_twice: whether the second validator checks every path, not
        only those with name constraints.
    :ivar send_ca_names: whether the CertificateRequest names the CAs.
    :ivar session_lifetime: how many seconds a session can be resumed; None
        forbids resumption.
    :ivar alpn: the application protocols on offer, the preferred first.  If
        empty, the gate does not answer the ALPN extension.
    """

    own: tuple[ServerCredential | MissingCredential, ...]
    admission: AdmissionPolicy | None
    min_version: Literal["1.2", "1.3"] = "1.2"
    strict: bool = True
    always_ask_twice: bool = False
    send_ca_names: bool = True
    session_lifetime: float | None = None
    alpn: tuple[bytes, ...] = ()

    @property
    def credentials(self) -> tuple[ServerCredential, ...]:
        """Those of the certificates that are there."""
        return tuple(one for one in self.own if isinstance(one, ServerCredential))


class GateContext:
    """
    Makes the TLS engines of one server's connections.

    Its `SSL.Context` objects are useless elsewhere: their callbacks accept only
    connections that an engine made, so any other handshake fails.

    :ivar policy: its settings.
    :ivar admission: the rules for clients, or None to admit everyone.
    :ivar request_size: the possible length of a CertificateRequest with all CA
        names, in bytes.  If that is too long for some clients, no names are sent.
    :ivar judge: gives the verdict; None if no certificate is asked for.
    :ivar now: returns the time to judge certificates by.
    :ivar _own: the certificates.
    :ivar _contexts: one for each certificate that is there.
    :ivar _default: the certificate for clients that ask for no certificate's name.
    :ivar _first: the context of new connections, before the certificate is chosen.
    """

    def __init__(self, policy: TlsPolicy, now: Callable[[], datetime] = utc_now) -> None:
        """
        :param now: returns the time to judge certificates by.
        :raises SSL.Error: if OpenSSL refuses the server's own certificate.
        """
        self.policy = policy
        self.now = now
        self.admission = policy.admission
        self.judge = (
            None
            if policy.admission is None
            else Judge(
                policy.admission,
                now,
                strict=policy.strict,
                always_ask_twice=policy.always_ask_twice,
                session_lifetime=policy.session_lifetime,
            )
        )
        rules = () if policy.admission is None else policy.admission.rules
        names = ca_names(rules) if policy.send_ca_names else ()
        self.request_size = message_size(names)
        named = [bearing(one) for one in names] if self.request_size <= LONGEST_MESSAGE else []
        self._own = own = [self._certificate(one, named) for one in policy.own]
        self._by_name = first_by_name(
            (one.dns_names, found) for one, found in zip(policy.own, own, strict=True)
        )
        self._default = next((one for one in own if one.context is not None), own[0])
        self._contexts = [one.context for one in own if one.context is not None]
        self._first = self._contexts[0] if self._contexts else self._new_context()
        if policy.session_lifetime is not None:
            # A ticket is encrypted with the keys of the Context that the connection
            # was made with, and contains the session id of the Context that it has
            # later.  If somebody uses one of these Contexts without an engine, one of
            # the two differs, so an engine's tickets are refused there.
            self._first = self._new_context()
            self._first.set_session_id(b"mtlsgate, without a certificate")

    def _certificate(
        self, one: ServerCredential | MissingCredential, named: Sequence[bytes]
    ) -> OwnCertificate:
        if isinstance(one, MissingCredential):
            return OwnCertificate(missing=one.why)
        until = None if one.source is None else one.chain[0].not_after
        return OwnCertificate(self._with_certificate(one, named), until)

    def _with_certificate(
        self, credential: ServerCredential, named: Sequence[bytes]
    ) -> SSL.Context:
        context = self._new_context()
        context.set_session_id(_SESSION_ID)
        use_credential(context, credential)
        if credential.stapling is not None and credential.stapling.response is not None:
            context.set_ocsp_server_callback(_staple(credential.stapling.response, self.now))
        if self.judge is not None:
            fill(context.get_cert_store(), self.judge.anchors, self.judge.flags)
            _name_authorities(context, named)
        return context

    def _new_context(self) -> SSL.Context:
        """:returns: a Context with the settings that all Contexts of the server share."""
        context = _new_context(self.policy)
        if self.judge is not None:
            set_verify(
                context,
                SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT | SSL.VERIFY_CLIENT_ONCE,
                _on_certificate,
            )
        # Called for every ClientHello, whether or not it names a server.
        context.set_tlsext_servername_callback(_on_server_name)
        return context

    def has_certificate(self) -> bool:
        """:returns: whether there is a certificate to show now."""
        now = self.now()
        return any(one.problem(now) is None for one in self._own)

    def accept(self) -> Engine:
        """:returns: an engine for an accepted connection."""
        connection = EngineConnection(self._first, self)
        if self._contexts and self._first is not self._contexts[0]:
            connection.set_context(self._contexts[0])
        connection.set_accept_state()
        return Engine(connection, None if self.judge is None else self.conclude)

    def choose_certificate(self, connection: EngineConnection) -> None:
        """Show the certificate with the name that the client asks for."""
        own = self._by_name.find(connection.server_name) or self._default
        if own.may_be_missing:
            missing = own.problem(self.now())
            if missing is not None:
                rejection = Rejection(Reason.NO_SERVER_CERTIFICATE, missing)
                connection.handshake.verdict = rejection
                connection.set_context(_without_certificate())
                return
        # The contexts differ only in the certificate: the verify settings stay the same.
        if own is not self._default and own.context is not None:
            connection.set_context(own.context)

    def verify(
        self,
        connection: EngineConnection,
        certificate: X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        """:returns: whether to go on with the handshake."""
        # An exception would end the handshake without an alert, and any truthy
        # answer would admit: always answer True or False.
        handshake = connection.handshake
        try:
            if isinstance(handshake.verdict, Rejection):
                return False
            verdict = self._step(handshake, certificate, error, depth, bool(ok))
            if isinstance(handshake.verdict, Pending) and not isinstance(verdict, Rejection):
                # What OpenSSL finds on a path with an error in it admits nobody.
                verdict = handshake.verdict
            is_due = depth == 0 or not ok
            if not isinstance(verdict, (*_VERDICTS, Pending)) and (is_due or verdict is not None):
                raise TypeError(f"{verdict!r} is no verdict")
        except Exception:  # noqa: BLE001 -- see above
            _log.failure("the verify callback failed")
            verdict = Rejection(Reason.INTERNAL_ERROR, "the verify callback failed", depth)
        handshake.verdict = verdict
        return not isinstance(verdict, Rejection)

    def _step(
        self, handshake: Handshake, certificate: X509, error: int, depth: int, ok: bool
    ) -> Admitted | Rejection | Pending | None:
        """
        :returns: the verdict, at depth 0 or at an error; otherwise None.
        """
        assert self.judge is not None
        found = known(encoded(certificate))
        if not ok:
            verdict = self.judge.on_error(error, depth, found)
            if isinstance(handshake.verdict, Pending) and isinstance(verdict, Rejection):
                # Report the first error.
                return handshake.verdict.rejection
            return verdict
        handshake.certificates[depth] = found
        if depth > 0 or handshake.verdict is not None:
            return None
        handshake.judged_at = self.now()
        return self.judge.on_path(handshake.path)

    def conclude(self, connection: EngineConnection) -> Admitted | Rejection:
        """
        :param connection: a connection whose handshake is complete.
        :returns: the verdict.  Usually the verify callback has already given it.
            It is given here for a resumed session, which has no verify callback,
            and if another path must be found.
        """
        try:
            verdict = self._conclude(connection)
            return verdict if isinstance(verdict, _VERDICTS) else _NOT_JUDGED
        except Exception:  # noqa: BLE001 -- whatever it is, it must not let anyone in
            _log.failure("concluding a handshake failed")
            return Rejection(Reason.INTERNAL_ERROR, "concluding the handshake failed")

    def _conclude(self, connection: EngineConnection) -> Admitted | Rejection:
        handshake = connection.handshake
        if isinstance(handshake.verdict, Rejection):
            return handshake.verdict
        if self.judge is None:
            return _NOT_JUDGED
        verdict: Admitted | Rejection | Pending | None = handshake.verdict
        leaf = connection.get_peer_certificate()
        if leaf is None:
            return _NOT_JUDGED
        if verdict is None:
            # No verify callback ran.  Only a resumed session explains that.
            if handshake.certificates or self.policy.session_lifetime is None:
                return _NOT_JUDGED
            handshake.resumed, handshake.judged_at = True, self.now()
            return self.judge.on_resumed(known(encoded(leaf)), connection.server_name)
        if isinstance(verdict, Pending):
            handshake.judged_at = self.now()
            presented = connection.presented_chain()
            verdict = self.judge.on_presented(verdict, known(encoded(leaf)), presented)
        if self.policy.session_lifetime is not None and isinstance(verdict, Admitted):
            self.judge.remember(verdict, connection.server_name)
        return verdict


# The callbacks of an `SSL.Context` are functions, not methods of `GateContext`.  With
# methods the two would form a reference cycle, and an old epoch would stay in memory
# until the garbage collector runs.


def _on_certificate(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
) -> int:
    gate = connection.gate if isinstance(connection, EngineConnection) else None
    if not isinstance(connection, EngineConnection) or gate is None:
        _log.error("a server's Context was used without its engine: the handshake is refused")
        return CERTIFICATE_REJECTED
    if gate.verify(connection, certificate, error, depth, ok) is True:
        return 0
    return verification_error(connection.handshake.verdict)


def _on_server_name(connection: SSL.Connection) -> None:
    if isinstance(connection, EngineConnection) and connection.gate is not None:
        connection.gate.choose_certificate(connection)
    else:
        _log.error("a server's Context was used without its engine: the handshake is refused")
        connection.set_context(_without_certificate())


@cache
def _without_certificate() -> SSL.Context:
    """:returns: a Context with which no handshake and no resumption succeeds."""
    context = new_context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_id(b"nobody")
    return context


def _staple(
    response: OcspResponse, now: Callable[[], datetime]
) -> Callable[[SSL.Connection, None], bytes]:
    """:returns: a callback for clients that ask for an OCSP response."""

    def staple(connection: SSL.Connection, _: None) -> bytes:
        # Nothing is better than a response that has expired: clients refuse that.
        return response.der if now() <= response.next_update else b""

    return staple


#: The possible verdicts.
_VERDICTS = (Admitted, Rejection)

#: This should never be used.  If it is, the client is rejected.
_NOT_JUDGED = Rejection(Reason.INTERNAL_ERROR, "the client was not judged")


def _new_context(policy: TlsPolicy) -> SSL.Context:
    context = new_context(SSL.TLS_SERVER_METHOD, policy.min_version)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    use_elliptic_groups(context)
    # Sessions live in tickets only; the server keeps none.
    if policy.session_lifetime is None:
        # Both are needed: with only one of cache and tickets off, sessions can resume.
        context.set_options(SSL.OP_NO_TICKET)
    else:
        context.set_timeout(max(1, int(policy.session_lifetime)))
    if policy.alpn:
        context.set_alpn_select_callback(_alpn_choice(policy.alpn))
    return context


#: pyOpenSSL has no public name for the type of `SSL.NO_OVERLAPPING_PROTOCOLS`.
_AlpnChoice = Callable[[SSL.Connection, list[bytes]], Any]


def _alpn_choice(ours: Sequence[bytes]) -> _AlpnChoice:
    def choose(connection: SSL.Connection, theirs: list[bytes]) -> Any:
        # An empty answer would end the handshake; this one omits the extension.
        return next((one for one in ours if one in theirs), SSL.NO_OVERLAPPING_PROTOCOLS)

    return choose


def _name_authorities(context: SSL.Context, named: Iterable[bytes]) -> None:
    """
    Set the names for the CertificateRequest.

    :param named: certificates that have these names as subjects.
    """
    with warnings.catch_warnings():
        # pyOpenSSL wants cryptography's objects and warns about its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        for one in named:
            context.add_client_ca(load_certificate(FILETYPE_ASN1, one))
