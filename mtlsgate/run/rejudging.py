"""
From one epoch to the next: what becomes of clients that are connected.

They are judged again, by the path on which they were admitted, under the
rules of the server that they would reach now.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field, frozen
from twisted.logger import Logger

from mtlsgate.admission import Admitted, Pin, Rejection
from mtlsgate.gate.connection import Visit
from mtlsgate.gate.registry import Connections
from mtlsgate.load.epoch import Epoch, LoadedServer
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason
from mtlsgate.run.listening import Place, places_of

_log = Logger("mtlsgate.handover")


@frozen
class Continuation:
    """
    What an epoch makes of a client that an earlier one admitted.

    :ivar server: the server that it would reach now, or None.
    :ivar objection: why it is no longer admitted, or None.
    :ivar pin: by which it is now, or None.
    """

    server: LoadedServer | None
    objection: Rejection | None = None
    pin: Pin | None = None


@frozen(eq=False)
class Handover:
    """
    What one epoch makes of the clients of those before it.

    :ivar epoch: which.
    """

    epoch: Epoch
    _places: dict[str, Place] = field(init=False, repr=False)

    @_places.default
    def _by_key(self) -> dict[str, Place]:
        return {place.key: place for place in places_of(self.epoch)}

    def again(self, visit: Visit, peer: VerifiedPeer | None) -> Rejection | None:
        """
        :param visit: a handshake that began under an earlier epoch, and is held to
            what this one says from now on.
        :returns: why the client does not come in, or None.
        """
        found = self.judge(visit, peer)
        if found.server is not None:
            visit.terms = found.server.gate.terms
        return found.objection

    def follow(self, visit: Visit, connections: Connections) -> None:
        """Count a client that came in so as that of the server that it would reach
        now, and by the pin that it is admitted by now."""
        found = self.judge(visit, visit.peer)
        if found.server is not None and found.objection is None:
            gate = found.server.gate
            connections.adopt(visit, gate.name, gate.terms, found.pin)

    def judge(self, visit: Visit, peer: VerifiedPeer | None) -> Continuation:
        """:param peer: who it is; None where no certificate was asked for."""
        place = self._places.get(visit.place)
        if place is None:
            return Continuation(
                None, Rejection(Reason.SERVER_REMOVED, "no server listens there any more")
            )
        server = place.choose(visit.server_name)
        if server is None:
            return Continuation(
                None,
                Rejection(Reason.UNKNOWN_SERVER_NAME, "no server declares its name any more"),
            )
        judge = server.gate.context.judge
        if judge is None:
            return Continuation(server)
        if peer is None:
            return Continuation(
                server,
                Rejection(Reason.NO_CERTIFICATE, "it came when no certificate was asked for", None),
            )
        verdict = judge.again(peer.path)
        if isinstance(verdict, Admitted):
            return Continuation(server, None, verdict.pin)
        return Continuation(server, verdict)

    def settle(self, connections: Connections) -> Iterator[None]:
        """
        Judge every admitted client again and end those that are not admitted
        any more; a step each, so that the reactor can see to others meanwhile.
        """
        for visit in connections:
            if visit.admitted_at is not None and not visit.ended:
                try:
                    self._settle(visit, connections)
                except Exception:  # noqa: BLE001 -- whatever it is, nobody stays for it
                    _log.failure("{server}: judging a client again failed", server=visit.server)
                    detail = f"{Reason.INTERNAL_ERROR}: judging it again failed"
                    connections.close(visit, Cause.NO_LONGER_ADMITTED, detail)
                yield

    def _settle(self, visit: Visit, connections: Connections) -> None:
        found = self.judge(visit, visit.peer)
        if found.server is not None and not found.server.gate.terms.judged_on_reload:
            if visit.reprieve is not None and found.objection is not None:
                # It is to go already, and nothing of this lets it stay.
                return
            connections.adopt(visit, found.server.gate.name, found.server.gate.terms, visit.pin)
        elif found.server is not None and found.objection is None:
            connections.adopt(visit, found.server.gate.name, found.server.gate.terms, found.pin)
        else:
            assert found.objection is not None
            terms = visit.terms if found.server is None else found.server.gate.terms
            detail = f"{found.objection.reason}: {found.objection.detail}"
            connections.revoke(visit, terms.revoke_grace, Cause.NO_LONGER_ADMITTED, detail)

    def dropped(self, connections: Connections) -> Iterator[tuple[Visit, Rejection | None]]:
        """:returns: each client, and why it would be dropped if the epoch took over, or None."""
        for visit in connections:
            if visit.admitted_at is not None and not visit.ended:
                found = self.judge(visit, visit.peer)
                keeps = found.server is not None and not found.server.gate.terms.judged_on_reload
                yield visit, None if keeps else found.objection
