"""
Asks several workers the same, and waits for all their answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mtlsgate.workers.channel import Refused
from mtlsgate.workers.member import Member


def gathered(
    members: Iterable[Member],
    name: str,
    values: Mapping[str, object],
    clock: IReactorTime,
    patience: float | None = None,
) -> Deferred[list[tuple[Member, Any]]]:
    """
    :param members: who is asked.
    :param name: the question's.
    :param values: the question's.
    :param patience: how many seconds to wait; None for as long as it takes.
    :returns: the answers; a `Refused` is one, too.  Those that end before they answer, or do
        not answer in time, are left out.
    """
    asked = list(members)
    found: dict[int, Any] = {}
    done: Deferred[list[tuple[Member, Any]]] = Deferred()
    left = len(asked)

    def answered(value: Any, member: Member) -> None:
        nonlocal left
        left -= 1
        if not isinstance(value, Failure):
            found[member.index] = value
        elif value.check(Refused):
            found[member.index] = value.value
        if not left:
            done.callback([(one, found[one.index]) for one in asked if one.index in found])

    if not asked:
        return succeed([])
    for member in asked:
        asking = member.ask(name, **values)
        if patience is not None:
            asking.addTimeout(patience, clock)
        asking.addBoth(answered, member)
    return done
