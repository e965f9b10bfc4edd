"""
The gate in a flood of handshakes that never end.

    python benchmarks/flood.py [--clients N]

Thousands of clients connect and stall: a third say nothing, a third break off within
their ClientHello, a third after it.  Meanwhile good clients come, one after the other, while
the flood rises and while it stands; then the gate loses patience with it, and what it holds is
measured.  All that twice, without limits and with each of those that are meant for this.
Exits 1 if a bar is missed.
"""

import argparse
import asyncio
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from soak_clients import PATIENCE, Cut, Visitor, Wire, context_for
from soak_gate import RunningGate, free_ports
from soak_site import SERVERS, STEADY, issue

#: Seconds that the flood stands, at least, once it has risen.
HANDSHAKE_TIMEOUT = 20
#: Bars: seconds for a good client; the part of its memory that may stay of a first flood, for
#: what is made once; MB that may stay of a second one.
SECONDS, PART, MEGABYTES = 1.0, 0.2, 5.0

#: The address that the flood comes from.
FLOOD = "127.0.0.99"

CONFIG = """\
server "plain" {{
  hosts             = ["127.0.0.1:{port}"]
  handshake_timeout = "{timeout}s"
  {limit}

  protocol "echo" {{}}

  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "clients" {{
      ca_certificate_file   = "ca.crt"
      leaf_certificate_file = "{pin}.crt"
    }}
  }}
}}
"""


class Flood:
    """Clients that stall, until the gate ends them."""

    def __init__(self, directory, port, count):
        self._directory, self._port = directory, port
        self._random = random.Random(count)
        self._clients = [self._client(number) for number in range(count)]
        self._tasks = []
        self.risen = asyncio.Event()
        self._up = 0

    def _client(self, number):
        cut = (0, self._random.randrange(1, 150), 420)[number % 3]
        return Visitor("stalled", "plain", STEADY[0], "1.3", cut=cut)

    async def rise(self):
        """Let all of them come."""
        at_once = asyncio.Semaphore(100)
        self._tasks = [asyncio.create_task(self._stall(one, at_once)) for one in self._clients]
        await self.risen.wait()

    async def _stall(self, visitor, at_once):
        context = context_for(self._directory, visitor.who, visitor.version)
        wire = Wire(visitor, self._port, context, source=FLOOD)
        try:
            async with at_once:
                await wire.connect()
                await wire.handshake()
        except (Cut, OSError):
            pass
        self._up += 1
        if self._up == len(self._clients):
            self.risen.set()
        await wire.until_closed()
        wire.reset()

    async def over(self):
        """Wait until the gate has ended all of them."""
        async with asyncio.timeout(HANDSHAKE_TIMEOUT + PATIENCE):
            await asyncio.gather(*self._tasks)


class Good:
    """A good client, which comes again and again."""

    def __init__(self, directory, port):
        self._directory, self._port = directory, port

    async def enter(self):
        """Return the seconds from connecting to an answer; None if it was refused."""
        visitor = Visitor("good", "plain", STEADY[0], "1.3")
        context = context_for(self._directory, visitor.who, visitor.version)
        wire = Wire(visitor, self._port, context, source=SERVERS["plain"][0])
        begin = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await wire.connect()
                await wire.handshake()
                answered = await wire.echo()
        except OSError:
            answered = False
        seconds = time.monotonic() - begin
        wire.close()
        return seconds if answered else None

    async def until(self, event):
        """Return what `enter` said until the event has happened."""
        found = []
        while not event.is_set():
            found.append(await self.enter())
            await asyncio.sleep(0.05)
        return found


class Table:
    """Prints the rows as they come, and remembers whether a bar was missed."""

    def __init__(self):
        self.missed = False

    def row(self, what, figure, bar=None):
        verdict = ""
        if bar is not None:
            verdict = f"{f'<= {bar:g}':>10}  {'ok' if figure <= bar else 'MISSED'}"
            self.missed |= figure > bar
        print(f"  {what:44}{figure:>8.2f}{verdict}", flush=True)


async def measure(table, directory, limit, count, *, is_refusing):
    """Flood one gate twice; `is_refusing` says that the limit keeps good clients out, too."""
    [port] = free_ports(1)
    config = CONFIG.format(port=port, timeout=HANDSHAKE_TIMEOUT, limit=limit, pin=STEADY[0])
    (directory / "gate.hcl").write_text(config)
    print(f"{limit or 'no limits'}: {count} clients that stall, twice", flush=True)
    with RunningGate(directory) as gate:
        await gate.listens(1)
        good = Good(directory, port)
        for _ in range(200):
            await good.enter()
        before = gate.memory()
        held = []
        for _ in range(2):
            flood = Flood(directory, port, count)
            rising, _ = await asyncio.gather(good.until(flood.risen), flood.rise())
            standing = [await good.enter() for _ in range(50)]
            during = gate.memory()
            await flood.over()
            begin = time.monotonic()
            while await good.enter() is None:
                await asyncio.sleep(0.05)
            again = time.monotonic() - begin
            await asyncio.sleep(2)
            held.append((during, gate.memory()))
            for what, times in (("rises", rising), ("stands", standing)):
                told = [one for one in times if one is not None]
                if not is_refusing:
                    table.row(f"good clients refused while it {what}", len(times) - len(told), 0)
                if told:
                    table.row(f"s, the median while it {what}", statistics.median(told))
                    table.row(f"s, the longest while it {what}", max(told), SECONDS)
            if is_refusing:
                table.row("s until a good client is let in afterwards", again, SECONDS)
        table.row("MB before", before)
        for number, (during, after) in enumerate(held, 1):
            table.row(f"MB during flood {number}", during)
            table.row(f"MB after flood {number}", after)
        (during, after), *_ = held
        table.row(
            "part of that of the first that stayed", (after - before) / (during - before), PART
        )
        table.row("MB that stayed of the second", held[1][1] - held[0][1], MEGABYTES)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--clients", type=int, default=5000, help="that stall (default 5000)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The gate inherits it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-flood-"))
    table, count = Table(), options.clients
    try:
        issue(directory)
        for limit, is_refusing in (
            ("", False),
            (f"max_handshakes = {count + 1000}", False),
            (f"max_handshakes = {count // 5}", True),
            (f"max_connections_per_ip = {count // 10}", False),
        ):
            asyncio.run(measure(table, directory, limit, count, is_refusing=is_refusing))
    finally:
        shutil.rmtree(directory)
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
