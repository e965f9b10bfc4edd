"""
A client whose handshake is complete, and whether it may still come in now.

The state at hand-over decides.  The verdict is given when the client's certificate
arrives.  Until the hand-over another epoch may take over, and certificates, pins and
revocation lists may expire.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attrs import evolve, frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Admitted, Rejection
from mtlsgate.admission.listings import Answers, Question
from mtlsgate.admission.verdicts import Path
from mtlsgate.gate.events import Negotiated
from mtlsgate.gate.judging import Held, Judging
from mtlsgate.gate.registries import Known, judged, nothing_known
from mtlsgate.gate.server import GateServer
from mtlsgate.peer import VerifiedPeer
from mtlsgate.tls.engine import Engine


@frozen(kw_only=True)
class Candidate:
    """
    A client that the rules admit.

    :ivar held: its server and its terms, and the rule that admits it.
    :ivar verdict: that of its server's rules, by which it is admitted; None if it is
        admitted by another epoch's, or no certificate is asked for.
    :ivar negotiated: what TLS agreed on.
    :ivar judged_at: when the rules admitted it.
    :ivar presented: returns what it sent besides its path: another path may count.
    """

    held: Held
    verdict: Admitted | None
    negotiated: Negotiated
    judged_at: datetime
    presented: Callable[[], Path] = tuple

    @property
    def asks(self) -> bool:
        """Whether its admission depends on registries."""
        return bool(self.held.open or self.held.answers)

    @property
    def identity(self) -> bytes | None:
        """The identity that limits count it by, or None."""
        return None if self.held.peer is None else self.held.peer.identity


def candidate(engine: Engine, server: GateServer, address: IAddress) -> Candidate | Rejection:
    """
    :param engine: an engine whose handshake is complete.
    :param address: the client's address.
    :returns: the client, or why the rules do not admit it.
    """
    agreed = Negotiated(
        server_name=engine.server_name,
        tls_version=engine.version,
        cipher=engine.cipher,
        group=engine.group,
        alpn=None if engine.alpn is None else engine.alpn.decode("ascii", "backslashreplace"),
        resumed=engine.handshake.resumed,
    )
    peer, pin, verdict = None, None, engine.verdict
    questions: tuple[Question, ...] = ()
    if isinstance(verdict, Rejection):
        return verdict
    if isinstance(verdict, Admitted):
        peer, pin = _verified_peer(verdict, agreed, address), verdict.pin
        questions = verdict.questions
    elif server.context.admission is not None:
        raise TypeError("a client was not judged")
    return Candidate(
        held=Held(
            server=server.name,
            terms=server.terms,
            peer=peer,
            pin=pin,
            authorizer=server.authorizer,
            open=questions,
        ),
        verdict=verdict,
        negotiated=agreed,
        judged_at=engine.handshake.judged_at or server.context.now(),
        presented=engine.presented,
    )


def as_of_now(
    client: Candidate,
    server: GateServer,
    judging: Judging | None,
    listener: str,
    known: Known = nothing_known,
) -> Candidate | Rejection:
    """
    :param server: the server whose rules admitted the client.
    :param judging: judges by the epoch in force; None if the epoch never changes.
    :param listener: the key of the listener that the client connected to.
    :param known: what registries say, as far as it is known.
    :returns: the client as it is admitted now, or why it no longer is.  It must not come
        in while it has `Held.open`.
    """
    now, before = server.context.now(), client.held
    if judging is not None and not judging.is_in_force(listener, server):
        held = judging.judge(listener, client.negotiated.server_name, before.peer, known)
        return held if isinstance(held, Rejection) else evolve(client, held=held, verdict=None)
    has_time_passed = _has_time_passed(client, now)
    if before.peer is None or not (client.asks or has_time_passed):
        return client
    # The last verdict says what matters: to judge without these answers would tell no more.
    answers = known((*before.answers, *before.open))
    if not (answers or before.answers or has_time_passed):
        return client
    judge, path = server.context.judge, before.peer.certificates
    assert judge is not None

    def judge_with(answers: Answers) -> Admitted | Rejection:
        if client.verdict is not None and not has_time_passed:
            confirmed = judge.policy.confirmed(client.verdict, now, answers)
            if confirmed is not None:
                return confirmed
        return judge.still(path, answers) or judge.again(path, answers, client.presented())

    found = judged(judge_with, known, answers)
    verdict = found.verdict
    if isinstance(verdict, Rejection):
        return verdict
    return Candidate(
        held=Held(
            server=before.server,
            terms=before.terms,
            peer=_verified_peer(verdict, client.negotiated, before.peer.address),
            pin=verdict.pin,
            authorizer=before.authorizer,
            device=verdict.device,
            answers=found.answers,
            open=found.open,
        ),
        verdict=verdict,
        negotiated=client.negotiated,
        judged_at=now,
        presented=client.presented,
    )


def _has_time_passed(client: Candidate, now: datetime) -> bool:
    """
    :returns: whether something that the verdict depends on may have expired since.
        Certificates and revocation lists expire at whole seconds.
    """
    if int(client.judged_at.timestamp()) != int(now.timestamp()):
        return True
    pin = client.held.pin
    retires = None if pin is None else pin.retire_after
    return retires is not None and client.judged_at < retires <= now


def _verified_peer(verdict: Admitted, agreed: Negotiated, address: IAddress) -> VerifiedPeer:
    return VerifiedPeer(
        attributes=verdict.attributes,
        path=verdict.path,
        rule=verdict.rule.name,
        address=address,
        server_name=agreed.server_name,
        tls_version=agreed.tls_version,
        cipher=agreed.cipher,
        group=agreed.group,
        alpn=agreed.alpn,
        resumed=agreed.resumed,
    )
