"""
``twistd mtlsgate``: options and wiring.
"""

from __future__ import annotations

import gc
import sys
from functools import partial

from twisted.application.service import IService
from twisted.python import usage

from mtlsgate.epoch import Epoch, load
from mtlsgate.errors import GateError
from mtlsgate.service import GateService, bind


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

        try:
            self.epoch = load(self["config"], say=partial(print, file=sys.stderr))
            # It stays: the garbage collector need not look at it ever again.
            gc.freeze()
            self["listeners"] = bind(self.epoch, reactor)
        except GateError as error:
            # usage.UsageError would bury the message under twistd's own help.
            print(error, file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None


def makeService(options: Options) -> IService:
    """:returns: the service that runs the configuration."""
    from twisted.internet import reactor

    return GateService(options.epoch, options["listeners"], reactor)
