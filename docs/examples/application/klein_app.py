"""A Klein application that knows who asks: python klein_app.py [127.0.0.1:8443]"""

import sys
from typing import Any

from klein import Klein
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.web.server import Request, Site

from mtlsgate import Gate, Rule, verified_peer

app = Klein()


@app.route("/readings/<int:number>")
def reading(request: Request, number: int) -> str:
    peer = verified_peer(request)
    return f"reading {number} for {peer.common_name if peer else 'nobody'}\n"


async def main(reactor: Any, where: str = "*:8443") -> None:
    gate = Gate(
        certificate=("server.crt", "server.key"),
        rules=[Rule("fleet", ca="fleet-ca.crt")],
    )
    await gate.endpoint(reactor, where).listen(Site(app.resource()))
    await Deferred()


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.react(main, sys.argv[1:])
