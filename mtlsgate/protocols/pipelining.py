"""
Pipelined requests of a client that does not read, which twisted.web answers and
stores without end.
"""

from __future__ import annotations

from twisted.web.http import HTTPChannel, Request


class PatientChannel(HTTPChannel):
    """
    A connection on which nothing is begun, and little kept, while answers wait
    for their client to take them.

    :ivar _held: the last request, which is answered but for what the client
        has yet to take; until then the next one does not begin.
    """

    _held: Request | None = None

    def requestDone(self, request: Request) -> None:
        """Go on to the next request, as soon as there is room for its answer."""
        if self.persistent and self._waitingForTransport:
            self._held = request
            if self._savedTimeOut:
                self.setTimeout(self._savedTimeOut)
        else:
            super().requestDone(request)

    def resumeProducing(self) -> None:
        """There is room."""
        super().resumeProducing()
        held, self._held = self._held, None
        if held is not None:
            super().requestDone(held)

    def rawDataReceived(self, data: bytes) -> None:
        """Read a body, or keep what comes after it, of which there is to be little."""
        super().rawDataReceived(data)
        # While it waits, twisted.web takes it that this was done already.
        unpaused = self._waitingForTransport and self._handlingRequest
        if unpaused and sum(map(len, self._dataBuffer)) > self._optimisticEagerReadSize:
            self._networkProducer.pauseProducing()
