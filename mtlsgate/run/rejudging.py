"""
Judges connected clients again when another epoch takes over.

Each client is judged by the path on which it was admitted, under the rules of the
server that it would reach now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial

from attrs import evolve, field, frozen
from twisted.logger import Logger

from mtlsgate.admission import Rejection
from mtlsgate.admission.listings import NOT_HEARD, turned_against, unanswered
from mtlsgate.clientgate.gate import ClientGate
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission, Destination
from mtlsgate.gate.judging import Held, held_as_before
from mtlsgate.gate.registries import Judged, Known, judged, known_of_live, nothing_known
from mtlsgate.gate.server import GateServer
from mtlsgate.gate.terms import Terms
from mtlsgate.load.servers import LoadedServer
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import About, Reason
from mtlsgate.run.listening import AnyPlace, ClientPlace, Place

_log = Logger("mtlsgate.handover")


def _by_key(places: Iterable[AnyPlace]) -> Mapping[str, AnyPlace]:
    return {place.key: place for place in places}


@frozen(eq=False)
class Handover:
    """
    Judges the clients of earlier epochs by one epoch.

    :ivar places: that epoch's addresses, by their keys.
    """

    places: Mapping[str, AnyPlace] = field(converter=_by_key, repr=False)

    def is_in_force(self, listener: str, server: object) -> bool:
        """:returns: whether this epoch has that server or client gate at that listener."""
        place = self.places.get(listener)
        return place is not None and any(one.gate is server for one in place.occupants)

    def client_gate_for(self, listener: str) -> ClientGate | Rejection:
        """:returns: the client gate that a program would reach now, or why there is none."""
        place = self.places.get(listener)
        if isinstance(place, ClientPlace):
            return place.client.gate
        return Rejection(Reason.SERVER_REMOVED, "no client gate listens there any more")

    def refuse_destination(self, listener: str, destination: Destination) -> Rejection | None:
        """:returns: why a client gate's connection would not be made now, or None."""
        gate = self.client_gate_for(listener)
        return gate if isinstance(gate, Rejection) else gate.refuse(destination)

    def server_for(self, listener: str, server_name: str | None) -> LoadedServer | Rejection:
        """:returns: the server that a client would reach now, or why there is none."""
        place = self.places.get(listener)
        if not isinstance(place, Place):
            return Rejection(Reason.SERVER_REMOVED, "no server listens there any more")
        server = place.choose(server_name)
        if server is None:
            return Rejection(Reason.UNKNOWN_SERVER_NAME, "no server declares its name any more")
        return server

    def judge(
        self,
        listener: str,
        server_name: str | None,
        peer: VerifiedPeer | None,
        known: Known = nothing_known,
    ) -> Held | Rejection:
        """:returns: a client's server and terms, or why it is not admitted."""
        server = self.server_for(listener, server_name)
        if isinstance(server, Rejection):
            return server
        return _Verdicts().held(server.gate, peer, known)

    def recheck(self, entry: Entry, known: Known, now: datetime) -> Held | Rejection | None:
        """
        Judge a live connection after a change in a registry.

        :param now: the time to judge by, aware.
        :returns: what it is held to; why it must end; None if nothing follows from the
            change.
        """
        admission = entry.admission
        assert admission is not None
        server = self._server_of(entry, admission)
        if not isinstance(server, Rejection):
            found = _Verdicts().held(server.gate, admission.peer, known)
            if isinstance(found, Held) or found.reason.about is About.REGISTRY:
                return found
        # What a reload decided, or keeps, is not decided again.  What registries say counts.
        answers = known(tuple(admission.answers))
        against = turned_against(admission.answers, answers, now)
        missing = unanswered(admission.answers, answers)
        if against is not None or not missing:
            return against
        return evolve(held_as_before(entry.server, entry.terms, admission), open=missing)

    def settle(
        self, connections: Connections, open_: Callable[[Entry], object] = id
    ) -> Iterator[None]:
        """
        Judge every admitted client again, one a step, and close those that are no
        longer admitted.  First come clients that can be rejected without verifying a
        path, so that a denial takes effect soon.  Then come those whose path the
        rules no longer admit, unless another path helps; then the rest.

        :param open_: is told of connections about which registries must be asked.
        """
        verdicts, doubtful, others = _Verdicts(), list[Entry](), list[Entry]()
        for entry in connections:
            if not _settled(self._settle_at_once, entry, connections, verdicts):
                is_doubtful = self._is_doubtful(entry, verdicts, connections.now())
                (doubtful if is_doubtful else others).append(entry)
            yield
        for entry in (*doubtful, *others):
            _settled(partial(self._settle, open_=open_), entry, connections, verdicts)
            yield

    def _is_doubtful(self, entry: Entry, verdicts: _Verdicts, now: datetime) -> bool:
        """:returns: whether the rules reject the path on which a client was admitted."""
        if entry.admission is None or entry.admission.peer is None:
            return False
        server = self._server_of(entry, entry.admission)
        if isinstance(server, Rejection):
            return True
        return verdicts.is_doubtful(server.gate, entry.admission.peer, now)

    def _settle_at_once(
        self, entry: Entry, admission: Admission, connections: Connections, verdicts: _Verdicts
    ) -> bool:
        """:returns: whether a client is settled, without verifying a path."""
        if admission.destination is not None:
            self._settle_destination(entry, admission.destination, connections)
            return True
        server = self._server_of(entry, admission)
        if isinstance(server, Rejection):
            _revoke(entry, server, entry.terms, connections)
            return True
        if not server.gate.terms.judged_on_reload:
            return False
        rejection = verdicts.at_once(server.gate, admission.peer)
        if rejection is not None:
            _revoke(entry, rejection, server.gate.terms, connections)
        return rejection is not None

    def _settle_destination(
        self, entry: Entry, destination: Destination, connections: Connections
    ) -> None:
        gate = self.client_gate_for(entry.arrival.listener)
        if isinstance(gate, Rejection):
            _revoke(entry, gate, entry.terms, connections)
            return
        # What is already marked for closing stays marked.
        keeps = not gate.terms.judged_on_reload and entry.reprieve is None
        rejection = None if keeps else gate.refuse(destination)
        if rejection is None:
            held = Held(server=gate.name, terms=gate.terms, peer=None, pin=None)
            connections.adopt(entry, held)
        elif gate.terms.judged_on_reload:
            _revoke(entry, rejection, gate.terms, connections)

    def _settle(
        self,
        entry: Entry,
        admission: Admission,
        connections: Connections,
        verdicts: _Verdicts,
        open_: Callable[[Entry], object],
    ) -> bool:
        server = self._server_of(entry, admission)
        assert not isinstance(server, Rejection)
        gate = server.gate
        if not gate.terms.judged_on_reload:
            known = known_of_live(connections.registries, admission.answers)
            if (
                entry.reprieve is None
                or self._why_dropped(entry, admission, verdicts, known) is None
            ):
                connections.adopt(entry, held_as_before(gate.name, gate.terms, admission))
            # Otherwise it is already marked for closing, and stays marked.
            return True
        known = known_of_live(connections.registries, admission.answers)
        found = verdicts.held(gate, admission.peer, known)
        if isinstance(found, Held):
            if found.open:
                # It stays while it is asked about, and counts as depending on the answers.
                waits = dict.fromkeys(found.open, NOT_HEARD)
                found = evolve(found, answers={**found.answers, **waits})
                open_(entry)
            connections.adopt(entry, found)
        else:
            _revoke(entry, found, gate.terms, connections)
        return True

    def _server_of(self, entry: Entry, admission: Admission) -> LoadedServer | Rejection:
        return self.server_for(entry.arrival.listener, admission.negotiated.server_name)

    def dropped(self, connections: Connections) -> Iterator[tuple[Entry, Rejection | None]]:
        """:returns: each client, and why it would be dropped if the epoch took over, or None."""
        verdicts = _Verdicts()
        for entry in connections:
            if entry.admission is None or entry.ended:
                continue
            if entry.admission.destination is not None:
                yield entry, self._why_cut(entry, entry.admission.destination)
            else:
                server = self._server_of(entry, entry.admission)
                keeps = isinstance(server, LoadedServer) and not server.gate.terms.judged_on_reload
                yield (
                    entry,
                    None
                    if keeps
                    else self._why_dropped(
                        entry,
                        entry.admission,
                        verdicts,
                        known_of_live(connections.registries, entry.admission.answers),
                    ),
                )

    def _why_cut(self, entry: Entry, destination: Destination) -> Rejection | None:
        """:returns: why this epoch would end a client gate's connection, or None."""
        gate = self.client_gate_for(entry.arrival.listener)
        if isinstance(gate, Rejection):
            return gate
        return gate.refuse(destination) if gate.terms.judged_on_reload else None

    def _why_dropped(
        self, entry: Entry, admission: Admission, verdicts: _Verdicts, known: Known
    ) -> Rejection | None:
        """:returns: why this epoch does not admit a client, or None."""
        server = self._server_of(entry, admission)
        if isinstance(server, Rejection):
            return server
        found = verdicts.held(server.gate, admission.peer, known)
        return found if isinstance(found, Rejection) else None


class InForce:
    """
    Judges by the epoch in force; the `Judging` of every connection.

    :ivar handover: that epoch's.
    """

    def __init__(self, handover: Handover) -> None:
        self.handover = handover

    def turn_to(self, handover: Handover) -> None:
        """:param handover: that of the epoch that takes over."""
        self.handover = handover

    def is_in_force(self, listener: str, server: object) -> bool:
        """:returns: whether the epoch in force has that server at that listener."""
        return self.handover.is_in_force(listener, server)

    def judge(
        self,
        listener: str,
        server_name: str | None,
        peer: VerifiedPeer | None,
        known: Known = nothing_known,
    ) -> Held | Rejection:
        """:returns: a client's server and terms now, or why it is not admitted."""
        return self.handover.judge(listener, server_name, peer, known)

    def refuse_destination(self, listener: str, destination: Destination) -> Rejection | None:
        """:returns: why a client gate's connection may not be made now, or None."""
        return self.handover.refuse_destination(listener, destination)


class _Verdicts:
    """
    Verdicts on connected clients at one time.  Each leaf and each path is judged only
    once for each server, however many connections have it.
    """

    def __init__(self) -> None:
        self._at_once: dict[tuple[int, object], Rejection | None] = {}
        self._doubtful: dict[tuple[int, object], bool] = {}
        self._whole: dict[tuple[int, object], Judged] = {}

    def at_once(self, gate: GateServer, peer: VerifiedPeer | None) -> Rejection | None:
        """:returns: why a client is rejected, if that can be told without verifying a
        path; otherwise None."""
        judge = gate.context.judge
        if judge is None:
            return None
        if peer is None:
            return _NO_CERTIFICATE
        key = id(gate), peer.certificates
        if key not in self._at_once:
            self._at_once[key] = judge.rejects_at_once(peer.certificates)
        return self._at_once[key]

    def is_doubtful(self, gate: GateServer, peer: VerifiedPeer, now: datetime) -> bool:
        """:returns: whether the rules alone reject the path on which a client was
        admitted."""
        policy, key = gate.context.admission, (id(gate), peer.certificates)
        if policy is None:
            return False
        if key not in self._doubtful:
            try:
                verdict = policy.judge(peer.certificates, now)
            except Exception:  # noqa: BLE001 -- it only decides who is next
                return True
            self._doubtful[key] = isinstance(verdict, Rejection)
        return self._doubtful[key]

    def held(
        self, gate: GateServer, peer: VerifiedPeer | None, known: Known = nothing_known
    ) -> Held | Rejection:
        """
        :param known: what registries say of this client.
        :returns: what a client is held to, or why it is not admitted.
        """
        judge = gate.context.judge
        if judge is None:
            # Its admission stays as it was.
            return Held(server=gate.name, terms=gate.terms, peer=peer, pin=None)
        if peer is None:
            return _NO_CERTIFICATE
        key = id(gate), peer.certificates
        found = self._whole.get(key)
        if found is None:
            found = judged(partial(judge.again, peer.certificates), known)
            if not found.answers and not found.open:
                # What registries say may change while the others are judged.
                self._whole[key] = found
        verdict = found.verdict
        if isinstance(verdict, Rejection):
            return verdict
        peer = peer.by(peer.certificates, verdict.rule.name, verdict.attributes)
        return Held(
            server=gate.name,
            terms=gate.terms,
            peer=peer,
            pin=verdict.pin,
            authorizer=gate.authorizer,
            device=verdict.device,
            answers=found.answers,
            open=found.open,
        )


_NO_CERTIFICATE = Rejection(
    Reason.NO_CERTIFICATE, "it came when no certificate was asked for", None
)


def _settled(
    settle: Callable[[Entry, Admission, Connections, _Verdicts], bool],
    entry: Entry,
    connections: Connections,
    verdicts: _Verdicts,
) -> bool:
    """:returns: whether a client is settled."""
    if entry.admission is None or entry.ended:
        # A client that is not yet admitted is judged at its admission.
        return True
    try:
        return settle(entry, entry.admission, connections, verdicts)
    except Exception:  # noqa: BLE001 -- whatever it is, nobody stays for it
        _log.failure("{server}: judging a client again failed", server=entry.server)
        connections.expel(entry, Rejection(Reason.INTERNAL_ERROR, "judging it again failed"))
        return True


def _revoke(entry: Entry, rejection: Rejection, terms: Terms, connections: Connections) -> None:
    connections.revoke(entry, terms.revoke_grace, rejection)
