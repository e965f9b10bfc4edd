"""
The TLS side of a server: one `SSL.Context`, its options and its callbacks.

The verify callback records the path that OpenSSL verified, hands it to the `Judge`
at depth 0 and answers with the verdict.  In two cases the verdict comes when the
handshake is done, and nothing is handed over before: if a session is resumed, and
if the judge says `Pending`, because the verdict depends on certificates that
OpenSSL did not use and does not show yet.
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
from mtlsgate.certificates.parsing import ServerCredential
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
from mtlsgate.tls.trust import encoded, fill

#: Without one, an attempt to resume would be an error and not a full handshake.
_SESSION_ID = b"mtlsgate"

_log = Logger("mtlsgate.context")


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
    :ivar always_ask_twice: whether every path needs the consent of the second
        validator, and not only those with name constraints.
    :ivar send_ca_names: whether the CertificateRequest names the CAs.
    :ivar session_lifetime: for how many seconds a session can be resumed; None
        if not at all.
    :ivar alpn: the application protocols offered, the preferred first; empty
        leaves the extension unanswered.
    """

    credentials: tuple[ServerCredential, ...]
    admission: AdmissionPolicy | None
    min_version: Literal["1.2", "1.3"] = "1.2"
    strict: bool = True
    always_ask_twice: bool = False
    send_ca_names: bool = True
    session_lifetime: float | None = None
    alpn: tuple[bytes, ...] = ()


class GateContext:
    """
    Makes the TLS engines of one server's connections.

    Whoever takes an `SSL.Context` out of it and uses it elsewhere gets no
    handshake done: its callbacks know the connections of engines from others.

    :ivar policy: what it was built from.
    :ivar admission: who is let in, or None for anyone.
    :ivar request_size: how long a CertificateRequest with all names of CAs may be, in
        bytes; if that is too long for some clients, it has none.
    :ivar judge: gives the verdict; None where no certificate is asked for.
    :ivar now: the time that certificates are judged by.
    :ivar _contexts: one for each certificate.
    :ivar _first: what connections are made with, before the certificate is chosen.
    """

    def __init__(self, policy: TlsPolicy, now: Callable[[], datetime] = utc_now) -> None:
        """
        :param now: the time that certificates are judged by.
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
        self._contexts = [self._with_certificate(one, named) for one in policy.credentials]
        self._by_name = first_by_name(
            (one.chain[0].readable_names.dns, context)
            for one, context in zip(policy.credentials, self._contexts, strict=True)
        )
        self._first = self._contexts[0]
        if policy.session_lifetime is not None:
            # Tickets are sealed with the keys of the Context that a connection was
            # made with, and bear the session id of the one that it has then.  So no
            # ticket of an engine is worth anything where one of these Contexts is
            # used without an engine: there, either one or the other is different.
            self._first = self._new_context()
            self._first.set_session_id(b"mtlsgate, without a certificate")

    def _with_certificate(
        self, credential: ServerCredential, named: Sequence[bytes]
    ) -> SSL.Context:
        context = self._new_context()
        context.set_session_id(_SESSION_ID)
        use_credential(context, credential)
        if self.judge is not None:
            fill(context.get_cert_store(), self.judge.anchors, self.judge.flags)
            _name_authorities(context, named)
        return context

    def _new_context(self) -> SSL.Context:
        """:returns: what all Contexts of the server have in common."""
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

    def accept(self) -> Engine:
        """:returns: the engine of a connection that was accepted."""
        connection = EngineConnection(self._first, self)
        if self._first is not self._contexts[0]:
            connection.set_context(self._contexts[0])
        connection.set_accept_state()
        return Engine(connection, None if self.judge is None else self.conclude)

    def choose_certificate(self, connection: EngineConnection) -> None:
        """Show the certificate that bears the name that the client asks for."""
        # All contexts are alike but for the certificate, so what was begun
        # under the first one's verify settings goes on under the same.
        context = self._by_name.find(connection.server_name)
        if context is not None and context is not self._contexts[0]:
            connection.set_context(context)

    def verify(
        self,
        connection: EngineConnection,
        certificate: X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        """:returns: whether to go on with the handshake."""
        # An exception would leave the handshake without an alert, and a truthy
        # answer that is no bool would admit: everything ends in True or False.
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
        :returns: the verdict at depth 0 or at an error; before that None.
        """
        assert self.judge is not None
        found = known(encoded(certificate))
        if not ok:
            verdict = self.judge.on_error(error, depth, found)
            if isinstance(handshake.verdict, Pending) and isinstance(verdict, Rejection):
                # The first error is the one to tell.
                return handshake.verdict.rejection
            return verdict
        handshake.certificates[depth] = found
        if depth > 0 or handshake.verdict is not None:
            return None
        handshake.judged_at = self.now()
        return self.judge.on_path(handshake.path)

    def conclude(self, connection: EngineConnection) -> Admitted | Rejection:
        """
        :param connection: whose handshake is complete.
        :returns: the verdict.  It is there already, but for a resumed session,
            which meets no verify callback, and for a path that OpenSSL did not
            choose.
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
            # No verify callback ran: a session that was resumed, or nothing known.
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


# An `SSL.Context` has these for callbacks, and not the methods of a `GateContext`: the
# two would hold each other, and an old epoch, with all that OpenSSL keeps of it, would
# stay until garbage is collected, which may be many epochs later.


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
    """:returns: a Context with which no handshake succeeds, and no session resumes."""
    context = new_context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_id(b"nobody")
    return context


#: What there is to be said of a client.
_VERDICTS = (Admitted, Rejection)

#: Nothing is known to lead here; whatever does is not let in.
_NOT_JUDGED = Rejection(Reason.INTERNAL_ERROR, "the client was not judged")


def _new_context(policy: TlsPolicy) -> SSL.Context:
    context = new_context(SSL.TLS_SERVER_METHOD, policy.min_version)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    use_elliptic_groups(context)
    # Tickets or nothing: no session is kept here.
    if policy.session_lifetime is None:
        # Together with the cache being off: either alone leaves a way to resume.
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
        # An empty answer would end the handshake; this one leaves the extension out.
        return next((one for one in ours if one in theirs), SSL.NO_OVERLAPPING_PROTOCOLS)

    return choose


def _name_authorities(context: SSL.Context, named: Iterable[bytes]) -> None:
    """
    Set the names for the CertificateRequest.

    :param named: certificates that bear them.
    """
    with warnings.catch_warnings():
        # pyOpenSSL would rather have objects of cryptography.
        warnings.simplefilter("ignore", DeprecationWarning)
        for one in named:
            context.add_client_ca(load_certificate(FILETYPE_ASN1, one))
