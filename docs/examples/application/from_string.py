"""
Where to listen, and for whom, is said at start:

    python from_string.py mtls:8443:ca=fleet-ca.crt:certificate=server.crt:key=server.key
    python from_string.py mtls:8443:config=gate.hcl:server=devices
"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo
from twisted.python import log


async def main(reactor: Any, description: str) -> None:
    await serverFromString(reactor, description).listen(Factory.forProtocol(Echo))
    await Deferred()


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.react(main, sys.argv[1:])
