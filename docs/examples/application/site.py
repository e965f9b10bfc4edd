"""A web site that knows who asks: python site.py [127.0.0.1:8443]"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from mtlsgate import Allow, Gate, Rule, verified_peer


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        peer = verified_peer(request)
        return f"Hello, {peer.common_name if peer else 'stranger'}!\n".encode()


async def main(reactor: Any, where: str = "*:8443") -> None:
    sensors = Allow(spiffe_ids=["spiffe://plants.example/sensor/*"])
    gate = Gate(
        certificate=("server.crt", "server.key"),
        rules=[Rule("fleet", ca="fleet-ca.crt", allow=[sensors])],
    )
    await gate.endpoint(reactor, where).listen(Site(Hello()))
    await Deferred()  # until it is interrupted


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.react(main, sys.argv[1:])
