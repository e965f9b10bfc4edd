"""
What an epoch does before its first connection that takes time: factories that are
`mtlsgate.interfaces.IPreparable`, as those of ASGI applications are.
"""

from __future__ import annotations

from twisted.logger import Logger

from mtlsgate.errors import GateError
from mtlsgate.interfaces import IPreparable
from mtlsgate.load.epoch import Epoch

_log = Logger("mtlsgate.service")


def needs_preparing(epoch: Epoch) -> bool:
    """:returns: whether anything in it takes time."""
    return any(IPreparable.providedBy(one.gate.application) for one in epoch.servers)


async def prepare(epoch: Epoch, before: Epoch | None) -> None:
    """
    Prepare an epoch: all of it, or nothing.

    :param before: the epoch in force, or None.
    :raises GateError: if something fails, in one line.
    """
    earlier = {} if before is None else {one.gate.name: one.gate for one in before.servers}
    done: list[IPreparable] = []
    for server in epoch.servers:
        gate = server.gate
        if not IPreparable.providedBy(gate.application):
            continue
        predecessor = earlier.get(gate.name)
        try:
            await gate.application.prepare(predecessor and predecessor.application)
        except Exception as error:
            await _discard(done)
            if isinstance(error, GateError):
                raise
            _log.failure("{server}: a protocol failed to prepare", server=gate.name)
            text = f"a protocol failed to prepare: {type(error).__name__}: {error}"
            raise GateError(f"{gate.name}: {text}") from error
        done.append(gate.application)


async def discard(epoch: Epoch) -> None:
    """The epoch was prepared, and does not take over."""
    applications = [server.gate.application for server in epoch.servers]
    await _discard([one for one in applications if IPreparable.providedBy(one)])


async def _discard(prepared: list[IPreparable]) -> None:
    for one in prepared:
        try:
            await one.discard()
        except Exception:  # noqa: BLE001 -- a protocol's own; there are others
            _log.failure("a protocol failed to discard what it had prepared")
