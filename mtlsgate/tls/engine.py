"""
TLS without a socket: bytes in, bytes and events out.

An `Engine` is the only thing that makes and drives an OpenSSL connection.  Its
owner hands it what arrived (`Engine.feed`), asks what that means until there is
no more (`Engine.next`), writes (`Engine.write`), and sends whatever
`Engine.outgoing` returns::

    engine.feed(data)
    while (event := engine.next()) is not Event.NEEDS_BYTES:
        ...                     # bytes for the application, or an Event
    socket.send(engine.outgoing())

A server that asks for certificates has a verdict on each client.  Until it is
`Admitted`, the engine returns none of the client's bytes, and sends nothing that
OpenSSL has to say after the handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from OpenSSL import SSL
from OpenSSL.crypto import X509

from mtlsgate.admission import Admitted, Rejection
from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.tls.clienthello import Alert, alert_record
from mtlsgate.tls.handshake import EngineConnection, Handshake
from mtlsgate.tls.trust import encoded

#: What one TLS record holds at most (RFC 8446, 5.1), and what TLS adds to it at most.
_RECORD = 2**14
_RECORD_OVERHEAD = 256

#: How much of several records is handed on as one piece.
PIECE = 2**18

#: How much of a handshake's output is read at once; it is read until there is none.
_FLIGHT = 2**14

#: How much is in OpenSSL's memory at a time, each way.  Its buffers grow to the
#: largest amount that was ever in them, and stay so for as long as the connection.
_SLICE = 2**15

#: How much TLS may have to answer to so much.  A client that does nothing but ask for
#: new keys (KeyUpdate) costs more than one that sends anything else.
_MAX_ANSWERS = 2**14


class Event(Enum):
    """What can come of the bytes that an engine was fed, besides bytes."""

    #: There is nothing more to be had from what was fed.
    NEEDS_BYTES = "needs bytes"
    #: The handshake is complete.  A server's verdict is in `Engine.verdict`.
    HANDSHAKEN = "handshaken"
    #: The other side sent close_notify: no more will come from it.
    ENDED = "ended"


class Engine:
    """
    One TLS connection, of a server or a client.

    :ivar verdict: of a server that asks for certificates, when the handshake is
        complete; None before, and for every other engine.
    :ivar received: bytes that were handed to the application.
    :ivar sent: bytes that it wrote.
    :ivar is_handshaken: whether the handshake is complete.
    :ivar _is_open: whether application bytes may pass.
    :ivar _met: what reading met behind bytes that it returned.
    :ivar _refusal: an alert for a client whose verdict came after its handshake.
    :ivar _waiting: what was fed and OpenSSL has not got yet.
    :ivar _sealed: what OpenSSL put out and was not asked for yet.
    :ivar _is_dry: whether OpenSSL has nothing more to be read.
    """

    __slots__ = (
        "_conclude",
        "_connection",
        "_is_dry",
        "_is_open",
        "_met",
        "_refusal",
        "_sealed",
        "_waiting",
        "is_handshaken",
        "received",
        "sent",
        "verdict",
    )

    def __init__(
        self,
        connection: EngineConnection,
        conclude: Callable[[EngineConnection], Admitted | Rejection] | None = None,
    ) -> None:
        """
        :param connection: in accept or connect state; nobody else drives it.
        :param conclude: gives the verdict when the handshake is complete; None
            where the other side is verified within the handshake, or not at all.
        """
        self._connection: EngineConnection | None = connection
        self._conclude = conclude
        self._is_open = self.is_handshaken = self._is_dry = False
        self._met: Event | SSL.Error | None = None
        self.verdict: Admitted | Rejection | None = None
        self.received = self.sent = 0
        self._refusal = b""
        self._waiting = memoryview(b"")
        self._sealed: list[bytes] = []

    # Bytes in, events out.

    def feed(self, data: bytes) -> None:
        """:param data: that arrived."""
        if data and self._connection is not None:
            if self._waiting:
                data = bytes(self._waiting) + data
            self._waiting = memoryview(data)
            self._is_dry = False
            self._refill(self._connection)

    def _refill(self, connection: EngineConnection) -> bool:
        """:returns: whether OpenSSL got some of what waits."""
        if not self._waiting:
            return False
        connection.bio_write(self._waiting[:_SLICE])
        self._waiting = self._waiting[_SLICE:]
        return True

    def next(self) -> bytes | Event:
        """
        :returns: application bytes, or an event.  The last event is always
            `Event.NEEDS_BYTES`.
        :raises SSL.Error: if TLS failed.  `outgoing` may have an alert.
        """
        if self._connection is None:
            return Event.NEEDS_BYTES
        if self.is_handshaken:
            return self._read(self._connection) if self._is_open else Event.NEEDS_BYTES
        return self._shake(self._connection)

    def _shake(self, connection: EngineConnection) -> Event:
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                if not self._refill(connection):
                    return Event.NEEDS_BYTES
            except SSL.ZeroReturnError:
                # A close_notify in the middle of the handshake.
                raise SSL.SysCallError(-1, "Unexpected EOF") from None
        self.is_handshaken = True
        if self._conclude is None:
            self._is_open = True
        else:
            self.verdict = self._conclude(connection)
            self._is_open = isinstance(self.verdict, Admitted)
            if not self._is_open:
                # Session tickets, or TLS 1.2's Finished.
                self.outgoing()
                self._refusal = _last_words(connection)
        return Event.HANDSHAKEN

    def _read(self, connection: EngineConnection) -> bytes | Event:
        if self._met is not None:
            return self._raise_met()
        if self._is_dry:
            return Event.NEEDS_BYTES
        records: list[bytes] = []
        size = 0
        try:
            while size < PIECE and not self._is_dry:
                try:
                    records.append(connection.recv(_RECORD))
                    size += len(records[-1])
                    continue
                except SSL.WantReadError:
                    pass
                if self._waiting:
                    self._check_answers(connection)
                self._is_dry = not self._refill(connection)
        except SSL.ZeroReturnError:
            self._met = Event.ENDED
        except SSL.Error as error:
            # Without the frames, which would hold this engine in a circle.
            self._met = error.with_traceback(None)
        if records:
            self.received += size
            return records[0] if len(records) == 1 else b"".join(records)
        return self._raise_met() if self._met is not None else Event.NEEDS_BYTES

    def _check_answers(self, connection: EngineConnection) -> None:
        """:raises SSL.Error: if TLS had to answer too much to what OpenSSL got last."""
        answers = self._drain(connection, _FLIGHT)
        self._sealed += answers
        if sum(map(len, answers)) > _MAX_ANSWERS:
            raise SSL.Error([("", "", "too many key updates")])

    def _raise_met(self) -> Event:
        met, self._met = self._met, None
        # Nothing comes after either.
        self._is_dry = True
        if isinstance(met, SSL.Error):
            try:
                raise met
            finally:
                del met
        assert met is not None
        return met

    @property
    def has_more(self) -> bool:
        """Whether `next` may return something without being fed."""
        return self._is_open and not self._is_dry

    # Bytes out.

    def write(self, data: bytes) -> None:
        """
        :param data: the application's, for `outgoing`.
        :raises SSL.Error: if TLS failed.
        """
        connection = self._connection
        if connection is None or not self._is_open:
            return
        if len(data) <= _SLICE:
            _send(connection, data)
        else:
            whole = memoryview(data)
            for start in range(0, len(data), _SLICE):
                _send(connection, whole[start : start + _SLICE])
                self._sealed += self._drain(connection, _room(_SLICE))
        self.sent += len(data)

    def close(self) -> None:
        """Send close_notify.  OpenSSL has none to send before the handshake is
        complete, or after TLS failed."""
        if self._connection is not None:
            with suppress(SSL.Error):
                self._connection.shutdown()

    def refuse(self) -> bytes:
        """
        :returns: an alert for a client that is turned away when its handshake is
            done; nothing if there is none that it could read.
        """
        return self._refusal

    def outgoing(self, size: int = 0) -> bytes:
        """
        :param size: how many application bytes are in it, as far as known.
        :returns: everything that is to be sent, however much it is.
        """
        connection = self._connection
        if connection is None:
            return b""
        if self._sealed:
            sealed, self._sealed = self._sealed, []
            return b"".join(sealed + self._drain(connection, _FLIGHT))
        pieces = self._drain(connection, _room(size) if size else _FLIGHT)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _drain(self, connection: EngineConnection, room: int) -> list[bytes]:
        """:returns: all that OpenSSL has put out."""
        pieces = []
        with suppress(SSL.WantReadError):
            while True:
                pieces.append(connection.bio_read(room))
                if len(pieces[-1]) < room:
                    break
        return pieces

    def free(self) -> None:
        """Let go of OpenSSL's memory.  What is asked of the connection afterwards is None."""
        self._connection = None
        self._waiting = memoryview(b"")
        self._sealed.clear()

    # What was negotiated.

    @property
    def connection(self) -> EngineConnection | None:
        """OpenSSL's connection, for questions about it; None before application
        bytes may pass, and after `free`."""
        return self._connection if self._is_open else None

    @property
    def handshake(self) -> Handshake:
        """What the callbacks noted; only before `free`."""
        assert self._connection is not None
        return self._connection.handshake

    @property
    def server_name(self) -> str | None:
        """The name that the client asks for (SNI), as it is written there."""
        return None if self._connection is None else self._connection.server_name

    @property
    def version(self) -> str:
        """As ``TLSv1.3``."""
        return "" if self._connection is None else self._connection.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        """OpenSSL's name of the cipher suite, or an empty string."""
        return "" if self._connection is None else self._connection.get_cipher_name() or ""

    @property
    def group(self) -> str | None:
        """OpenSSL's name of the key exchange group."""
        return None if self._connection is None else self._connection.get_group_name()

    @property
    def alpn(self) -> bytes | None:
        """The application protocol, or None."""
        found = b"" if self._connection is None else self._connection.get_alpn_proto_negotiated()
        return found or None

    @property
    def certificate(self) -> X509 | None:
        """The other side's certificate, or None."""
        return None if self._connection is None else self._connection.get_peer_certificate()

    @property
    def own_certificate(self) -> Certificate | None:
        """This side's certificate, or None."""
        own = None if self._connection is None else self._connection.get_certificate()
        return None if own is None else known(encoded(own))

    def presented_leaf(self) -> Certificate | None:
        """:returns: the leaf that a rejected client presented, for the log."""
        return None if self._connection is None else self._connection.presented_leaf()


def _send(connection: EngineConnection, data: bytes | memoryview) -> None:
    # One call takes all of it where `new_context` made the Context.
    sent = 0
    while sent < len(data):
        sent += connection.send(data[sent:] if sent else data)


def _room(size: int) -> int:
    """:returns: what so many application bytes take when they are encrypted."""
    return size + (size // _RECORD + 1) * _RECORD_OVERHEAD


def _last_words(connection: EngineConnection) -> bytes:
    """
    :returns: an alert in the clear.  In a full TLS 1.2 handshake the server's last
        flight, which was not sent, is what turns encryption on.
    """
    if connection.get_protocol_version() != SSL.TLS1_2_VERSION or connection.handshake.resumed:
        return b""
    return alert_record(Alert.BAD_CERTIFICATE)
