"""
Orders the certificates that an epoch wants from CAs, and takes those that have come.

Who has locked the storage orders: one of several workers, or one of several gates.  All
of them look whether a file of the storage has changed, and use the certificate in it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.acme.schedule import REFUSED, Life, Progress
from mtlsgate.acme.steps import Orders, Outcome, is_time, latest, take_step
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.errors import CredentialError
from mtlsgate.load.acme import credential_of
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.refresh import renewed
from mtlsgate.observe.status import OrderStatus
from mtlsgate.run.regular import RegularService
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.text import printable

_log = Logger("mtlsgate.acme")

#: Seconds between two looks.
INTERVAL = 1.0


@attrs.define(eq=False)
class _State:
    """
    How far one certificate is.

    :ivar version: of what the storage had at the last look.
    :ivar progress: what is known of its orders.
    :ivar is_lost: whether the storage does not have the certificate in use.
    :ivar is_hasty: whether an operator waits, who has started the gate or reloaded.
    :ivar is_underway: whether something is done for it now.
    """

    version: object = ()
    progress: Progress = Progress()
    is_lost: bool = False
    is_hasty: bool = True
    is_underway: bool = False

    @property
    def plan(self) -> Progress:
        """What decides when to order."""
        return self.progress.hastened() if self.is_hasty else self.progress


class CertificateOrders(RegularService):
    """
    Orders what the epoch in force wants.

    :ivar _states: of each certificate, by its key.
    :ivar _number_seen: the number of the epoch at the last look.
    """

    def __init__(self, upkeep: Upkeep, orders: Callable[[], Orders]) -> None:
        """
        :param upkeep: the epoch that wants certificates.
        :param orders: makes what talks to CAs; called in a thread.
        """
        super().__init__(INTERVAL, upkeep.reactor)
        self._upkeep = upkeep
        self._number_seen = upkeep.number
        self._orders = orders
        self._states: dict[Hashable, _State] = {}

    @classmethod
    def of(cls, upkeep: Upkeep) -> CertificateOrders:
        """:returns: what orders by ACME."""
        return cls(upkeep, _from_cas)

    def states(self) -> tuple[OrderStatus, ...]:
        """:returns: how each certificate is."""
        return tuple(map(self._status, self._upkeep.epoch.wanted))

    def _status(self, wanted: WantedCertificate) -> OrderStatus:
        state, life, now = self._state_of(wanted), self._life_of(wanted), self._upkeep.now()
        return OrderStatus(
            names=wanted.names,
            directory=printable(wanted.directory),
            until=None if life is None else life.ends,
            due=state.plan.due(life, now),
            tried=state.progress.tried,
            failures=state.progress.failures,
            problem=state.progress.problem,
        )

    def look(self) -> None:
        """Take what has come, and begin what is due."""
        all_wanted = self._upkeep.epoch.wanted
        for gone in self._states.keys() - {one.key for one in all_wanted}:
            del self._states[gone]
        before, self._number_seen = self._number_seen, self._upkeep.number
        for wanted in all_wanted:
            state = self._state_of(wanted)
            if before != self._number_seen:
                # What a reload has read may be older.
                state.version, state.is_hasty = (), True
            self._look_at(wanted, state)

    def _state_of(self, wanted: WantedCertificate) -> _State:
        return self._states.setdefault(wanted.key, _State())

    def _life_of(self, wanted: WantedCertificate) -> Life | None:
        """:returns: when the certificate in use is valid."""
        for server in self._upkeep.epoch.servers:
            for one in server.gate.context.policy.own:
                if isinstance(one, ServerCredential) and one.source == wanted:
                    return Life(one.chain[0].not_before, one.chain[0].not_after)
        return None

    def _look_at(self, wanted: WantedCertificate, state: _State) -> None:
        version = wanted.storage.version(wanted.file_name)
        if version != state.version and not state.is_underway:
            state.version = version
            kept = wanted.storage.progress(wanted.file_name)
            state.progress = latest(kept, state.progress)
            self._take(wanted, state)
        elif not state.is_underway:
            life = None if state.is_lost else self._life_of(wanted)
            if is_time(state.plan, life, self._upkeep.now()):
                self._begin(state, self._step(wanted, state))

    def _begin(self, state: _State, doing: Deferred[Any]) -> None:
        state.is_underway = True

        def ended(_: object) -> None:
            state.is_underway = False

        doing.addErrback(lambda failure: _log.failure("ordering failed", failure)).addBoth(ended)

    # Taking what has come.

    def _take(self, wanted: WantedCertificate, state: _State) -> None:
        try:
            found = credential_of(wanted)
        except CredentialError as error:
            _log.error(
                "the certificate for {names} in {path} {problem}",
                names=str(wanted),
                path=printable(str(wanted.storage.directory)),
                problem=str(error),
            )
            return
        life = self._life_of(wanted)
        state.is_lost = isinstance(found, MissingCredential) and life is not None
        if state.is_lost and life is not None and life.counts(self._upkeep.now()):
            _log.warn(
                "the storage {path} has no certificate for {names} any more; the one in use "
                "stays until another comes",
                path=printable(str(wanted.storage.directory)),
                names=str(wanted),
            )
            return

        def change(epoch: Epoch) -> Epoch:
            return renewed(epoch, found, self._upkeep.now())

        def took(changes: tuple[str, ...]) -> None:
            life = self._life_of(wanted)
            if changes and life is not None:
                _log.info(
                    "the certificate for {names} is in use, valid until {until:%Y-%m-%d %H:%M:%SZ}",
                    names=str(wanted),
                    until=life.ends,
                )

        self._begin(state, self._upkeep.refresh(change).addCallback(took))

    # Ordering.

    def _step(self, wanted: WantedCertificate, state: _State) -> Deferred[None]:
        def begins() -> None:
            _log.info(
                "ordering a certificate for {names} from {directory}",
                names=str(wanted),
                directory=printable(wanted.directory),
            )

        def step() -> tuple[Outcome, Progress]:
            orders = self._orders()
            return take_step(
                wanted,
                state.progress,
                orders,
                self._upkeep.now,
                self._upkeep.random,
                is_hasty=state.is_hasty,
                begins=begins,
            )

        def stepped(found: tuple[Outcome, Progress]) -> None:
            outcome, state.progress = found
            if outcome in (Outcome.ORDERED, Outcome.FAILED):
                state.is_hasty = False
            if outcome is Outcome.ORDERED:
                _log.info("the CA has issued a certificate for {names}", names=str(wanted))
            elif outcome is Outcome.FAILED:
                _log.error("{problem}", problem=self._failure(wanted, state))

        def broke(failure: Failure) -> None:
            # Whatever it is, it must not be tried again at once.
            _log.failure("ordering a certificate for {names} failed", failure, names=str(wanted))
            state.is_hasty = False
            state.progress = state.progress.failed(
                repr(failure.value),
                self._upkeep.now(),
                first=REFUSED,
                asked=None,
                random=self._upkeep.random(),
            )

        return self._upkeep.in_thread(step).addCallbacks(stepped, broke)

    def _failure(self, wanted: WantedCertificate, state: _State) -> str:
        life, now = self._life_of(wanted), self._upkeep.now()
        again = state.progress.due(life, now)
        if life is None:
            meanwhile = "the gate has none, and rejects every client that asks for it"
        elif life.counts(now):
            meanwhile = f"the one in use is valid until {life.ends:%Y-%m-%d %H:%M:%SZ}"
        else:
            meanwhile = f"the one it had expired at {life.ends:%Y-%m-%d %H:%M:%SZ}"
        return printable(
            f"no certificate for {wanted}: {state.progress.problem}; {meanwhile}; the next "
            f"attempt is at {again:%Y-%m-%d %H:%M:%SZ}"
        )


def _from_cas() -> Orders:
    # The library takes a while to import, and may not be installed.
    from mtlsgate.acme import ordering

    return ordering
