"""
Tells the service manager how the gate is: systemd's protocol of ``Type=notify``.

A message is lines of ``NAME=value`` in a datagram to the socket that ``$NOTIFY_SOCKET``
names (sd_notify(3)).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mtlsgate.gate.events import Reload

_log = Logger("mtlsgate.service")


@frozen
class ServiceManager:
    """
    The service manager that started this process.

    :ivar address: of its socket; None if there is none.
    :ivar watchdog: within how many seconds it wants to hear of the gate, again and
        again; None if it does not.
    """

    address: str | None = None
    watchdog: float | None = None

    @classmethod
    def of_process(cls, environ: Mapping[str, str] = os.environ) -> ServiceManager:
        """
        :returns: what the environment says.  Call it before the process goes into the
            background, where it has another number.
        """
        address, usec = environ.get("NOTIFY_SOCKET", ""), environ.get("WATCHDOG_USEC", "")
        if not address.startswith(("/", "@")):
            return cls()
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        wanted = is_ours and usec.isascii() and usec.isdigit() and int(usec) > 0
        return cls(address, int(usec) / 1e6 if wanted else None)

    def tell(self, **fields: object) -> None:
        """Send a message, unless there is nobody."""
        if self.address is None:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        address = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            # The reactor must not wait for it.
            sending.setblocking(False)
            try:
                sending.sendto(text.encode(), address)
            except OSError as error:
                _log.warn(
                    "the service manager is not told {fields}: {why}",
                    fields=" ".join(fields),
                    why=error.strerror,
                )


class Notifier(Service):
    """
    Tells the service manager when the gate is ready, reloads and ends, and that it lives.

    It says so from the reactor: if that is stalled, the service manager hears nothing
    and restarts the gate.
    """

    def __init__(
        self,
        manager: ServiceManager,
        state: Callable[[], str],
        reactor: Any,
        microseconds: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        """
        :param state: tells the state of the gate in a few words.
        :param reactor: what the gate runs in.
        :param microseconds: CLOCK_MONOTONIC.
        """
        self._manager = manager
        self._state = state
        self._reactor = reactor
        self._microseconds = microseconds
        self._living = LoopingCall(manager.tell, WATCHDOG=1)
        self._living.clock = reactor

    def startService(self) -> None:
        """Say that the gate is ready, as soon as the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        # The process has another number if it went into the background.
        self._manager.tell(READY=1, MAINPID=os.getpid(), STATUS=self._state())
        if self._manager.watchdog is not None and self.running:
            # Half of it, as sd_watchdog_enabled(3) advises.
            self._living.start(self._manager.watchdog / 2)

    def reload_began(self) -> None:
        """Say that a reload has begun."""
        self._manager.tell(RELOADING=1, MONOTONIC_USEC=self._microseconds())

    def reload_ended(self, reload: Reload) -> None:
        """Say that a reload has ended."""
        failed = "the configuration was not reloaded, see the log; " if reload.problems else ""
        self._manager.tell(READY=1, STATUS=f"{failed}{self._state()}")

    def draining(self, whose: str, timeout: float) -> None:
        """
        Say that the gate ends.

        :param whose: what has not ended yet, in the plural.
        :param timeout: seconds that they have.
        """
        self._manager.tell(
            STOPPING=1,
            STATUS=f"draining: {whose} have {timeout:g} s to end",
            # And some more to end the process.
            EXTEND_TIMEOUT_USEC=int((timeout + 10) * 1e6),
        )

    def stopService(self) -> None:
        """Say no more that the gate lives."""
        super().stopService()
        if self._living.running:
            self._living.stop()
