"""
Factories that stop, but not before the connections that they have begun with
have gone on to another or are over.
"""

from __future__ import annotations

from abc import abstractmethod

from twisted.internet.protocol import Factory


class ReadingFactory(Factory):
    """
    A factory whose protocols read the beginning of a connection, which another
    factory's then take over.  That one must not be stopped before.

    :ivar _reading: how many of them there are.
    :ivar _leaving: how often it was told to stop, and has not yet.
    """

    _reading = 0
    _leaving = 0

    def begin(self) -> None:
        """A connection is to be read from."""
        self._reading += 1

    def finish(self) -> None:
        """... and no more."""
        self._reading -= 1
        self._stop_if_alone()

    def doStop(self) -> None:
        """Stop, but not before the last of them."""
        self._leaving += 1
        self._stop_if_alone()

    def _stop_if_alone(self) -> None:
        while self._leaving and (self.numPorts > 1 or self._reading == 0):
            self._leaving -= 1
            super().doStop()
            self.stop_what_follows()

    @abstractmethod
    def stop_what_follows(self) -> None:
        """Stop the factories that take over."""
