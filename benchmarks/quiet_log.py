"""
A log observer for `twistd --logger`: keeps what the service says and drops
what is said of connections, so that the cost of writing a log can be told
from the cost of the gate.
"""

import os

from twisted.logger import ILogObserver, textFileLogObserver
from zope.interface import provider


def observer():
    """Return the observer; it writes to the file that the environment names."""
    inner = textFileLogObserver(open(os.environ["QUIET_LOG"], "a"))  # noqa: SIM115

    @provider(ILogObserver)
    def observe(event):
        if event.get("log_namespace") == "mtlsgate.service":
            inner(event)

    return observe
