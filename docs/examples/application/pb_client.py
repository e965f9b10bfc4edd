"""Asks pb_server.py: python pb_client.py HOST:PORT CERTIFICATE KEY"""

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.endpoints import clientFromString
from twisted.spread.pb import PBClientFactory


async def main(reactor: Any, where: str, certificate: str, key: str) -> None:
    factory = PBClientFactory()
    endpoint = clientFromString(
        reactor, f"mtls:{where}:certificate={certificate}:key={key}:ca=fleet-ca.crt"
    )
    broker = await endpoint.connect(factory)
    # PB itself would wait for ever for a gate that turns it away.
    broker.notifyOnDisconnect(reactor.stop)
    account = await factory.getRootObject()
    print(await account.callRemote("whoami"))
    broker.dontNotifyOnDisconnect(reactor.stop)
    factory.disconnect()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
