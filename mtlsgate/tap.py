"""
``twistd mtlsgate``: options and wiring.
"""

from __future__ import annotations

import gc
import os
import pwd
import sys
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.python import usage

from mtlsgate.admin.service import AdminService
from mtlsgate.admin.sockets import take
from mtlsgate.errors import GateError
from mtlsgate.load.epoch import Epoch, load
from mtlsgate.load.file_state import Stamp
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.log_file import NOBODY_ELSE, Owner
from mtlsgate.run.control import Control, GateHandle
from mtlsgate.run.file_watcher import Watcher
from mtlsgate.run.listening import bind
from mtlsgate.run.selftest import self_test
from mtlsgate.run.service import GateService
from mtlsgate.run.signals import Handler, SignalService
from mtlsgate.run.status_taker import Process, Snapshots


class Loader:
    """
    Loads the configuration anew.

    :ivar path: the file, absolute.
    :ivar gate: where protocols find the gate once it runs.
    :ivar seen: what the latest attempt has read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.gate = GateHandle()
        self.seen: dict[Path, Stamp] = {}

    def load(self, is_trial: bool = False) -> Epoch:
        """
        :param is_trial: whether it is only to tell what would change, after which
            a change of what was read is still one.
        :returns: what the file says now.
        :raises ConfigError: with all that is wrong with it.
        """
        if gc.get_freeze_count():
            # What was frozen is to go one day; what of it was garbage then, now.
            gc.unfreeze()
            gc.collect()
        seen: dict[Path, Stamp] = {}
        try:
            return load(self.path, seen=seen, gate=self.gate)
        finally:
            if not is_trial:
                self.seen = seen


class Options(usage.Options):
    """What follows ``twistd mtlsgate``."""

    synopsis = "[--config FILE]"
    longdesc = "An mTLS gate: verified TLS clients, and no others, reach the protocol behind it."
    optParameters = [["config", "c", "gate.hcl", "The configuration file."]]

    epoch: Epoch
    loader: Loader

    def postOptions(self) -> None:
        """
        Load the configuration and take the addresses, while a problem is still
        a message on the terminal and nothing has been daemonized.
        """
        from twisted.internet import reactor

        # Before a daemon changes its directory.
        self.loader = Loader(os.path.abspath(self["config"]))
        try:
            self.epoch = load(
                self["config"],
                say=partial(print, file=sys.stderr),
                seen=self.loader.seen,
                gate=self.loader.gate,
            )
            self_test(self.epoch)
            # It stays: the garbage collector need not look at it ever again.
            gc.freeze()
            audit = self["audit"] = AuditLog()
            owner = _owner(self.parent)
            audit.turn_to(audit.prepare(self.epoch, owner))
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

    loader, services = options.loader, MultiService()
    # twistd keeps the options for as long as it runs; the first epoch is to go one day.
    epoch, listeners = options.epoch, options.pop("listeners")
    del options.epoch
    gate = GateService(
        epoch,
        listeners,
        reactor,
        load=loader.load,
        audit=options["audit"],
    )
    watcher = Watcher(
        lambda: loader.seen if gate.epoch.settings.watch else {}, gate.reload, reactor
    )
    end = partial(_end, gate, reactor)
    process = Process(
        version=version("mtlsgate"),
        config=loader.path,
        started=gate.connections.now(),
        began=gate.since,
    )
    loader.gate.gate = Control(Snapshots(gate, process), end)
    admin = AdminService(loader.gate, epoch.admin, options["admin"], reactor, gate.drain)
    gate.prepare = admin.prepare
    handlers: dict[Signals, Handler] = {
        SIGHUP: gate.reload,
        SIGUSR1: gate.audit.rotate,
        SIGTERM: end,
        SIGINT: end,
    }
    # The signals first: a gate that listens can be told to end.
    for service in (SignalService(handlers, reactor), gate, watcher, admin):
        service.setServiceParent(services)
    return services


def _end(gate: GateService, reactor: Any) -> None:
    """The first time, let connections end; the second time, end them."""
    if gate.is_draining:
        gate.close_all()
        return

    def stop(_: object) -> None:
        # Unless somebody else stopped it meanwhile.
        with suppress(ReactorNotRunning):
            reactor.stop()

    gate.drain().addBoth(stop)
