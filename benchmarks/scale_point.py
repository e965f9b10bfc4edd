"""
One configuration, in a process of its own: builds it, and then shakes hands.

    python scale_point.py CONFIG CLIENT [SERVER_NAME]

Prints what the build took as one line of JSON.  For each line ``VERSION COUNT`` of
standard input it shakes hands so many times, in memory, and prints how many seconds
of CPU the server took for each.
"""

import json
import re
import sys
import time
from pathlib import Path

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogBeginner

from mtlsgate.certificates.parsing import parse_certificates, parse_private_key
from mtlsgate.gate.connections import Connections
from mtlsgate.load.loading import load
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.run.listening import Entrance, places_of
from mtlsgate.testing import Client, Credential


class Stopwatch(Protocol):
    """Stands before a server's protocol, and adds up the CPU time that it takes."""

    def __init__(self):
        self.total = 0.0

    def build(self, factory, address):
        self.protocol = self.timed(factory.buildProtocol, address)
        return self

    def timed(self, function, *arguments):
        begin = time.process_time()
        try:
            return function(*arguments)
        finally:
            self.total += time.process_time() - begin

    def makeConnection(self, transport):
        self.timed(self.protocol.makeConnection, transport)

    def dataReceived(self, data):
        self.timed(self.protocol.dataReceived, data)

    def connectionLost(self, reason):
        self.timed(self.protocol.connectionLost, reason)


class Handshakes:
    """Makes connections to a factory, one after the other."""

    def __init__(self, factory, clock, client, server_name):
        self._factory, self._clock, self._server_name = factory, clock, server_name
        leaf, *intermediates = parse_certificates(Path(f"{client}.crt").read_bytes())
        key = parse_private_key(Path(f"{client}.key").read_bytes())
        self._credential = Credential(leaf, key, tuple(intermediates))

    def one(self, version):
        """Return the server's CPU time, from the connection to its end."""
        watch = Stopwatch()
        client = Client(
            _Once(watch, self._factory),
            self._credential,
            clock=self._clock,
            server_name=self._server_name,
            min_version=version,
            max_version=version,
        )
        client.handshake()
        if not client.established:
            raise ConnectionError(f"the client was refused: {client.error}")
        client.close()
        return watch.total


class _Once:
    """A factory of one connection."""

    def __init__(self, watch, factory):
        self._watch, self._factory = watch, factory

    def buildProtocol(self, address):
        return self._watch.build(self._factory, address)


def memory(what):
    """Return ``VmRSS``, the resident memory in KB, or ``VmHWM``, the most there was of it."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def main():
    config, client, server_name = (*sys.argv[1:], None)[:3]
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
    before, cpu = memory("VmRSS"), time.process_time()
    epoch = load(config)
    cpu, after = time.process_time() - cpu, memory("VmRSS")
    if epoch.warnings:
        raise ValueError(epoch.warnings[0])
    clock = Clock()
    (place,) = places_of(epoch)
    factory = Entrance(place, Connections(clock, [HumanLog()])).factory
    handshakes = Handshakes(factory, clock, client, server_name)
    built = {
        "cpu": cpu,
        "memory": after - before,
        "peak": memory("VmHWM") - before,
        "first": handshakes.one("1.3"),
    }
    print(json.dumps(built), flush=True)
    for line in sys.stdin:
        version, count = line.split()
        total = sum(handshakes.one(version) for _ in range(int(count)))
        print(total / int(count), flush=True)


if __name__ == "__main__":
    main()
