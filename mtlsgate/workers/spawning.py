"""
The supervisor's end of the process that forks workers (`spawner`).
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.workers.channel import WorkerGone

_log = Logger("mtlsgate.workers")

#: Not by the names of `spawner`, which imports all that a worker needs.
_ORDERS, _LARGEST = 3, 65536
#: ``-P``: nothing is imported from the present directory.
_ARGUMENTS = ("-P", "-m", "mtlsgate.workers.spawner")
#: Seconds before another one is started after one that ended by itself.
_PAUSE, _LONG_PAUSE = 1.0, 30.0


class Spawner:
    """
    Has processes forked.  If the process that does so ends, another one takes its place.

    :ivar _orders: the socket of orders; None while there is no process.
    """

    def __init__(
        self,
        reactor: Any,
        started: Callable[[int, int], object],
        ended: Callable[[int, int], object],
    ) -> None:
        """
        :param started: called with the number that a process got from `order`, and its own.
        :param ended: called with the former, and its exit status; that of a process
            which a signal ended is negative.
        """
        self._reactor = reactor
        self._started = started
        self._ended = ended
        self._orders: socket.socket | None = None
        self._reports: _Reports | None = None
        self._last = 0
        self._is_stopping = False

    def adopt(self, orders: socket.socket) -> None:
        """:param orders: of a process that runs already."""
        self._orders = orders
        self._reports = _Reports(orders, self._reported, self._process_ended, self._reactor)

    def _start(self) -> None:
        """Start the process anew."""
        if self._is_stopping:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptors = {0: 0, 1: 1, 2: 2, _ORDERS: theirs.fileno()}
            arguments = [sys.executable, *_ARGUMENTS]
            try:
                self._reactor.spawnProcess(
                    ProcessProtocol(), sys.executable, arguments, env=None, childFDs=descriptors
                )
            except OSError as error:
                ours.close()
                _log.error(
                    "the process that starts workers cannot be started: {why}", why=str(error)
                )
                self._reactor.callLater(_LONG_PAUSE, self._start)
                return
        self.adopt(ours)

    def stop(self) -> None:
        """End the process.  Those that it forked go on."""
        self._is_stopping = True
        self._close()

    def _close(self) -> None:
        if self._reports is not None:
            self._reports.stop()
        if self._orders is not None:
            self._orders.close()
        self._orders = self._reports = None

    def order(self, job: str, facts: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        """
        Have a process forked.

        :param job: what it is to do.
        :param descriptors: copies of these go to it.
        :returns: the number of the process, for `kill`.
        :raises WorkerGone: if that is not possible now.
        """
        self._last += 1
        told = {"number": self._last, "job": job, "sys_path": sys.path, **facts}
        self._send(told, descriptors)
        return self._last

    def kill(self, number: int) -> None:
        """End a process at once, if it has not ended."""
        self._send({"number": number, "job": "kill"}, ())

    def _send(self, told: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        if self._orders is None:
            raise WorkerGone("the process that starts workers has ended")
        try:
            socket.send_fds(self._orders, [json.dumps(told).encode()], descriptors)
        except OSError as error:
            raise WorkerGone(f"no worker can be started: {error.strerror}") from error

    def _reported(self, facts: Mapping[str, int]) -> None:
        if "started" in facts:
            self._started(facts["started"], facts["process"])
        else:
            self._ended(facts["ended"], facts["status"])

    def _process_ended(self) -> None:
        self._close()
        if not self._is_stopping:
            _log.error("the process that starts workers ended: another one starts")
            self._reactor.callLater(_PAUSE, self._start)


@implementer(IReadDescriptor)
class _Reports:
    """Reads what is reported on the socket of orders."""

    def __init__(
        self,
        orders: socket.socket,
        reported: Callable[[dict[str, int]], object],
        ended: Callable[[], object],
        reactor: Any,
    ) -> None:
        self._orders = orders
        self._reported = reported
        self._has_ended = ended
        self._reactor = reactor
        reactor.addReader(self)

    def stop(self) -> None:
        """Read no more."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        """:returns: the socket's descriptor."""
        return self._orders.fileno()

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return "mtlsgate"

    def doRead(self) -> None:
        """Read one report."""
        try:
            said = self._orders.recv(_LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self._reported(json.loads(said))
        else:
            self._has_ended()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
