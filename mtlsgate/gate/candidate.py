"""
A client whose handshake is complete, and whether it may still come in now.

The state at hand-over decides.  The verdict is given when the client's certificate
arrives.  Until the hand-over another epoch may take over, and certificates, pins and
revocation lists may expire.
"""

from __future__ import annotations

from datetime import datetime

from attrs import evolve, frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Admitted, Pin, Rejection
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.events import Negotiated
from mtlsgate.gate.judging import Judging
from mtlsgate.gate.server import GateServer
from mtlsgate.gate.terms import Terms
from mtlsgate.peer import VerifiedPeer
from mtlsgate.tls.engine import Engine


@frozen(kw_only=True)
class Candidate:
    """
    A client that the rules admit.

    :ivar peer: the verified client; None if no certificate is asked for.
    :ivar pin: the pin that admits it, or None.
    :ivar negotiated: what TLS agreed on.
    :ivar judged_at: when the rules admitted it.
    :ivar server: the name of its server.
    :ivar terms: that server's terms.
    :ivar authorizer: that server's authorizer, or None.
    """

    peer: VerifiedPeer | None
    pin: Pin | None
    negotiated: Negotiated
    judged_at: datetime
    server: str
    terms: Terms
    authorizer: Authorizer | None

    @property
    def identity(self) -> bytes | None:
        """The identity that limits count it by, or None."""
        return None if self.peer is None else self.peer.identity


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
    if isinstance(verdict, Rejection):
        return verdict
    if isinstance(verdict, Admitted):
        peer, pin = _verified_peer(verdict, agreed, address), verdict.pin
    elif server.context.admission is not None:
        raise TypeError("a client was not judged")
    return Candidate(
        peer=peer,
        pin=pin,
        negotiated=agreed,
        judged_at=engine.handshake.judged_at or server.context.now(),
        server=server.name,
        terms=server.terms,
        authorizer=server.authorizer,
    )


def as_of_now(
    client: Candidate, server: GateServer, judging: Judging | None, listener: str
) -> Candidate | Rejection:
    """
    :param server: the server whose rules admitted the client.
    :param judging: judges by the epoch in force; None if the epoch never changes.
    :param listener: the key of the listener that the client connected to.
    :returns: the client as it is admitted now, or why it no longer is.
    """
    now = server.context.now()
    if judging is not None and not judging.is_in_force(listener, server):
        held = judging.judge(listener, client.negotiated.server_name, client.peer)
        if isinstance(held, Rejection):
            return held
        return evolve(
            client,
            peer=held.peer,
            pin=held.pin,
            server=held.server,
            terms=held.terms,
            authorizer=held.authorizer,
        )
    if client.peer is None or not _has_time_passed(client, now):
        return client
    judge = server.context.judge
    assert judge is not None
    verdict = judge.still(client.peer.certificates) or judge.again(client.peer.certificates)
    if isinstance(verdict, Rejection):
        return verdict
    peer = evolve(client.peer, rule=verdict.rule.name)
    return evolve(client, peer=peer, pin=verdict.pin, judged_at=now)


def _has_time_passed(client: Candidate, now: datetime) -> bool:
    """
    :returns: whether something that the verdict depends on may have expired since.
        Certificates and revocation lists expire at whole seconds.
    """
    if int(client.judged_at.timestamp()) != int(now.timestamp()):
        return True
    retires = None if client.pin is None else client.pin.retire_after
    return retires is not None and client.judged_at < retires <= now


def _verified_peer(verdict: Admitted, agreed: Negotiated, address: IAddress) -> VerifiedPeer:
    return VerifiedPeer(
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
