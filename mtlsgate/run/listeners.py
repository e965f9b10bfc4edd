"""
The listeners of a service: opened, turned to the servers of another epoch, closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtlsgate.clientgate.entrance import ClientEntrance
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.listener import Acceptor, BoundSocket, Listener
from mtlsgate.run.descriptors import Descriptors
from mtlsgate.run.listening import AnyPlace, ListenError, adapt_all

_log = Logger("mtlsgate.service")

AnyEntrance = Entrance | ClientEntrance


class Listeners:
    """
    All listeners of a service.

    :ivar by_key: those that accept connections, by the keys of their places.
    :ivar descriptors: pauses them while file descriptors are scarce.
    """

    def __init__(self, reactor: IReactorTime, accepts: int) -> None:
        """
        :param reactor: watches sockets.
        :param accepts: how many connections each accepts in one turn.
        """
        self.by_key: dict[str, Listener] = {}
        self.descriptors = Descriptors(self.by_key.values)
        self._reactor = reactor
        self._accepts = accepts

    def open(
        self,
        bound: Mapping[str, BoundSocket],
        entrances: Mapping[str, AnyEntrance],
        undo: ExitStack,
    ) -> list[Listener]:
        """
        :param bound: the sockets, by the keys of their places.
        :param entrances: what takes the connections, by the same keys.
        :param undo: gets callbacks that undo it.
        :returns: listeners that watch the sockets, but are not added yet.
        :raises ListenError: if the reactor cannot watch a socket.
        """
        listeners = []
        for key, one in bound.items():
            listeners.append(self._listener(key, one, entrances[key]))
            undo.callback(listeners[-1].stopListening)
        return listeners

    def _listener(self, key: str, bound: BoundSocket, entrance: AnyEntrance) -> Listener:
        listener = Listener(key, bound, entrance, self._reactor, self.descriptors, self._accepts)
        try:
            listener.startListening()
        except OSError as error:
            raise ListenError(f"cannot listen on {key}: {error.strerror or error}") from error
        return listener

    def add(self, listener: Listener) -> None:
        """From now on it is one of them."""
        self.by_key[listener.key] = listener
        self.descriptors.opened(listener)

    def turn(self, place: AnyPlace, entrance: AnyEntrance) -> None:
        """Let the listener at a place hand its connections to another entrance."""
        listener = self.by_key[place.key]
        adapt_all({place.key: listener.bound}, {place.key: place.address})
        _stop(listener.turn_to(entrance))

    def close(self, key: str) -> None:
        """Take what waits at a place, and listen there no more."""
        listener = self.by_key.pop(key)
        try:
            listener.accept_waiting()
            listener.stopListening()
        except Exception:  # noqa: BLE001 -- there are others to be closed
            _log.failure("{place} failed to close", place=key)
        _stop(listener.acceptor)


def start(entrance: AnyEntrance) -> None:
    """:raises ListenError: if a protocol's factory fails to start."""
    try:
        entrance.start()
    except Exception as error:
        _log.failure("a protocol failed to start")
        raise ListenError(
            f"{entrance.key}: a protocol failed to start: {type(error).__name__}: {error}"
        ) from error


def _stop(acceptor: Acceptor) -> None:
    try:
        acceptor.stop()
    except Exception:  # noqa: BLE001 -- a protocol's own; the gate goes on without it
        _log.failure("a protocol failed to stop")
