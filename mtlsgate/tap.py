"""
``twistd mtlsgate``: options and wiring.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from functools import partial
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.python import usage

from mtlsgate.epoch import Epoch, load
from mtlsgate.errors import GateError
from mtlsgate.listening import bind
from mtlsgate.selftest import self_test
from mtlsgate.service import GateService
from mtlsgate.signals import Handler, SignalService


class Options(usage.Options):
    """What follows ``twistd mtlsgate``."""

    synopsis = "[--config FILE]"
    longdesc = "An mTLS gate: verified TLS clients, and no others, reach the protocol behind it."
    optParameters = [["config", "c", "gate.hcl", "The configuration file."]]

    epoch: Epoch

    def postOptions(self) -> None:
        """
        Load the configuration and take the addresses, while a problem is still
        a message on the terminal and nothing has been daemonized.
        """
        from twisted.internet import reactor

        # Before a daemon changes its directory.
        self["again"] = partial(_load_again, os.path.abspath(self["config"]))
        try:
            self.epoch = load(self["config"], say=partial(print, file=sys.stderr))
            self_test(self.epoch)
            # It stays: the garbage collector need not look at it ever again.
            gc.freeze()
            self["listeners"] = bind(self.epoch, reactor)
        except GateError as error:
            # usage.UsageError would bury the message under twistd's own help.
            print(error, file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None


def _load_again(path: str) -> Epoch:
    # What was frozen is to go one day.
    gc.unfreeze()
    return load(path)


def makeService(options: Options) -> IService:
    """:returns: the service that runs the configuration."""
    from twisted.internet import reactor

    gate = GateService(options.epoch, options["listeners"], reactor, load=options["again"])
    services = MultiService()
    gate.setServiceParent(services)
    end = partial(_end, gate, reactor)
    handlers: dict[Signals, Handler] = {SIGHUP: gate.reload, SIGTERM: end, SIGINT: end}
    SignalService(handlers, reactor).setServiceParent(services)
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
