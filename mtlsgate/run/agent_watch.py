"""
Asks SPIFFE agents for what the epoch in force needs, and lets what comes take effect.

What an agent has delivered stays in force while the agent is away, until it expires.  A
message that must not be used is refused, and asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from weakref import ref

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.errors import CredentialError
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.identities import Wanted, not_delivered, supplied, wanted, without_bundle
from mtlsgate.observe.status import AgentStatus
from mtlsgate.run.regular import RegularService
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.spiffe.agents import Agents
from mtlsgate.spiffe.call import PERMISSION_DENIED
from mtlsgate.spiffe.messages import Bundles, Svid, has_lists, read_bundles, read_svids
from mtlsgate.spiffe.subscription import PATIENCE, Stream, Subscription
from mtlsgate.text import printable
from mtlsgate.tls.openssl_errors import REFUSALS, reasons_of
from mtlsgate.tls.server import GateContext, TlsPolicy

_log = Logger("mtlsgate.spiffe")

#: Seconds between two looks at what is needed.
INTERVAL = 1.0

_WHAT = {Stream.SVIDS: "X.509-SVID", Stream.BUNDLES: "trust bundle"}


@attrs.define(eq=False)
class _Asked:
    """
    One stream.

    :ivar subscription: keeps it open.
    :ivar updates: how many messages took effect.
    :ivar last: when the last one came, aware; None before any.
    :ivar problem: why nothing comes, in one line, or None.
    :ivar latest: the message that came last and is not read yet, or None.
    :ivar is_reading: whether a message is read at the moment.
    :ivar denials: how often the agent has said that the gate is not entitled to it: what came
        before that does not count, even if it is read later.
    """

    subscription: Subscription
    updates: int = 0
    last: datetime | None = None
    problem: str | None = None
    latest: bytes | None = None
    is_reading: bool = False
    denials: int = 0


class AgentWatch(RegularService):
    """
    Asks the agents.

    :ivar _asked: the streams, by agent and call.
    :ivar _known: the epoch of the last look, and the streams that it needs.
    :ivar _is_applying: whether the epoch is changed at the moment.
    :ivar _waiting: who waits for the first answers.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        agents: Agents,
        connect: Callable[[str], IStreamClientEndpoint],
    ) -> None:
        """
        :param upkeep: the epoch that needs what they deliver.
        :param agents: keeps what was delivered.
        :param connect: connects to the socket of an agent.
        """
        super().__init__(INTERVAL, upkeep.reactor)
        self._upkeep = upkeep
        self._agents = agents
        self._connect = connect
        self._asked: dict[Wanted, _Asked] = {}
        self._known: tuple[ref[Epoch], frozenset[Wanted]] | None = None
        self._is_applying = False
        self._waiting: list[Deferred[None]] = []

    @classmethod
    def of(cls, upkeep: Upkeep, agents: Agents) -> AgentWatch:
        """
        :param agents: keeps what was delivered.
        :returns: what asks by the sockets of this machine.
        """
        reactor = upkeep.reactor
        return cls(upkeep, agents, lambda path: UNIXClientEndpoint(reactor, path, timeout=PATIENCE))

    def states(self) -> tuple[AgentStatus, ...]:
        """:returns: how each stream is."""
        return tuple(self._state(key, one) for key, one in sorted(self._asked.items()))

    def _state(self, key: Wanted, asked: _Asked) -> AgentStatus:
        agent, stream = key
        svids = self._agents.svids(agent) if stream is Stream.SVIDS else ()
        bundles = self._agents.bundles(agent) if stream is Stream.BUNDLES else {}
        return AgentStatus(
            agent=printable(agent),
            stream=stream.value,
            is_up=asked.subscription.is_up,
            updates=asked.updates,
            last=asked.last,
            problem=asked.problem,
            names=(*(str(one.spiffe_id) for one in svids), *sorted(bundles)),
        )

    def look(self) -> None:
        """Begin to ask for what is needed, end what is not, and let take effect what came."""
        needed = self._needed()
        for gone in self._asked.keys() - needed:
            self._asked.pop(gone).subscription.stop()
            # No key stays in memory that nobody needs, and nothing old comes back.
            self._agents.take_away(*gone)
        for key in sorted(needed - self._asked.keys()):
            self._ask(*key)
        self._apply()

    def _needed(self) -> frozenset[Wanted]:
        epoch = self._upkeep.epoch
        if self._known is None or self._known[0]() is not epoch:
            # Weakly: an epoch that is no longer in force must be freed.
            self._known = ref(epoch), wanted(epoch)
        return self._known[1]

    @property
    def missing(self) -> str | None:
        """What a server waits for, in a few words; None if nothing is missing."""
        return not_delivered(self._upkeep.epoch, self._upkeep.now()) if self._needed() else None

    def first_answers(self, seconds: float) -> Deferred[None]:
        """
        :param seconds: the longest time to wait.
        :returns: fires when all that is needed has taken effect, or as soon as it is clear that
            something will not come at once.
        """
        answered: Deferred[None] = Deferred()
        self._waiting.append(answered)
        timer = self._upkeep.reactor.callLater(seconds, self._answered)

        def over(_: object) -> None:
            if timer.active():
                timer.cancel()

        answered.addCallback(over)
        self._tell_waiting()
        return answered

    def _tell_waiting(self) -> None:
        if self.missing is None or any(one.problem for one in self._asked.values()):
            self._answered()

    def _answered(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        for one in self._asked.values():
            one.subscription.stop()
        self._asked.clear()

    def _ask(self, agent: str, stream: Stream) -> None:
        key = agent, stream
        subscription = Subscription(
            stream,
            self._connect(agent),
            partial(self._came, key),
            partial(self._lost, key),
            self._upkeep.reactor,
            self._upkeep.random,
        )
        self._asked[key] = _Asked(subscription)
        subscription.start()

    def _came(self, key: Wanted, message: bytes) -> None:
        asked = self._asked[key]
        if asked.problem is not None:
            # It is back: the other calls need not wait for long.
            for other, one in self._asked.items():
                if other[0] == key[0]:
                    one.subscription.hasten()
        asked.latest = message
        if not asked.is_reading:
            self._read(key, asked)

    def _read(self, key: Wanted, asked: _Asked) -> None:
        message, asked.latest = asked.latest, None
        assert message is not None
        asked.is_reading = True
        read = _checked_svids if key[1] is Stream.SVIDS else read_bundles

        def ended(_: object) -> None:
            asked.is_reading = False
            if asked.latest is not None:
                self._read(key, asked)

        reading = self._upkeep.in_thread(partial(read, message))
        took = partial(self._took, key, asked, message, asked.denials)
        reading.addCallbacks(took, partial(self._refused, key, asked))
        reading.addErrback(lambda failure: _log.failure("reading failed", failure)).addBoth(ended)

    def _took(self, key: Wanted, asked: _Asked, message: bytes, denials: int, found: Any) -> None:
        if self._asked.get(key) is not asked or asked.denials != denials:
            # Nobody needs it any more, or it was taken away meanwhile.
            return
        agent, stream = key
        if asked.problem is not None:
            _log.info(
                "the agent at {agent} answers {stream} again", agent=agent, stream=stream.value
            )
        if has_lists(message, stream):
            _log.warn(
                "the agent at {agent} sends revocation lists, which are not used: name them in "
                "crl_file or crl_url",
                agent=printable(agent),
            )
        asked.updates, asked.last, asked.problem = asked.updates + 1, self._upkeep.now(), None
        if stream is Stream.SVIDS:
            self._agents.put_svids(agent, found)
            _log.info(
                "{said}", said=printable(f"the agent at {agent} has delivered {_svids(found)}")
            )
        else:
            self._agents.put_bundles(agent, found)
            said = f"the agent at {agent} has delivered the bundles of {_bundles(found)}"
            _log.info("{said}", said=printable(said))
            for name in without_bundle(self._upkeep.epoch, agent, found):
                _log.warn(
                    "the agent at {agent} has delivered no bundle of {name}: nobody of it is "
                    "admitted",
                    agent=printable(agent),
                    name=name,
                )
        self._apply()

    def _refused(self, key: Wanted, asked: _Asked, failure: Failure) -> None:
        failure.trap(CredentialError)
        if self._asked.get(key) is asked and asked.latest is None:
            asked.subscription.refuse(f"what came {failure.value}")

    def _lost(self, key: Wanted, why: str, status: int | None) -> None:
        agent, stream = key
        asked = self._asked[key]
        if status == PERMISSION_DENIED:
            self._denied(agent, stream, asked)
        problem = printable(why)
        if problem != asked.problem:
            asked.problem = problem
            _log.warn(
                "no {what} from the agent at {agent}: {problem}; {meanwhile}",
                what=_WHAT[stream],
                agent=printable(agent),
                problem=problem,
                meanwhile=self._meanwhile(agent, stream),
            )
        self._tell_waiting()

    def _denied(self, agent: str, stream: Stream, asked: _Asked) -> None:
        """What was delivered is to be used no more (SPIFFE Workload API, 5.2)."""
        asked.denials += 1
        asked.latest = None
        if self._agents.take_away(agent, stream):
            _log.warn(
                "the agent at {agent} says that the gate is not entitled to its {what} any more",
                agent=printable(agent),
                what=_WHAT[stream],
            )
            self._apply()

    def _meanwhile(self, agent: str, stream: Stream) -> str:
        if stream is Stream.BUNDLES:
            if self._agents.bundles(agent):
                return "those that it has delivered stay in force"
            return "the rules that need them admit nobody"
        svids = self._agents.svids(agent)
        if not svids:
            return "there is none"
        until = min(one.credential.chain[0].not_after for one in svids)
        return f"what it has delivered stays in force until {until:%Y-%m-%d %H:%M:%SZ}"

    def _apply(self) -> None:
        """Bring together the epoch in force and what was delivered."""
        if self._is_applying or self._upkeep.epoch.delivered == self._agents.version:
            return
        self._is_applying = True

        def done(changes: tuple[str, ...]) -> None:
            self._is_applying = False
            for change in changes:
                _log.info("delivered: {change}", change=change)
            self._tell_waiting()
            # Another message may have come meanwhile.
            self._apply()

        def failed(failure: Failure) -> None:
            # The next look tries again.
            self._is_applying = False
            _log.failure("what an agent has delivered takes no effect", failure)

        applying = self._upkeep.refresh(
            lambda epoch: supplied(epoch, self._agents, self._upkeep.now())
        )
        applying.addCallback(done).addErrback(failed)


def _checked_svids(message: bytes) -> tuple[Svid, ...]:
    """:raises CredentialError: also if OpenSSL would refuse one."""
    found = read_svids(message)
    for one in found:
        try:
            GateContext(TlsPolicy((one.credential,), admission=None))
        except REFUSALS as error:
            text = f"has an X.509-SVID {one.spiffe_id} that OpenSSL refuses: {reasons_of(error)}"
            raise CredentialError(text) from None
    return found


def _svids(found: tuple[Svid, ...]) -> str:
    return ", ".join(
        f"{one.spiffe_id} (until {one.credential.chain[0].not_after:%Y-%m-%d %H:%M:%SZ})"
        for one in found
    )


def _bundles(found: Bundles) -> str:
    counts = {name: len(each) for name, each in sorted(found.items())}
    return ", ".join(f"{name} ({n} CA{'' if n == 1 else 's'})" for name, n in counts.items())
