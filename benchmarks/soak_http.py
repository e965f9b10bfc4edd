"""
HTTP behind the gate, while its configuration changes: what was promised is kept.

    python benchmarks/soak.py --http [--seconds S] [--seed N]

A real ``twistd mtlsgate`` with two servers of ``protocol "http"``, whose targets speak HTTP/1.1
and HTTP/2.  Clients ask by both versions, and keep WebSockets, server-sent events and gRPC
streams open, while every reload makes a new application and lets the old one end.  Exits 1 if a
response was wrong or broke off, if a request failed that was not sent on a connection that had
just been closed, if a file descriptor or more than 5 MB stays, or if anything went wrong in the
log.
"""

import asyncio
import random
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import grpc
import soak_site
from aiohttp import web
from h2.errors import ErrorCodes
from soak_clients import PATIENCE
from soak_gate import RunningGate, free_ports

from mtlsgate.http2.events import Came, Leaving, Reset, Responded
from mtlsgate.http2.requesting import RequestSession

#: Of each kind of client, how many there are at a time.
EACH = 4
#: Seconds from one reload to the next, and how long streams stay open.
EVERY = (0.5, 2.0)
LONG = (1.0, 6.0)
#: Seconds between two messages of a stream.
BEAT = 0.1
#: What may stay after the first round, in MB.
BAR = 5
ROUNDS = 4
MOST_TOLD = 20

_SERVER = """
server "%s" {
  hosts = ["127.0.0.1:%d"]
  protocol "http" {
    target           = "127.0.0.1:%d"
    http_version     = "%s"
    response_timeout = "30s"
    headers {
      X-Epoch = "%d"
      X-Name  = peer.common_name
    }
  }
  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "all" { ca_certificate_file = "ca.crt" }
  }
}
"""


# Targets.


async def answer(request):
    """Answer with what came: how long it was, and who sent it."""
    size = len(await request.read())
    return web.Response(text=f"{size} {request.headers['X-Name']} " + "x" * size)


async def events(request):
    """Send as many events as were asked for."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(int(request.query["count"])):
        await response.write(b"data: %d\n\n" % number)
        await asyncio.sleep(BEAT)
    return response


async def websocket(request):
    """Echo."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


async def echo(messages, context):
    """Echo the messages of a call."""
    async for message in messages:
        yield message


async def serve(plain, http2):
    """Return the two targets, which have started."""
    application = web.Application(client_max_size=2**20)
    application.add_routes(
        [
            web.route("*", "/", answer),
            web.get("/events", events),
            web.get("/socket", websocket),
        ]
    )
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", plain).start()
    server = grpc.aio.server()
    methods = {"Echo": grpc.stream_stream_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("soak.Soak", methods)])
    server.add_insecure_port(f"127.0.0.1:{http2}")
    await server.start()
    return runner, server


# Clients.


class Broken(Exception):
    """What was promised was not kept."""


class Asking:
    """A connection of HTTP/2, and one request after the other on it."""

    @classmethod
    async def connect(cls, port, context):
        """Return a connection."""
        self = cls()
        self.reader, self.writer = await asyncio.open_connection("localhost", port, ssl=context)
        self.session = RequestSession(time.monotonic, 65536)
        self.leaving = None
        return self

    async def ask(self, size):
        """Return status and body; None if the gate did not promise to answer."""
        session, sent = self.session, b"y" * size
        number = session.begin()
        fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"localhost")]
        session.headers(number, [*fields, (b":path", b"/")], end=False)
        session.data(number, sent, end=True)
        status, body = 0, b""
        while True:
            self.writer.write(session.outgoing())
            data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
            if not data:
                if self.leaving is not None and self.leaving < number:
                    return None
                raise Broken("the connection ended in the middle of a request")
            session.feed(data)
            while (event := session.next()) is not None:
                match event:
                    case Leaving():
                        self.leaving = event.last
                    case Reset() if event.code == ErrorCodes.REFUSED_STREAM:
                        return None
                    case Reset():
                        raise Broken(f"reset with {event.code}")
                    case Responded():
                        status = int(event.fields[0][1])
                    case Came():
                        body += event.data
                        if event.ended:
                            return status, body
                        session.taken(number, len(event.data))


class Clients:
    """All of them; `done` counts what went well, `problems` are the rest."""

    def __init__(self, directory, ports, chance, end):
        self.directory = directory
        self.ports = ports
        self.chance = chance
        self.end = end
        self.done = Counter()
        self.problems = []

    def context(self, *alpn):
        """Return what a client shows."""
        who = self.chance.choice(soak_site.STEADY)
        context = ssl.create_default_context(cafile=self.directory / "ca.crt")
        context.load_cert_chain(self.directory / f"{who}.crt", self.directory / f"{who}.key")
        context.maximum_version = self.chance.choice(
            [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
        )
        if alpn:
            context.set_alpn_protocols(alpn)
        return context, who

    def count(self):
        """Return for how many messages a stream stays open."""
        return int(self.chance.uniform(*LONG) / BEAT)

    def url(self, path=""):
        return f"https://localhost:{self.ports['plain']}/{path}"

    async def run(self):
        kinds = (self.http1, self.http2, self.events, self.sockets, self.calls)
        await asyncio.gather(*(self._again(kind) for kind in kinds for _ in range(EACH)))

    async def _again(self, kind):
        while time.monotonic() < self.end:
            try:
                await asyncio.wait_for(kind(), PATIENCE)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is told
                self.problems.append(f"{kind.__name__}: {type(error).__name__}: {error}")

    def _check(self, kind, found, expected):
        if found != expected:
            raise Broken(f"{str(found)[:80]!r} instead of {str(expected)[:80]!r}")
        self.done[kind] += 1

    async def http1(self):
        """Ask by HTTP/1.1, some times on one connection."""
        context, who = self.context("http/1.1")
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, force_close=self.chance.random() < 0.3)
        ) as session:
            for _ in range(self.chance.randrange(1, 20)):
                # GET: a client may repeat it where a kept connection was closed just then.
                async with session.get(self.url(), data=b"y" * 1000) as response:
                    found = response.status, await response.text()
                self._check("requests of HTTP/1.1", found, (200, f"1000 {who} " + "x" * 1000))

    async def http2(self):
        """Ask by HTTP/2, some times on one connection."""
        context, who = self.context("h2")
        asking = await Asking.connect(self.ports["plain"], context)
        try:
            for _ in range(self.chance.randrange(1, 50)):
                size = self.chance.choice([1, 1000, 16000])
                found = await asking.ask(size)
                if found is None:
                    break
                expected = f"{size} {who} " + "x" * size
                self._check("requests of HTTP/2", found, (200, expected.encode()))
                if asking.leaving is not None:
                    break
        finally:
            asking.writer.transport.abort()

    async def events(self):
        """Listen to server-sent events."""
        context, _ = self.context("http/1.1")
        count = self.count()
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(self.url(f"events?count={count}")) as response,
        ):
            found = await response.text()
        self._check("event streams", found, "".join(f"data: {n}\n\n" for n in range(count)))

    async def sockets(self):
        """Talk on a WebSocket."""
        context, _ = self.context("http/1.1")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.ws_connect(self.url("socket")) as socket,
        ):
            for number in range(self.count()):
                await socket.send_str(str(number))
                if await socket.receive_str() != str(number):
                    raise Broken("another message came back")
                await asyncio.sleep(BEAT)
        self.done["WebSockets"] += 1

    async def calls(self):
        """Talk in a call of gRPC."""
        read = (self.directory / "ca.crt").read_bytes
        who = self.directory / self.chance.choice(soak_site.STEADY)
        credentials = grpc.ssl_channel_credentials(
            read(),
            who.with_suffix(".key").read_bytes(),
            who.with_suffix(".crt").read_bytes(),
        )
        address = f"localhost:{self.ports['http2']}"
        async with grpc.aio.secure_channel(address, credentials) as channel:
            call = channel.stream_stream("/soak.Soak/Echo")()
            for number in range(self.count()):
                await call.write(b"%d" % number)
                if await call.read() != b"%d" % number:
                    raise Broken("another message came back")
                await asyncio.sleep(BEAT)
            await call.done_writing()
            if await call.read() is not grpc.aio.EOF:
                raise Broken("a message too many")
        self.done["gRPC streams"] += 1


# The run.


class Gate(RunningGate):
    """The gate, and its configurations."""

    def __init__(self, directory, ports, targets):
        self.directory, self.ports, self.targets = directory, ports, targets
        self.epoch = 0
        self._write()
        super().__init__(directory)

    def _write(self):
        self.epoch += 1
        text = "".join(
            _SERVER % (name, self.ports[name], self.targets[name], version, self.epoch)
            for name, version in (("plain", "1.1"), ("http2", "2"))
        )
        (self.directory / "gate.hcl").write_text(text)

    async def reload(self):
        """Let a new configuration take over."""
        self._write()
        seen = len(self.log.reloads)
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            while len(self.log.reloads) == seen:
                await asyncio.sleep(0.02)
                self.log.read()


async def soak(gate, targets, options):
    """Return the problems, what went well, and what the gate held between the rounds."""
    chance = random.Random(options.seed)
    runner, server = await serve(targets["plain"], targets["http2"])
    done, problems, measured = Counter(), [], []
    await gate.listens(2)
    seconds = min(options.seconds, 600.0) / ROUNDS
    for number in range(ROUNDS):
        clients = Clients(gate.directory, gate.ports, chance, time.monotonic() + seconds)
        running = asyncio.create_task(clients.run())
        while not running.done():
            await asyncio.wait([running], timeout=chance.uniform(*EVERY))
            await gate.reload()
        await running
        done += clients.done
        problems += clients.problems
        # Nothing is kept of the last epoch.
        await gate.reload()
        measured.append(await rest(gate, measured[0][0] if measured else None))
        print(
            f"round {number}: {sum(done.values())} answered, epoch {gate.epoch}; at rest "
            f"{measured[-1][0]} descriptors, {measured[-1][1]:.1f} MB",
            flush=True,
        )
    await server.stop(1)
    await runner.cleanup()
    return problems, done, measured


async def rest(gate, expected):
    """Return descriptors and MB of the gate when it has come to rest."""
    end = time.monotonic() + PATIENCE
    before = None
    while time.monotonic() < end:
        await asyncio.sleep(1)
        descriptors = gate.descriptors()
        if descriptors == (before if expected is None else expected):
            break
        before = descriptors
    return gate.descriptors(), gate.memory()


def report(gate, problems, done, measured):
    """Print all there is to tell, and return whether it was good."""
    gate.log.read()
    print(f"\n{gate.epoch} epochs; " + ", ".join(f"{n} {what}" for what, n in done.items()))
    spread = max(one for one, _ in measured) - min(one for one, _ in measured)
    growth = max(memory for _, memory in measured[1:]) - measured[0][1]
    bars = [
        ("what was promised and not kept", len(problems), 0),
        ("kinds of clients without an answer", 5 - len(done), 0),
        ("wrong lines in the log", len(gate.log.wrong), 0),
        ("reloads that failed", gate.log.reloads.count(False), 0),
        ("file descriptors, most less fewest", spread, 0),
        ("MB more than after the warm-up", round(growth, 1), BAR),
        ("exit status of the gate", gate.process.returncode, 0),
    ]
    for what, figure, bar in bars:
        verdict = "ok" if figure <= bar else "MISSED"
        print(f"{what:46}{figure:>8}{f'<= {bar}':>8}  {verdict}")
    for problem in [*problems, *gate.log.wrong][:MOST_TOLD]:
        print(f"  {problem}")
    return all(figure <= bar for _, figure, bar in bars)


def main(options):
    """Run it, and exit with whether it was good."""
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-soak-"))
    try:
        soak_site.issue(directory)
        one, two, three, four = free_ports(4)
        ports, targets = {"plain": one, "http2": two}, {"plain": three, "http2": four}
        with Gate(directory, ports, targets) as gate:
            found = asyncio.run(soak(gate, targets, options))
            gate.stop()
            good = report(gate, *found)
    finally:
        shutil.rmtree(directory)
    sys.exit(0 if good else 1)
