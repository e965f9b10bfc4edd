"""
Counts the verdicts of the shadow, and remembers the clients that they concern.

It remembers a limited number of clients, whatever they send: anybody can present
certificates that would be admitted by a shadow that lets in anyone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

from attrs import define, field

from mtlsgate.gate.shadow import NotJudged, Outcome, ShadowVerdict
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.observe.shadow_status import MOST_CLIENTS, OutcomeCount, RuleUse, ShadowClient
from mtlsgate.peer import address_text
from mtlsgate.text import loggable, printable

#: How many identities are counted, and how many bytes of each are kept.
MOST_IDENTITIES, IDENTITY_BYTES = 10_000, 8
#: The outcomes whose clients are remembered, the most important first.
TOLD = (
    Outcome.WOULD_BE_OUT,
    Outcome.WOULD_BE_IN,
    Outcome.OTHER_SERVER,
    Outcome.OTHER_RULE,
)

#: Whose clients are the same: the server in force, and the identity.
_Key = tuple[str, bytes | None]


@define
class _Client:
    """
    What is remembered of a client.

    :ivar latest: the latest verdict.
    :ivar first: when the first one with this outcome was given.
    :ivar count: how many there were.
    """

    latest: ShadowVerdict
    first: datetime
    count: int = 0


@define
class ShadowTally:
    """
    What was counted since the shadow began.

    :ivar counts: verdicts, by server, outcome, rule and reason.
    :ivar uses: admissions by rules of the shadow, by server and rule.
    :ivar handshakes: how many handshakes were judged.
    :ivar live: how many connected clients were judged.
    :ivar left_out: how many verdicts are of no client that is remembered.
    :ivar identities: the first bytes of the identities of clients that are admitted, or
        would be.
    :ivar is_full: whether there were more of them than are counted.
    """

    counts: Counter[tuple[str, str, str, str]] = field(factory=Counter)
    uses: Counter[tuple[str, str]] = field(factory=Counter)
    handshakes: int = 0
    live: int = 0
    left_out: int = 0
    identities: set[bytes] = field(factory=set)
    is_full: bool = False
    _clients: dict[Outcome, dict[_Key, _Client]] = field(
        factory=lambda: {outcome: {} for outcome in TOLD}
    )
    _told: set[tuple[Outcome, str, bytes | None]] = field(factory=set)

    def note(self, verdict: ShadowVerdict) -> bool:
        """
        Count a verdict.

        :returns: whether it is news: the first with this outcome on this client.
        """
        outcome, then = verdict.outcome, verdict.then
        server = verdict.now.server
        self.counts[server, outcome.value, verdict.rule, verdict.reason] += 1
        if verdict.is_live:
            self.live += 1
        else:
            self.handshakes += 1
        if then is not None and then.rejection is None:
            self.uses[then.server, then.rule or ""] += 1
        self._note_identity(verdict)
        return self._remember(verdict, outcome)

    def note_not_judged(self, server: str, why: NotJudged) -> None:
        """Count a client that is not even looked at."""
        self.handshakes += 1
        self.counts[server, Outcome.NOT_JUDGED.value, "", why.value] += 1

    def _note_identity(self, verdict: ShadowVerdict) -> None:
        is_in = verdict.then is not None and verdict.then.rejection is None
        if verdict.identity is None or (verdict.now.rejection is not None and not is_in):
            return
        known = verdict.identity[:IDENTITY_BYTES]
        if known in self.identities:
            return
        if len(self.identities) < MOST_IDENTITIES:
            self.identities.add(known)
        else:
            self.is_full = True

    def _remember(self, verdict: ShadowVerdict, outcome: Outcome) -> bool:
        key = verdict.now.server, verdict.identity
        if verdict.now.rejection is None and outcome is not Outcome.NOT_JUDGED:
            # Only what would become of it now is of interest.  A rejected client has not
            # shown that it has the key: it must not make anybody be forgotten.
            for other in TOLD:
                if other not in (outcome, Outcome.WOULD_BE_IN):
                    self._clients[other].pop(key, None)
        if outcome not in self._clients:
            return False
        clients = self._clients[outcome]
        known = clients.get(key)
        if known is None:
            if len(clients) >= MOST_CLIENTS:
                self.left_out += 1
                return False
            known = clients[key] = _Client(verdict, verdict.at)
        known.latest = verdict
        known.count += 1
        return self._is_news((outcome, *key))

    def _is_news(self, told: tuple[Outcome, str, bytes | None]) -> bool:
        if told in self._told or len(self._told) >= MOST_CLIENTS * len(TOLD):
            return False
        self._told.add(told)
        return True

    def count_of(self, outcome: Outcome) -> int:
        """:returns: how many verdicts had an outcome."""
        return sum(count for (_, one, _, _), count in self.counts.items() if one == outcome.value)

    def __iter__(self) -> Iterator[ShadowVerdict]:
        """The latest verdict on each client that is remembered."""
        for clients in self._clients.values():
            for client in clients.values():
                yield client.latest

    def outcome_counts(self) -> tuple[OutcomeCount, ...]:
        """:returns: the verdicts, the most frequent first."""
        return tuple(
            OutcomeCount(
                server=printable(server),
                outcome=outcome,
                rule=printable(rule),
                reason=reason,
                count=count,
            )
            for (server, outcome, rule, reason), count in self.counts.most_common()
        )

    def clients(self, connected: Mapping[_Key, int]) -> tuple[ShadowClient, ...]:
        """
        :param connected: how many connections there are, by server and identity.
        :returns: the clients that are remembered: the outcomes by their weight, and of one
            outcome those that came most recently first.
        """
        return tuple(
            _status(outcome, client, connected.get(key, 0))
            for outcome, clients in self._clients.items()
            for key, client in sorted(
                clients.items(), key=lambda one: one[1].latest.at, reverse=True
            )
        )

    def rule_uses(self, rules: Iterator[tuple[str, str]]) -> tuple[RuleUse, ...]:
        """:param rules: all rules of the shadow, by server and name."""
        return tuple(
            RuleUse(server=printable(server), rule=printable(rule), count=self.uses[server, rule])
            for server, rule in rules
        )


def _status(outcome: Outcome, client: _Client, connected: int) -> ShadowClient:
    latest, leaf = client.latest, client.latest.leaf
    now, then = latest.now, latest.then
    assert then is not None
    return ShadowClient(
        outcome=outcome.value,
        server=printable(now.server),
        rule=None if now.rule is None else printable(now.rule),
        reason=None if now.rejection is None else now.rejection.reason.value,
        server_then=printable(then.server) if then.server else None,
        rule_then=None if then.rule is None else printable(then.rule),
        reason_then=None if then.rejection is None else then.rejection.reason.value,
        detail_then=None if then.rejection is None else loggable(then.rejection.detail),
        identity=None if leaf is None else leaf.identity.hex(),
        sha256=None if leaf is None else leaf.sha256.hex(),
        subject=None if leaf is None else loggable(subject_of(leaf)),
        address=printable(address_text(latest.address)),
        first=client.first,
        last=latest.at,
        count=client.count,
        connected=connected,
    )
