"""AMP between two programs that know each other: python amp_server.py [127.0.0.1:8443]"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.amp import AMP, Command, Integer, Unicode
from twisted.python import log

from mtlsgate import Gate, Rule, verified_peer


class Add(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer()), (b"asked_by", Unicode())]


class Adder(AMP):
    @Add.responder
    def add(self, a: int, b: int) -> dict[str, Any]:
        peer = verified_peer(self)
        return {"total": a + b, "asked_by": peer.common_name if peer else "nobody"}


async def main(reactor: Any, where: str = "*:8443") -> None:
    gate = Gate(
        certificate=("server.crt", "server.key"),
        rules=[Rule("fleet", ca="fleet-ca.crt")],
    )
    await gate.endpoint(reactor, where).listen(Factory.forProtocol(Adder))
    await Deferred()


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.react(main, sys.argv[1:])
