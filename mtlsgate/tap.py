"""
``twistd mtlsgate``: options and wiring.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
            with _no_collection():
                self.epoch = load(self["config"], say=partial(print, file=sys.stderr))
            self["listeners"] = bind(self.epoch, reactor)
        except GateError as error:
            # usage.UsageError would bury the message under twistd's own help.
            print(error, file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None


@contextmanager
def _no_collection() -> Iterator[None]:
    """What is built stays for good: neither while it is built nor later does the
    garbage collector need to look at it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()


def makeService(options: Options) -> IService:
    """:returns: the service that runs the configuration."""
    from twisted.internet import reactor

    return GateService(options.epoch, options["listeners"], reactor)
