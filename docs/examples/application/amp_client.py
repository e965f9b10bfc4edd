"""Asks amp_server.py: python amp_client.py HOST:PORT CERTIFICATE KEY"""

import sys
from typing import Any

from amp_server import Add
from twisted.internet import task
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.protocols.amp import AMP


async def main(reactor: Any, where: str, certificate: str, key: str) -> None:
    endpoint = clientFromString(
        reactor, f"mtls:{where}:certificate={certificate}:key={key}:ca=fleet-ca.crt"
    )
    connection = await connectProtocol(endpoint, AMP())
    answer = await connection.callRemote(Add, a=2, b=3)
    print(f"{answer['total']}, asked by {answer['asked_by']}")
    connection.transport.loseConnection()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
