"""
``twistd mtlsgate``: options and wiring.
"""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.python import usage

from mtlsgate.admin.service import AdminService
from mtlsgate.admin.sockets import take
from mtlsgate.errors import GateError
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.log_file import NOBODY_ELSE, Owner
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.run.control import Control, GateHandle
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.file_watcher import FileWatcher
from mtlsgate.run.followers import ObserversFollower
from mtlsgate.run.listening import bind
from mtlsgate.run.loader import Loader
from mtlsgate.run.names import configured_names
from mtlsgate.run.reloading import Reloader
from mtlsgate.run.service import GateService
from mtlsgate.run.signals import Handler, SignalService
from mtlsgate.run.status_taker import Process, Snapshots


class Options(usage.Options):
    """What follows ``twistd mtlsgate``."""

    synopsis = "[--config FILE]"
    longdesc = "An mTLS gate: verified TLS clients, and no others, reach the protocol behind it."
    optParameters = [["config", "c", "gate.hcl", "The configuration file."]]

    epoch: Epoch
    handle: GateHandle
    loader: Loader

    def postOptions(self) -> None:
        """
        Load the configuration and take the addresses, while a problem is still
        a message on the terminal and nothing has been daemonized.
        """
        from twisted.internet import reactor

        self.handle = GateHandle()
        # Before a daemon changes its directory.
        self.loader = Loader(os.path.abspath(self["config"]), self.handle)
        try:
            self.epoch = self.loader.first(self["config"], partial(print, file=sys.stderr))
            audit = self["audit"] = AuditLog()
            owner = _owner(self.parent)
            audit.turn_to(audit.prepare(self.epoch.path, self.epoch.settings.audit, owner))
            self["listeners"] = bind(self.epoch, reactor)
            self["admin"] = take(self.epoch.admin, owner=owner)
        except GateError as error:
            # usage.UsageError would bury the message under twistd's own help.
            print(error, file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None


def _owner(twistd: usage.Options | None) -> Owner:
    """:returns: who the gate will be, if twistd is told to be somebody else."""
    if twistd is None:
        return NOBODY_ELSE
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if uid is not None and gid is None:
        # As twistd itself has it.
        gid = pwd.getpwuid(uid).pw_gid
    return -1 if uid is None else uid, -1 if gid is None else gid


def makeService(options: Options) -> IService:
    """:returns: the service that runs the configuration."""
    from twisted.internet import reactor

    loader, handle = options.loader, options.handle
    # twistd keeps the options for as long as it runs; the first epoch is to be freed one day.
    epoch, listeners = options.epoch, options.pop("listeners")
    del options.epoch
    observers = Observers(
        audit=options["audit"],
        log=HumanLog(epoch.settings.quiet),
        counts=Counts(configured_names(epoch)),
        recent=RecentRejections(epoch.settings.quiet),
    )
    registry = Registry(reactor, observers.all)
    admin = AdminService(handle, epoch.admin, options["admin"], reactor, registry.gone)
    followers = (ObserversFollower(observers), admin)
    runner = EpochRunner(epoch, listeners, reactor, registry, followers)
    reloader = Reloader(runner, loader.again)
    gate = GateService(runner, reloader, observers)
    process = Process(
        version=version("mtlsgate"),
        config=loader.path,
        started=registry.now(),
        began=runner.since,
    )
    snapshots = Snapshots(gate, process)
    end = partial(_end, runner, reactor)
    handle.attach(Control(snapshots, Metrics(observers.counts, snapshots.state), end))
    watcher = FileWatcher(
        lambda: loader.seen if runner.epoch.settings.watch else {}, reloader.reload, reactor
    )
    handlers: dict[Signals, Handler] = {
        SIGHUP: reloader.reload,
        SIGUSR1: observers.audit.rotate,
        SIGTERM: end,
        SIGINT: end,
    }
    services = MultiService()
    # The signals first: a gate that listens can be told to end.
    for service in (SignalService(handlers, reactor), gate, watcher, admin):
        service.setServiceParent(services)
    return services


def _end(runner: EpochRunner, reactor: Any) -> None:
    """The first time, let connections end; the second time, end them."""
    if runner.is_draining:
        runner.close_all()
        return

    def stop(_: object) -> None:
        # Unless somebody else stopped it meanwhile.
        with suppress(ReactorNotRunning):
            reactor.stop()

    runner.drain().addBoth(stop)
