"""
The conversation with one client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from gate_keyvalue.store import Access, QuotaExceeded, Store
from mtlsgate.interfaces import IVerifiedPeer

_NOTHING = Access()


class KeyValueProtocol(LineReceiver, TimeoutMixin):
    """
    One connection.

    :ivar owner: the client, by the fingerprint of its certificate.
    :ivar access: what its rule may do.
    """

    delimiter = b"\n"

    def __init__(self, factory: KeyValueFactory) -> None:
        self._factory = factory
        self._store = factory.store
        self.MAX_LENGTH = factory.max_value_size + 256
        # How TimeoutMixin is told whose time it is.
        self.callLater = factory.reactor.callLater  # type: ignore[assignment,method-assign]
        self.owner = ""
        self.access = _NOTHING

    def connectionMade(self) -> None:
        """The gate let somebody in: see who it is, once for the connection."""
        assert self.transport is not None
        peer = IVerifiedPeer(self.transport)
        self.owner = peer.sha256
        self.access = self._factory.access.get(peer.rule, _NOTHING)
        # Answers that nobody reads would pile up: while they do, no command is read.
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self.setTimeout(self._factory.idle_timeout)
        self.sendLine(f"HELLO {peer.rule}".encode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the clock."""
        self.setTimeout(None)

    def lineReceived(self, line: bytes) -> None:
        """Answer a command."""
        self.resetTimeout()
        for answer in self._answers(line.rstrip(b"\r")):
            self.sendLine(answer.encode())

    def lineLengthExceeded(self, line: bytes) -> None:
        """That is no command."""
        self._leave()

    def timeoutConnection(self) -> None:
        """The client was silent for too long, or has not read."""
        self._leave()

    def _leave(self) -> None:
        assert self.transport is not None
        if self.paused:
            # It would be waited for until it reads.
            self.transport.abortConnection()  # type: ignore[attr-defined]
        else:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseConnection()

    def _answers(self, line: bytes) -> Iterator[str]:
        try:
            command, _, rest = line.decode().partition(" ")
        except UnicodeDecodeError:
            yield "ERROR not UTF-8"
            return
        key, _, value = rest.partition(" ")
        match command:
            case "GET" if key:
                yield self._get(key)
            case "SET" if key:
                yield self._set(key, value)
            case "DEL" if key:
                yield self._delete(key)
            case "KEYS":
                readable = filter(self.access.may_read, sorted(self._store.values))
                yield from (f"KEY {one}" for one in readable if one.startswith(key))
                yield "OK"
            case "QUIT":
                yield "BYE"
                self._leave()
            case _:
                yield "ERROR commands are GET, SET, DEL, KEYS and QUIT"

    def _get(self, key: str) -> str:
        if not self.access.may_read(key):
            return "DENIED"
        value = self._store.values.get(key)
        return "NONE" if value is None else f"VALUE {value}"

    def _set(self, key: str, value: str) -> str:
        if not self.access.may_write(key):
            return "DENIED"
        if len(value.encode()) > self._factory.max_value_size:
            return "ERROR the value is too long"
        try:
            self._store.set(self.owner, key, value)
        except QuotaExceeded:
            return "ERROR you keep too many keys"
        return "OK"

    def _delete(self, key: str) -> str:
        if not self.access.may_write(key):
            return "DENIED"
        return "OK" if self._store.delete(key) else "NONE"


class KeyValueFactory(Factory):
    """
    What all connections share.

    :ivar store: what is kept.
    :ivar access: what each rule may do; a rule without an entry, nothing.
    :ivar max_value_size: in bytes.
    :ivar idle_timeout: in seconds.
    :ivar reactor: for the time.
    """

    noisy = False

    def __init__(
        self,
        store: Store,
        access: Mapping[str, Access],
        max_value_size: int,
        idle_timeout: float,
        reactor: IReactorTime,
    ) -> None:
        self.store = store
        self.access = access
        self.max_value_size = max_value_size
        self.idle_timeout = idle_timeout
        self.reactor = reactor

    def buildProtocol(self, addr: IAddress | None) -> KeyValueProtocol:
        """Called for verified clients, and for no others."""
        return KeyValueProtocol(self)
