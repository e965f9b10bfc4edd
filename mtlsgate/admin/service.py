"""
The Twisted service: the admin endpoint, until shortly after the gate has drained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from mtlsgate.admin.guard import Guard
from mtlsgate.admin.resource import AdminResource
from mtlsgate.admin.site import AdminSite
from mtlsgate.admin.sockets import Taken, take
from mtlsgate.interfaces import IGate
from mtlsgate.load.addresses import SocketAddress
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.outline import Configured
from mtlsgate.peer import address_text
from mtlsgate.run.followers import Change
from mtlsgate.text import printable

_log = Logger("mtlsgate.admin")

#: Seconds that clients have to read the last answers when the gate ends.
_PATIENCE = 2.0


@define
class _Token:
    """
    :ivar value: the token for one place: that of the epoch in force; when the place
        is given up, that of the last epoch that had it.
    """

    value: bytes | None


@frozen
class _Open:
    port: IListeningPort
    token: _Token


class AdminService(Service):
    """
    Listens on the endpoint of the epoch in force.

    :ivar endpoint: that endpoint, or None.
    :ivar _open: the open ports, by place.
    :ivar _sites: all sites that may still have connections.
    """

    def __init__(
        self,
        gate: Callable[[], IGate],
        endpoint: AdminEndpoint | None,
        taken: Iterable[Taken],
        reactor: Any,
        gone: Callable[[], Deferred[None]],
    ) -> None:
        """
        :param gate: finds the running gate.
        :param taken: the sockets of the endpoint, from `mtlsgate.admin.sockets.take`.
        :param gone: fires when no connection of the gate is left.
        """
        self.endpoint = endpoint
        self._gate = gate
        self._taken = tuple(taken)
        self._reactor = reactor
        self._gone = gone
        self._open: dict[Path | SocketAddress, _Open] = {}
        self._sites: list[AdminSite] = []
        self._stopping: list[Deferred[None]] = []

    def privilegedStartService(self) -> None:
        """Listen."""
        self._listen()

    def startService(self) -> None:
        """Listen, if that has not happened yet."""
        super().startService()
        self._listen()

    def _listen(self) -> None:
        taken, self._taken = self._taken, ()
        for one in taken:
            self._open_up(one, self.endpoint)

    def _open_up(self, taken: Taken, endpoint: AdminEndpoint | None) -> None:
        token = _Token(None if endpoint is None else endpoint.token)
        guard = Guard(lambda: token.value, is_loopback=isinstance(taken.place, SocketAddress))
        site = AdminSite(AdminResource(self._gate, guard), self._reactor)
        port = taken.listen(site, self._reactor)
        self._open[taken.place] = _Open(port, token)
        self._sites.append(site)
        _log.info(
            "the admin endpoint answers at {where}", where=printable(address_text(port.getHost()))
        )

    def prepare(self, epoch: Configured) -> Change:
        """
        :param epoch: that is about to take over.
        :returns: the prepared change.
        :raises AdminListenError: if a new place cannot be had.
        """
        taken = list(take(epoch.admin, frozenset(self._open)))
        with ExitStack() as undo:
            undo.callback(_give_back, taken)
            while taken:
                self._open_up(taken[0], epoch.admin)
                undo.callback(self._close, taken.pop(0).place)
            opened = undo.pop_all()

        def follow() -> None:
            self.endpoint = endpoint = epoch.admin
            for place in set(self._open):
                if endpoint is not None and place in endpoint.places:
                    self._open[place].token.value = endpoint.token
                else:
                    self._close(place)

        return Change(follow, opened.close)

    def _close(self, place: Path | SocketAddress) -> None:
        stopped = self._open.pop(place).port.stopListening()
        if stopped is not None:
            self._stopping.append(stopped)

    def stopService(self) -> Deferred[list[None]]:
        """Go on until the gate's last connection has ended, and then end."""
        super().stopService()
        return self._gone().addBoth(self._end)

    def _end(self, _: object) -> Deferred[list[None]]:
        for place in list(self._open):
            self._close(place)
        _give_back(self._taken)
        return gatherResults([*self._stopping, *(site.finish(_PATIENCE) for site in self._sites)])


def _give_back(taken: Iterable[Taken]) -> None:
    for one in taken:
        one.give_back()
