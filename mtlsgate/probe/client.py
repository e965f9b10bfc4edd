"""
Makes one TLS connection to a gate, as a client, to see whether the gate admits it.

It is blocking, uses no reactor, and never sends application data.  It completes the
handshake even if the server's certificate is invalid, because the user wants to know
the server's answer.  It reports a server as verified only if it is.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Literal, TypeVar

from attrs import evolve, field, frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

from mtlsgate.certificates.certificate import UNPARSABLE, Certificate, known
from mtlsgate.certificates.names import Name
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.certificates.server_identity import as_address, name_problem
from mtlsgate.clock import utc_now
from mtlsgate.probe.arguments import ProbeError
from mtlsgate.probe.outcome import (
    CertificateFacts,
    Ending,
    Outcome,
    PathProblem,
    ProbeStage,
    ProbeTarget,
    name_text,
)
from mtlsgate.probe.session import Conversation, ConversationEnd, converse, reason
from mtlsgate.tls.contexts import use_credential
from mtlsgate.tls.trust import encoded, fill

T = TypeVar("T")

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
#: SSL_MODE_NO_AUTO_CHAIN: present exactly the certificates in --cert, and none from --ca.
_NO_AUTO_CHAIN = 0x8
_CLOSE_NOTIFY, _USER_CANCELED = 0, 90
#: X509_V_ERR_UNSPECIFIED, and …UNABLE_TO_VERIFY_LEAF_SIGNATURE, which follows another error.
_UNSPECIFIED, _LEAF_SIGNATURE = 1, 21
#: OpenSSL's names for the states of a client when it is asked for a certificate, and
#: when it has proved that it has the key.
_ASKED = b"SSLv3/TLS read server certificate request"
_PROVED = b"SSLv3/TLS write certificate verify"


def probe(
    target: ProbeTarget,
    *,
    identity: ServerCredential | None = None,
    trust: Iterable[Certificate | x509.Certificate] | None = None,
    version: Literal["1.2", "1.3"] | None = None,
    timeout: float = 10.0,
    wait: float = 1.0,
    now: Callable[[], datetime] = utc_now,
) -> Outcome:
    """
    Connect, do the handshake, and wait for the server's reaction.

    :param identity: the certificate to present if the server asks for one.
    :param trust: the CAs to verify the server's certificate with.  Without them it
        is not verified, and the outcome says so.
    :param version: the only TLS version to offer; by default 1.2 and later.
    :param timeout: seconds for the TCP connection to each of the host's addresses,
        and again for the handshake.
    :param wait: seconds to wait for a rejection after the handshake: in TLS 1.3 the
        client is done before the server has seen its certificate.
    :raises ProbeError: if OpenSSL refuses the identity.
    """
    witness = _Witness()
    connection = _connection(target, identity, trust or (), version, witness)
    offered = None if identity is None else CertificateFacts.of(identity.chain[0])
    outcome = Outcome(target, now(), timeout, wait, Ending.NO_CONNECTION, offered=offered)
    try:
        transport = socket.create_connection((target.host, target.port), timeout)
    except ConnectionResetError:
        return evolve(outcome, ending=Ending.RESET, stage=ProbeStage.HELLO)
    except (OSError, ValueError) as error:
        return evolve(outcome, detail=_in_words(target, error, timeout))
    with transport:
        with suppress(OSError):  # it may have been reset already
            outcome = evolve(outcome, address=transport.getpeername()[0])
        end = converse(Conversation(connection, transport), timeout, wait)
    return _observed(outcome, end, connection, witness, trust is not None)


def _in_words(target: ProbeTarget, error: Exception, timeout: float) -> str:
    match error:
        case socket.gaierror():
            return f"{target.host} does not resolve: {error.strerror}"
        case TimeoutError():
            return f"no answer from {target} within {timeout:g} s; a firewall may be in the way"
        case ConnectionRefusedError():
            return f"nothing listens on {target}"
        case OSError():
            return error.strerror or str(error)
        case _:
            return f"{target.host} is not a name that can be looked up"


@frozen(eq=False)
class _Witness:
    """
    Records what only OpenSSL's callbacks can see.

    :ivar states: every state that the handshake went through.
    :ivar alerts: the numbers of the fatal alerts received.
    :ivar problems: what is wrong with the server's path.
    :ivar judged: the depths that OpenSSL has finished; 0 is the last.
    """

    states: set[bytes] = field(factory=set)
    alerts: list[int] = field(factory=list)
    problems: list[PathProblem] = field(factory=list)
    judged: set[int] = field(factory=set)

    def note_info(self, connection: SSL.Connection, where: int, value: int) -> None:
        self.states.add(connection.get_state_string())
        if where & SSL.SSL_CB_ALERT and where & SSL.SSL_CB_READ:
            # The level, and in the lower byte the description; TLS 1.3 ignores the level,
            # and has two alerts that are no errors (RFC 8446, 6.1).
            level, number = divmod(value, 256)
            is_tls13 = connection.get_protocol_version() == SSL.TLS1_3_VERSION
            if number != _CLOSE_NOTIFY and (level == 2 or (is_tls13 and number != _USER_CANCELED)):
                self.alerts.append(number)

    def note_verification(
        self, connection: SSL.Connection, certificate: X509, number: int, depth: int, ok: int
    ) -> bool:
        """Accept any certificate, but remember what was wrong with it."""
        if ok:
            self.judged.add(depth)
        elif number != _LEAF_SIGNATURE or not self.problems:
            facts = _or_none(lambda: CertificateFacts.of(known(encoded(certificate))))
            self.problems.append(PathProblem(number, depth, facts))
        return True

    def path_problems(self) -> tuple[PathProblem, ...]:
        """:returns: what is wrong with the path; never empty if OpenSSL did not finish."""
        if 0 in self.judged or self.problems:
            return tuple(self.problems)
        return (PathProblem(_UNSPECIFIED, 0, None),)


def _connection(
    target: ProbeTarget,
    identity: ServerCredential | None,
    trust: Iterable[Certificate | x509.Certificate],
    version: Literal["1.2", "1.3"] | None,
    witness: _Witness,
) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_mode(_NO_AUTO_CHAIN)
    context.set_min_proto_version(_VERSIONS[version or "1.2"])
    context.set_max_proto_version(_VERSIONS[version or "1.3"])
    context.set_info_callback(witness.note_info)
    context.set_verify(SSL.VERIFY_PEER, witness.note_verification)
    # Trust each certificate in --ca, including intermediates.
    fill(context.get_cert_store(), trust, X509StoreFlags.PARTIAL_CHAIN)
    if identity is not None:
        try:
            use_credential(context, identity)
        except SSL.Error as error:
            raise ProbeError(
                f"OpenSSL does not take the client certificate: {reason(error)}"
            ) from None
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if as_address(target.server_name) is None:
        connection.set_tlsext_host_name(target.server_name.encode("ascii"))
    return connection


def _observed(
    outcome: Outcome,
    end: tuple[ConversationEnd, bool],
    connection: SSL.Connection,
    witness: _Witness,
    has_trust: bool,
) -> Outcome:
    """:returns: the outcome with all facts about the connection, taken after its end."""
    (how, done), states = end, witness.states
    refused = how.ending is Ending.FAILED and witness.alerts
    outcome = evolve(
        outcome,
        stage=ProbeStage.AFTER if done else ProbeStage.HELLO,
        ending=Ending.ALERT if refused else how.ending,
        detail="" if refused else how.detail,
        alert=witness.alerts[-1] if refused else None,
        asked=True if _ASKED in states else False if done else None,
        presented=_PROVED in states,
    )
    if connection.get_cipher_name() is not None:
        outcome = evolve(
            outcome,
            tls_version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name(),
            group=connection.get_group_name(),
        )
    if outcome.asked:
        named = _or_none(
            lambda: tuple(
                name_text(Name(one.public_bytes()))
                for one in connection.get_client_ca_list(as_cryptography=True)
            )
        )
        outcome = evolve(
            outcome, ca_names=("(a name that does not parse)",) if named is None else named
        )
    if connection.get_peer_certificate() is None:
        return outcome
    chain = [known(encoded(one)) for one in connection.get_peer_cert_chain() or ()]
    facts = _or_none(lambda: tuple(map(CertificateFacts.of, chain)))
    return evolve(
        outcome,
        stage=ProbeStage.AFTER if done else ProbeStage.HANDSHAKE,
        chain=facts or (),
        problems=witness.path_problems() if has_trust else None,
        name_problem=name_problem(chain[0], outcome.target.server_name)
        if chain
        else "the certificate does not parse",
    )


def _or_none(read: Callable[[], T]) -> T | None:
    """:returns: the value read from a certificate; None if that does not parse."""
    with warnings.catch_warnings():
        # cryptography warns about serial numbers that RFC 5280 forbids; they do no harm.
        warnings.simplefilter("ignore")
        try:
            return read()
        except UNPARSABLE:
            return None
