"""
What the admin endpoint tells of the shadow.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from attrs import evolve, frozen

from mtlsgate.observe.status_value import StatusValue

#: How many clients are remembered, of each outcome.
MOST_CLIENTS = 1000


@frozen(kw_only=True)
class OutcomeCount(StatusValue):
    """
    How many verdicts of the shadow had one outcome.

    :ivar server: the server in force.
    :ivar outcome: ``same``, ``other_rule``, ``other_server``, ``would_be_out``,
        ``would_be_in`` or ``not_judged``.
    :ivar rule: for ``would_be_in`` the rule that would admit them, otherwise the one that
        does; "" for none.
    :ivar reason: why they would be out, or are out now, or were not judged; or "".
    :ivar count: how many.
    """

    server: str
    outcome: str
    rule: str
    reason: str
    count: int


@frozen(kw_only=True)
class ShadowClient(StatusValue):
    """
    A client on which the shadow has another verdict.

    :ivar outcome: as for `OutcomeCount`.
    :ivar server: the server in force.
    :ivar rule: the rule that admits it, or None.
    :ivar reason: why it is rejected, or None.
    :ivar server_then: the server that it would reach, or None.
    :ivar rule_then: the rule that would admit it, or None.
    :ivar reason_then: why it would be rejected, or None.
    :ivar detail_then: the same in a line.
    :ivar identity: of its certificate, in hex; None without one.
    :ivar sha256: of its certificate, in hex, or None.
    :ivar subject: of its certificate, or None.
    :ivar address: where it came from last.
    :ivar first: when it came first.
    :ivar last: when it came last.
    :ivar count: how often.
    :ivar connected: how many of its connections there are now.
    """

    outcome: str
    server: str
    rule: str | None
    reason: str | None
    server_then: str | None
    rule_then: str | None
    reason_then: str | None
    detail_then: str | None
    identity: str | None
    sha256: str | None
    subject: str | None
    address: str
    first: datetime
    last: datetime
    count: int
    connected: int


@frozen(kw_only=True)
class RuleUse(StatusValue):
    """
    A rule of the shadow, and how many of the clients that were judged it would admit.

    :ivar server: its server.
    :ivar rule: its name; "" for a server that asks for no certificate.
    :ivar count: how many.
    """

    server: str
    rule: str
    count: int


@frozen(kw_only=True)
class ShadowStatus(StatusValue):
    """
    The configuration in the shadow, in short.

    :ivar file: its absolute path.
    :ivar set_by: ``settings`` or ``ctl``.
    :ivar since: since when clients are counted; None if it could not be loaded.
    :ivar problems: why it could not be loaded, in lines.
    :ivar handshakes: how many handshakes it has judged.
    :ivar would_be_out: how many verdicts said that a client would be out.
    :ivar would_be_in: how many verdicts said that a client would be in.
    :ivar not_judged: how many clients it has no verdict on.
    """

    file: str
    set_by: str
    since: datetime | None
    problems: tuple[str, ...] = ()
    handshakes: int = 0
    would_be_out: int = 0
    would_be_in: int = 0
    not_judged: int = 0


@frozen(kw_only=True)
class ShadowAttempt(StatusValue):
    """
    What came of putting a configuration in the shadow.

    :ivar file: its absolute path.
    :ivar succeeded: whether it is there now.
    :ivar problems: why not, in lines.
    :ivar changes: the differences from the configuration in force, in lines.
    :ivar warnings: what it cannot judge as the gate runs now, in lines.
    """

    file: str
    succeeded: bool
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@frozen(kw_only=True)
class ShadowReport(StatusValue):
    """
    What would happen if the configuration in the shadow were in force.

    :ivar status: the same in short.
    :ivar changes: the differences from the configuration in force, in lines.
    :ivar live: how many connected clients were judged when it began.
    :ivar waiting: how many clients wait to be judged.
    :ivar identities: how many clients were seen that are admitted now, or would be; at
        most as many as are remembered.
    :ivar is_identities_full: whether there were more than that.
    :ivar closed: how many connections a reload would close.
    :ivar kept: how many would stay after a reload, and be rejected when they come again.
    :ivar counts: the verdicts.
    :ivar clients: those with another verdict, the most important first.
    :ivar left_out: how many verdicts were on other clients than those listed.
    :ivar uses: the shadow's rules.
    :ivar not_counted: what the shadow does not judge, in lines.
    :ivar seen: the first bytes of the identities, in hex, to count those of several
        processes; empty in what is told to people.
    """

    status: ShadowStatus
    changes: tuple[str, ...] = ()
    live: int = 0
    waiting: int = 0
    identities: int = 0
    is_identities_full: bool = False
    closed: int = 0
    kept: int = 0
    counts: tuple[OutcomeCount, ...] = ()
    clients: tuple[ShadowClient, ...] = ()
    left_out: int = 0
    uses: tuple[RuleUse, ...] = ()
    not_counted: tuple[str, ...] = ()
    seen: str = ""

    def with_most(self, most: int) -> ShadowReport:
        """
        :param most: how many clients of each outcome.
        :returns: the same with no more than these.
        """
        seen, clients = Counter[str](), list[ShadowClient]()
        for one in self.clients:
            seen[one.outcome] += 1
            if seen[one.outcome] <= most:
                clients.append(one)
        return evolve(self, clients=tuple(clients))
