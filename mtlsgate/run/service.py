"""
The Twisted service: runs the gate under twistd.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mtlsgate.errors import GateError
from mtlsgate.load.readiness import all_backends
from mtlsgate.observe.observers import Observers
from mtlsgate.run.agent_watch import AgentWatch
from mtlsgate.run.certificate_orders import CertificateOrders
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.fetcher import Fetcher
from mtlsgate.run.listening import ListenError
from mtlsgate.run.preparing import needs_preparing, prepare
from mtlsgate.run.privileges import warn_if_root
from mtlsgate.run.reloading import Reloader
from mtlsgate.run.shadow import Shadowing
from mtlsgate.text import printable

_log = Logger("mtlsgate.service")


class GateService(Service):
    """
    Listens, runs until it is stopped, and drains.

    :ivar runner: runs one epoch after another.
    :ivar reloader: reloads the configuration.
    :ivar observers: are told what happens to connections.
    :ivar fetcher: fetches revocation lists.
    :ivar agents: asks SPIFFE agents.
    :ivar shadowing: has clients judged by another configuration, too.
    :ivar orders: orders certificates of the gate's own.
    """

    def __init__(
        self,
        runner: EpochRunner,
        reloader: Reloader,
        observers: Observers,
        fetcher: Fetcher,
        agents: AgentWatch,
        shadowing: Shadowing,
        orders: CertificateOrders,
    ) -> None:
        self.runner = runner
        self.reloader = reloader
        self.observers = observers
        self.fetcher = fetcher
        self.agents = agents
        self.shadowing = shadowing
        self.orders = orders

    @property
    def not_ready(self) -> str | None:
        """Why it accepts no connections or cannot serve them, in a few words, or None."""
        if self.runner.is_draining:
            return "draining"
        if not self.running:
            return "starting"
        if self.runner.is_accepting_paused:
            return "out of file descriptors"
        if self.fetcher.is_waiting:
            return "waiting for a revocation list"
        epoch = self.runner.epoch
        if (missing := self.agents.missing) is not None:
            return missing
        for server in epoch.servers:
            if not server.gate.context.has_certificate():
                return f"{printable(server.gate.name)} has no certificate of its own"
        if epoch.settings.readiness in ("targets", "all"):
            for name, backends in all_backends(epoch.servers, epoch.clients):
                if not backends.is_ready:
                    return f"no target of {printable(name)} is up"
        registries = self.runner.registries
        if registries is not None and epoch.settings.readiness in ("registries", "all"):
            for desk in registries:
                if not desk.is_ready:
                    return f"registry {printable(desk.registry.name)} is {desk.state}"
        return None

    def privilegedStartService(self) -> None:
        """Listen, before privileges are dropped; but no application of a user's starts
        with them."""
        if not needs_preparing(self.runner.epoch):
            self._listen()

    def startService(self) -> None:
        """Listen, if that has not happened yet."""
        super().startService()
        warn_if_root()
        self._prepare()
        self._listen()
        # Now as the user that the gate runs as: a missing right shows at once, and
        # not at the first rotation.
        self.observers.audit.reopen()
        self.runner.start()

    def _prepare(self) -> None:
        """Prepare the first epoch.  The reactor does not run yet, but its loop can."""
        epoch = self.runner.epoch
        if not needs_preparing(epoch):
            return
        try:
            asyncio.get_event_loop().run_until_complete(prepare(epoch, None))
        except GateError as error:
            self._give_up(error)
        if self.runner.is_draining:
            # It was told to end meanwhile.
            raise SystemExit(0)

    def _listen(self) -> None:
        try:
            self.runner.listen()
        except ListenError as error:
            self._give_up(error)

    def _give_up(self, error: GateError) -> NoReturn:
        # twistd would print any other exception with a traceback.
        _log.critical("{text}", text=str(error))
        raise SystemExit(f"{self.runner.epoch.path}: {error}") from None

    def stopService(self) -> Deferred[None]:
        """Drain, and end."""
        super().stopService()
        return self.runner.drain().addCallback(self._stopped)

    def _stopped(self, _: None) -> None:
        self.runner.stop()
        self.shadowing.stop()
        self.observers.audit.close()
