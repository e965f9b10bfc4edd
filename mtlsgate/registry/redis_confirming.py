"""
Whether a write survives a failover.

A master acknowledges a write before its replicas have it.  Of them the one with the greatest
offset is promoted (https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/,
"Replica selection and priority").  So a write survives if they have it, and if it was not
decided before that one of them takes over.

WAIT (https://redis.io/docs/latest/commands/wait/) covers only what the same connection has
written.  A write that an earlier connection made, and whose end nobody saw, must be covered,
too.  So the offsets in the reply to ROLE decide: they count all that the master has.
"""

from __future__ import annotations

import asyncio

from attrs import frozen
from redis.exceptions import NoPermissionError

from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_links import ROLE, Command, Link, require_role
from mtlsgate.registry.store import StoreError, StoreUnavailable, WriteUnconfirmed

#: Of the time limit, how much the replicas have before one is enough.  The master answers up to
#: a tenth of a second later than it is asked to.
_SHARE = 0.5
#: How often replicas are asked again, in milliseconds.
_AGAIN = 20


@frozen
class Replication:
    """
    What a master says of itself.

    :ivar offset: how much it has written so far, in bytes of its replication stream.
    :ivar acknowledged: how much each connected replica has, as far as the master knows.
    """

    offset: int
    acknowledged: tuple[int, ...]


def read_replication(reply: object, where: str) -> Replication:
    """
    :param reply: of ``ROLE``.
    :param where: the server, for people.
    :raises StoreError: if it is no master.
    """
    require_role(reply, b"master", where)
    match reply:
        case [_, int(offset), list(replicas)]:
            return Replication(offset, tuple(int(acknowledged) for *_, acknowledged in replicas))
    raise StoreError(f"{where} answers what cannot be understood")


def unconfirmed(where: str, why: object) -> WriteUnconfirmed:
    """
    :param where: the server that has the write.
    :returns: the error to raise.
    """
    return WriteUnconfirmed(f"{where} has it, but a failover could lose it: {why}; write it again")


async def replicate(link: Link, reply: object, timeout: float) -> None:
    """
    Return when all replicas have what the master had.  After some time one is enough, so that
    one that hangs does not stop all writes.

    :param link: to the master.
    :param reply: of the ``ROLE`` that came after the write.
    :param timeout: of one answer, in seconds.
    :raises WriteUnconfirmed: if no replica has it in time.
    :raises StoreError: if the server may not be asked.
    """
    try:
        async with asyncio.timeout(timeout * (1 + _SHARE)):
            await _replicate(link, read_replication(reply, link.where), timeout * _SHARE)
    except TimeoutError:
        raise unconfirmed(link.where, "it does not answer any more") from None
    except WriteUnconfirmed:
        raise
    except StoreUnavailable as error:
        raise unconfirmed(link.where, error) from error


async def _replicate(link: Link, now: Replication, seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    wanted = now.offset
    awaited, pause = len(now.acknowledged), round(seconds * 1000)
    if not awaited:
        return
    while min(now.acknowledged, default=-1) < wanted:
        if (left := round((until - clock()) * 1000)) <= 0:
            if max(now.acknowledged, default=-1) >= wanted:
                return
            raise unconfirmed(link.where, f"no replica has had it within {seconds:g} s")
        wait: Command = ("WAIT", awaited, min(pause, left))
        waited, role = await link.exchange([wait, ROLE])
        _require_waited(waited, link.where)
        now = read_replication(role, link.where)
        # WAIT does not wait for what other connections have written.  Asked for one replica more
        # than there are, it has all of them say what they have.
        awaited, pause = len(now.acknowledged) + 1, _AGAIN


def _require_waited(reply: object, where: str) -> None:
    if isinstance(reply, NoPermissionError) or "unknown command" in str(reply).lower():
        raise StoreError(
            f"{where} has it, but cannot say whether a failover could lose it: WAIT is not"
            " permitted; permit it (ACL: +wait)"
        )
    if isinstance(reply, BaseException):
        raise unconfirmed(where, explained(reply, where))
