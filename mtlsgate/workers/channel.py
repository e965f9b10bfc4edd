"""
What the supervisor and a worker say to each other.

Both ends ask and answer over a socket pair, in Twisted's AMP: one command, `Ask`, whose
values are JSON, and one that passes a descriptor.  Nothing is ever unpickled: a
worker is exposed to clients, the supervisor is not.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.amp import AMP, Argument, BinaryBoxProtocol, Command, Descriptor, Unicode
from twisted.python.failure import Failure

from mtlsgate.errors import GateError

_log = Logger("mtlsgate.workers")

#: What precedes a listening socket's key, where a descriptor is passed.
SOCKET = "socket:"
#: The most bytes of one AMP value.
_PART = 0xFFFF
#: Answers a question: from the values to the answer, or a Deferred with it.
Handler = Callable[..., object]


class WorkerGone(GateError):
    """The other end is gone, or does not answer."""


class Refused(Exception):
    """The other end cannot do what was asked; the text says why, in lines."""


class _Json(Argument):
    """A value as JSON.  A long one takes several AMP values."""

    def toBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        """Put the value into a box."""
        data = json.dumps(objects[name.decode()]).encode()
        for number, start in enumerate(range(0, len(data), _PART)):
            strings[_part(name, number)] = data[start : start + _PART]

    def fromBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        """Take the value out of a box."""
        parts, number = bytearray(), 0
        while (part := strings.pop(_part(name, number), None)) is not None:
            parts += part
            number += 1
        objects[name.decode()] = json.loads(parts)


def _part(name: bytes, number: int) -> bytes:
    return name if number == 0 else b"%b.%d" % (name, number)


class Ask(Command):
    """
    Asks for something.

    `name` is the question, `values` are its arguments by name.
    """

    arguments = [(b"name", Unicode()), (b"values", _Json())]
    response = [(b"value", _Json())]
    errors = {Refused: b"REFUSED"}


class Pass(Command):
    """Passes a descriptor: of a socket or file that `name` says."""

    arguments = [(b"name", Unicode()), (b"descriptor", Descriptor())]


_CLOSED = Failure(ConnectionDone())


class Channel(AMP):
    """
    One end.

    :ivar is_open: whether the other end can be asked.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        lost: Callable[[], object],
        passed: Callable[[str, int], object] = lambda _, descriptor: os.close(descriptor),
    ) -> None:
        """
        :param handlers: answer the other end's questions, by their names.
        :param lost: called once the other end is gone.
        :param passed: gets a descriptor, which then belongs to it, and its name.
        """
        super().__init__()
        self.is_open = False
        self._handlers = handlers
        self._lost = lost
        self._passed = passed

    def makeConnection(self, transport: Any) -> None:
        """The channel is there."""
        self.is_open = True
        # Not that of `AMP`, which logs each connection.
        BinaryBoxProtocol.makeConnection(self, transport)

    def ask(self, name: str, **values: object) -> Deferred[Any]:
        """
        :returns: the answer.  It fails with `Refused`, or with `WorkerGone` if the other
            end is gone before it.
        """
        if not self.is_open:
            return fail(WorkerGone("the other end is gone"))
        asked: Deferred[Any] = self.callRemote(Ask, name=name, values=values)
        return asked.addCallbacks(lambda box: box["value"], self._failed)

    def give(self, name: str, descriptor: int) -> Deferred[Any]:
        """
        :param descriptor: a copy is passed; this one stays open.
        """
        if not self.is_open:
            return fail(WorkerGone("the other end is gone"))
        copy = os.dup(descriptor)
        given: Deferred[Any] = self.callRemote(Pass, name=name, descriptor=copy)

        def passed(result: object) -> object:
            # Not before: it is sent in a later turn.
            os.close(copy)
            return result

        return given.addBoth(passed).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Any:
        failure.trap(Exception)
        if failure.check(Refused):
            return failure
        raise WorkerGone(f"it did not answer: {failure.value}")

    @Ask.responder
    def _asked(self, name: str, values: dict[str, Any]) -> Deferred[dict[str, object]]:
        answer = maybeDeferred(self._handlers[name], **values)
        return answer.addErrback(_refused, name).addCallback(lambda value: {"value": value})

    @Pass.responder
    def _given(self, name: str, descriptor: int) -> dict[str, object]:
        self._passed(name, descriptor)
        return {}

    def cut(self) -> None:
        """Give the other end up."""
        cast(Any, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = _CLOSED) -> None:
        """The other end is gone."""
        self.is_open = False
        BinaryBoxProtocol.connectionLost(self, reason)
        self._lost()


def _refused(failure: Failure, name: str) -> None:
    if failure.check(GateError):
        raise Refused(str(failure.value))
    _log.failure("{name} failed", failure=failure, name=name)
    raise Refused(f"{name} failed: {failure.value!r}")


def connect(end: socket.socket, channel: Channel, reactor: Any) -> None:
    """:param end: of a socket pair; it belongs to the channel from now on."""
    end.setblocking(False)
    with end:
        reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Only(channel))


class _Only(Factory):
    """Makes one protocol, which is already made."""

    noisy = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def buildProtocol(self, _: object) -> Channel:
        """:returns: it."""
        return self._channel
