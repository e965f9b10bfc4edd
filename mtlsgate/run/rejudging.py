"""
From one epoch to the next: what becomes of clients that are connected.

They are judged again, by the path on which they were admitted, under the
rules of the server that they would reach now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen
from twisted.logger import Logger

from mtlsgate.admission import Admitted, Rejection
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission
from mtlsgate.gate.judging import Held
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import LoadedServer
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason
from mtlsgate.run.listening import Place

_log = Logger("mtlsgate.handover")


def _by_key(places: Iterable[Place]) -> Mapping[str, Place]:
    return {place.key: place for place in places}


@frozen(eq=False)
class Handover:
    """
    What one epoch makes of the clients of those before it.

    :ivar places: where that epoch listens, by their keys.
    """

    places: Mapping[str, Place] = field(converter=_by_key, repr=False)

    def is_in_force(self, listener: str, server: object) -> bool:
        """:returns: whether a server stands at that listener in this epoch."""
        place = self.places.get(listener)
        return place is not None and any(one.gate is server for one in place.servers)

    def server_for(self, listener: str, server_name: str | None) -> LoadedServer | Rejection:
        """:returns: the server that a client would reach now, or why there is none."""
        place = self.places.get(listener)
        if place is None:
            return Rejection(Reason.SERVER_REMOVED, "no server listens there any more")
        server = place.choose(server_name)
        if server is None:
            return Rejection(Reason.UNKNOWN_SERVER_NAME, "no server declares its name any more")
        return server

    def judge(
        self, listener: str, server_name: str | None, peer: VerifiedPeer | None
    ) -> Held | Rejection:
        """:returns: what a client is held to, or why it is not admitted."""
        server = self.server_for(listener, server_name)
        return server if isinstance(server, Rejection) else _judged(server, peer)

    def settle(self, registry: Registry) -> Iterator[None]:
        """
        Judge every admitted client again, and end those that are not admitted
        any more; a step each, so that the reactor serves others meanwhile.
        """
        for entry in registry:
            if entry.admission is not None and not entry.ended:
                try:
                    self._settle(entry, entry.admission, registry)
                except Exception:  # noqa: BLE001 -- whatever it is, nobody stays for it
                    _log.failure("{server}: judging a client again failed", server=entry.server)
                    detail = f"{Reason.INTERNAL_ERROR}: judging it again failed"
                    registry.close(entry, Cause.NO_LONGER_ADMITTED, detail)
                yield

    def _settle(self, entry: Entry, admission: Admission, registry: Registry) -> None:
        server = self.server_for(entry.arrival.listener, admission.negotiated.server_name)
        found = server if isinstance(server, Rejection) else _judged(server, admission.peer)
        terms = entry.terms if isinstance(server, Rejection) else server.gate.terms
        if not isinstance(server, Rejection) and not terms.judged_on_reload:
            if entry.reprieve is not None and isinstance(found, Rejection):
                # It is to go already, and nothing of this lets it stay.
                return
            found = Held(
                server=server.gate.name, terms=terms, peer=admission.peer, pin=admission.pin
            )
        if isinstance(found, Held):
            registry.adopt(entry, found)
        else:
            detail = f"{found.reason}: {found.detail}"
            registry.revoke(entry, terms.revoke_grace, Cause.NO_LONGER_ADMITTED, detail)

    def dropped(self, registry: Registry) -> Iterator[tuple[Entry, Rejection | None]]:
        """:returns: each client, and why it would be dropped if the epoch took over, or None."""
        for entry in registry:
            if entry.admission is not None and not entry.ended:
                name = entry.admission.negotiated.server_name
                server = self.server_for(entry.arrival.listener, name)
                if isinstance(server, Rejection):
                    yield entry, server
                    continue
                found = _judged(server, entry.admission.peer)
                if isinstance(found, Held) or not server.gate.terms.judged_on_reload:
                    yield entry, None
                else:
                    yield entry, found


class InForce:
    """
    Answers for the epoch in force; the `Judging` of every connection.

    :ivar handover: of that epoch.
    """

    def __init__(self, handover: Handover) -> None:
        self.handover = handover

    def turn_to(self, handover: Handover) -> None:
        """:param handover: of the epoch that takes over."""
        self.handover = handover

    def is_in_force(self, listener: str, server: object) -> bool:
        """:returns: whether a server stands at that listener now."""
        return self.handover.is_in_force(listener, server)

    def judge(
        self, listener: str, server_name: str | None, peer: VerifiedPeer | None
    ) -> Held | Rejection:
        """:returns: what a client is held to now, or why it is not admitted."""
        return self.handover.judge(listener, server_name, peer)


def _judged(server: LoadedServer, peer: VerifiedPeer | None) -> Held | Rejection:
    gate = server.gate
    judge = gate.context.judge
    if judge is None:
        # Its admission goes on as it was.
        return Held(server=gate.name, terms=gate.terms, peer=peer, pin=None)
    if peer is None:
        return Rejection(Reason.NO_CERTIFICATE, "it came when no certificate was asked for", None)
    verdict = judge.again(peer.path)
    if not isinstance(verdict, Admitted):
        return verdict
    if verdict.rule.name != peer.rule:
        peer = evolve(peer, rule=verdict.rule.name)
    return Held(server=gate.name, terms=gate.terms, peer=peer, pin=verdict.pin)
