"""Perspective Broker, with a root object for each client: python pb_server.py [127.0.0.1:8443]"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.spread.pb import Broker, IPBRoot, PBServerFactory, Referenceable
from zope.interface import implementer

from mtlsgate import Gate, Rule, verified_peer


class Account(Referenceable):
    """What one client gets hold of."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def remote_whoami(self) -> str:
        peer = verified_peer(self.broker)
        return f"{peer.common_name} by {peer.rule}" if peer else "nobody"


@implementer(IPBRoot)
class Root:
    """
    PB asks for the root object once for each connection, before that connection is the
    broker's: there is no peer yet.  So keep the broker, and ask for the peer when a
    client calls.
    """

    def rootObject(self, broker: Broker) -> Account:
        return Account(broker)


async def main(reactor: Any, where: str = "*:8443") -> None:
    gate = Gate(
        certificate=("server.crt", "server.key"),
        rules=[Rule("fleet", ca="fleet-ca.crt")],
    )
    await gate.endpoint(reactor, where).listen(PBServerFactory(Root()))
    await Deferred()


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.react(main, sys.argv[1:])
