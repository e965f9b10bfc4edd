"""
The clients of the soak: TLS by hand on sockets that do not block, so that one
process can be a thousand of them, and each can break off, or dawdle, where it likes.
"""

import asyncio
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial

from soak_site import BAD, DEVICES, HANDSHAKE_TIMEOUT, SERVERS

#: Seconds after which a client is left in the lurch.  Generous: it is not speed that is
#: measured.
PATIENCE = 60

#: The error of somebody who stayed as long as it wanted.
LEFT = "none, it left"

#: Seconds that those who dawdle do so in the middle of their handshake, at most.
REST = 3

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

#: How many of each there are of a hundred; a probe comes and goes without a byte.
KINDS = {
    "good": 44,
    "bad": 20,
    "reset": 14,
    "resuming": 14,
    "stalled": 3,
    "dawdling": 2,
    "slow": 2,
    "probe": 1,
}
#: Those that take their time, and none of the others'.
IDLERS = ("stalled", "dawdling")

#: More than a client sends before the gate has told its verdict.
_WHOLE_HANDSHAKE = 2600
#: Less than any client sends before it has proved anything.
_HALF_HANDSHAKE = 420


@dataclass
class Visitor:
    """
    One connection: what is planned, and what becomes of it.

    `first` and `last` are the oldest and the newest policy that may have been in force
    meanwhile, `final` is the oldest that may have had the last word.  `cut` says after how many
    bytes it breaks off, `echoed` that the application answered, which is what it means to
    be let in.
    """

    kind: str
    server: str
    who: str
    version: str
    cut: int | None = None
    is_slow: bool = False
    is_polite: bool = True
    first: int = 0
    final: int = 0
    last: int = 0
    address: str = ""
    echoed: bool = False
    resumed: bool = False
    error: str = ""

    @property
    def may_never_enter(self):
        """Return whether no policy admits it."""
        return self.who in BAD

    @property
    def was_turned_away(self):
        """Return whether it did its part, and did not get its answer."""
        if self.kind == "resident":
            return self.error != LEFT
        return self.cut is None and not self.echoed


def plan(random):
    """Yield visitors without end, always the same ones for a seed."""
    while True:
        [kind] = random.choices(list(KINDS), list(KINDS.values()))
        visitor = Visitor(
            kind,
            random.choice(list(SERVERS)),
            random.choice(DEVICES),
            random.choice(list(VERSIONS)),
            is_slow=kind == "slow",
            is_polite=random.random() < 0.7,
        )
        if kind == "bad" or (kind in ("reset", "slow", "dawdling") and random.random() < 0.3):
            visitor.who = random.choice(list(BAD))
        if kind == "resuming":
            visitor.server = "tickets"
        if kind == "reset":
            visitor.cut = random.randrange(_WHOLE_HANDSHAKE)
        if kind == "stalled":
            visitor.cut = random.randrange(_HALF_HANDSHAKE)
        if kind == "probe":
            visitor.cut = 0
        yield visitor


@cache
def context_for(directory, who, version):
    """Return the settings of somebody's client, one object for all of its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.load_verify_locations(directory / "ca.crt")
    if who != "nobody":
        context.load_cert_chain(*(directory / f"{who}.{end}" for end in ("crt", "key")))
    return context


class Cut(Exception):
    """The client has sent as much as it means to."""


class Wire:
    """A connection of one visitor, and TLS on it."""

    def __init__(self, visitor, port, context, session=None, source=None, rest=None):
        """`rest` is awaited once, in the middle of the handshake."""
        self._visitor, self._port, self._rest = visitor, port, rest
        self._loop = asyncio.get_running_loop()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_hostname=SERVERS[visitor.server][1], session=session
        )
        self._socket = socket.socket()
        self._socket.setblocking(False)
        # The port is chosen when the other end is known, so that there are enough of them.
        self._socket.setsockopt(socket.IPPROTO_IP, 24, 1)
        self._socket.bind((source or SERVERS[visitor.server][0], 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sent = 0

    async def connect(self):
        await self._loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        self._visitor.address = "{}:{}".format(*self._socket.getsockname())

    async def handshake(self):
        await self._do(self._tls.do_handshake)

    async def echo(self, data=b"knock"):
        """Return whether the data came back."""
        await self._do(self._tls.write, data)
        while data:
            got = await self._do(self._tls.read, len(data))
            if not got or not data.startswith(got):
                return False
            data = data[len(got) :]
        return True

    @property
    def session(self):
        """Return what a later client can resume, and whether this one did."""
        return self._tls.session, self._tls.session_reused

    async def _do(self, operation, *arguments):
        while True:
            try:
                return operation(*arguments)
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._loop.sock_recv(self._socket, 65536)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
            finally:
                await self._flush()

    async def _flush(self):
        data = self._out.read()
        cut = self._visitor.cut
        if cut is not None:
            data = data[: max(0, cut - self._sent)]
        if self._rest is not None and self._sent + len(data) > _HALF_HANDSHAKE:
            rest, self._rest, half = self._rest, None, _HALF_HANDSHAKE - self._sent
            await self._loop.sock_sendall(self._socket, data[:half])
            await rest()
            self._sent, data = _HALF_HANDSHAKE, data[half:]
        self._sent += len(data)
        if self._visitor.is_slow:
            for byte in data:
                await self._loop.sock_sendall(self._socket, bytes([byte]))
                await asyncio.sleep(0)
        else:
            await self._loop.sock_sendall(self._socket, data)
        if cut is not None and self._sent >= cut:
            raise Cut

    async def until_closed(self):
        """Wait for the other end to end it, by whatever means."""
        with suppress(OSError):
            while await self._loop.sock_recv(self._socket, 65536):
                pass

    def reset(self):
        """End it as somebody who pulls the plug."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def close(self):
        """End it, politely or not."""
        if self._visitor.is_polite:
            # It waits for an answer, or was never secured.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            with suppress(OSError):
                self._socket.send(self._out.read())
        self._socket.close()


@dataclass
class Crowd:
    """
    Those who come and go.

    `ports` are the gate's, by the names of servers.  `seen` are all that came, `kept_out`
    those whose TCP connection failed, `sessions` what can be resumed: by client and version.
    """

    directory: object
    ports: dict
    ledger: object
    seen: list = field(default_factory=list)
    kept_out: list = field(default_factory=list)
    sessions: dict = field(default_factory=dict)

    def wire(self, visitor, session=None):
        """Return a connection for somebody, which is yet to be made."""
        return Wire(
            visitor,
            self.ports[visitor.server],
            context_for(self.directory, visitor.who, visitor.version),
            session,
            rest=partial(self._rest, visitor) if visitor.kind == "dawdling" else None,
        )

    async def connect(self, visitor, wire):
        """Let somebody arrive."""
        try:
            await wire.connect()
        except OSError:
            self.kept_out.append(visitor)
            raise
        self.seen.append(visitor)

    async def _rest(self, visitor):
        """Wait until two other policies have come; the last word is theirs."""
        begun, end = self.ledger.first, time.monotonic() + REST
        while self.ledger.first < begun + 2 and time.monotonic() < end:
            await asyncio.sleep(0.05)
        visitor.final = self.ledger.first

    async def visit(self, visitor):
        """Come, and go."""
        visitor.first = visitor.final = self.ledger.first
        key = visitor.who, visitor.version
        wire = self.wire(visitor, self.sessions.get(key) if visitor.kind == "resuming" else None)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.connect(visitor, wire)
                await self._behave(visitor, wire)
        except Cut:
            if visitor.kind == "stalled":
                await self._stall(visitor, wire)
        except (OSError, TimeoutError) as error:
            visitor.error = repr(error)
        visitor.last = self.ledger.last
        if visitor.kind == "reset":
            wire.reset()
        else:
            wire.close()

    async def _behave(self, visitor, wire):
        if visitor.kind == "probe":
            return
        await wire.handshake()
        visitor.echoed = await wire.echo()
        if visitor.kind == "resuming":
            session, visitor.resumed = wire.session
            self.sessions[visitor.who, visitor.version] = session

    async def _stall(self, visitor, wire):
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT + PATIENCE):
                await wire.until_closed()
        except TimeoutError:
            visitor.error = "the gate never lost patience"


class Resident:
    """A client that stays over several policies, and now and then looks whether it is in."""

    def __init__(self, crowd, visitor):
        self.crowd, self.visitor = crowd, visitor
        self.gone = asyncio.Event()

    async def stay(self, leaving):
        """Stay until `leaving` says to go, or the gate closes the door."""
        visitor, ledger = self.visitor, self.crowd.ledger
        visitor.first = visitor.final = ledger.first
        wire = self.crowd.wire(visitor)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.crowd.connect(visitor, wire)
                await wire.handshake()
            while True:
                async with asyncio.timeout(PATIENCE):
                    still = await wire.echo()
                if not still:
                    break
                visitor.echoed = True
                if leaving.is_set():
                    visitor.error = LEFT
                    break
                await asyncio.sleep(0.3)
        except (OSError, TimeoutError) as error:
            visitor.error = repr(error)
        visitor.last = ledger.last
        wire.close()
        self.gone.set()
