"""A service for twistd: twistd -ny gate.tac"""

import os

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.protocols.wire import Echo
from twisted.internet.protocol import Factory

from mtlsgate import Gate, Rule

gate = Gate(
    certificate=("server.crt", "server.key"),
    rules=[Rule("fleet", ca="fleet-ca.crt")],
)
endpoint = gate.endpoint(reactor, os.environ.get("LISTEN", "*:8443"))

application = Application("fleet")
StreamServerEndpointService(endpoint, Factory.forProtocol(Echo)).setServiceParent(application)
