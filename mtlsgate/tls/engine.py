"""
TLS without a socket: bytes in, bytes and events out.

Only an `Engine` drives an OpenSSL connection.  Its owner passes in the bytes that
arrived (`Engine.feed`), calls `Engine.next` until nothing is left, writes with
`Engine.write`, and sends what `Engine.outgoing` returns::

    engine.feed(data)
    while (event := engine.next()) is not Event.NEEDS_BYTES:
        ...                     # bytes for the application, or an Event
    socket.send(engine.outgoing())

A server that asks for certificates gives a verdict on each client.  Until it is
`Admitted`, the engine returns none of the client's bytes, and holds back what
OpenSSL wants to send after the handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from OpenSSL import SSL
from OpenSSL.crypto import X509

from mtlsgate.admission import Admitted, Path, Rejection
from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.tls.clienthello import Alert, alert_record
from mtlsgate.tls.handshake import EngineConnection, Handshake
from mtlsgate.tls.trust import encoded

#: The most bytes in one TLS record (RFC 8446, 5.1), and the most that TLS adds to it.
_RECORD = 2**14
_RECORD_OVERHEAD = 256

#: How many bytes come before a record's content: its type, a version and its length.
_RECORD_HEAD = 5
#: The type of records with what the other side's application wrote.
_APPLICATION_DATA = 23

#: The most bytes of several records that are returned as one piece.
PIECE = 2**18

#: How much of the handshake's output is read at once.
_FLIGHT = 2**14

#: The most bytes that OpenSSL buffers at a time in each direction.  Its buffers grow
#: to the largest amount they ever held and never shrink.
_SLICE = 2**15

#: How much TLS may have to answer to so much.  A client that does nothing but ask for
#: new keys (KeyUpdate) costs more than one that sends anything else.
_MAX_ANSWERS = 2**14


class Event(Enum):
    """What `Engine.next` can return besides bytes."""

    #: Nothing more can be read until more bytes are fed.
    NEEDS_BYTES = "needs bytes"
    #: The handshake is complete.  A server's verdict is in `Engine.verdict`.
    HANDSHAKEN = "handshaken"
    #: The other side sent close_notify: no more bytes follow.
    ENDED = "ended"


class Engine:
    """
    One TLS connection, of a server or a client.

    :ivar verdict: the server's verdict when the handshake is complete; None
        before that, and if no certificate is asked for.
    :ivar received: how many bytes were returned for the application.
    :ivar sent: how many bytes the application wrote.
    :ivar is_handshaken: whether the handshake is complete.
    :ivar _is_open: whether application bytes may pass.
    :ivar _met: an event or error found after bytes that were returned first.
    :ivar _refusal: an alert for a client that is rejected after its handshake.
    :ivar _waiting: bytes that were fed but not yet passed to OpenSSL.
    :ivar _sealed: OpenSSL's output that nobody has taken yet.
    :ivar _is_dry: whether OpenSSL has nothing more to read.
    :ivar _left: how many bytes of the latest record have not been fed yet; None if that
        is not known.
    :ivar _is_one_record: whether what was fed last is one whole record.
    :ivar _may_answer: whether OpenSSL may have something to send of its own.
    """

    __slots__ = (
        "_conclude",
        "_connection",
        "_is_dry",
        "_is_one_record",
        "_is_open",
        "_left",
        "_may_answer",
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
        :param connection: in accept or connect state; only this engine drives it.
        :param conclude: gives the verdict when the handshake is complete; None
            if the other side is verified during the handshake, or not at all.
        """
        self._connection: EngineConnection | None = connection
        self._conclude = conclude
        self._is_open = self.is_handshaken = self._is_dry = False
        self._left: int | None = 0
        self._is_one_record, self._may_answer = False, True
        self._met: Event | SSL.Error | None = None
        self.verdict: Admitted | Rejection | None = None
        self.received = self.sent = 0
        self._refusal = b""
        self._waiting = memoryview(b"")
        self._sealed: list[bytes] = []

    # Bytes in, events out.

    def feed(self, data: bytes) -> None:
        """:param data: the bytes that arrived."""
        if data and self._connection is not None:
            self._find_records(data)
            if not self._is_dry:
                # OpenSSL still has something of before.
                self._is_one_record = False
            if self._waiting:
                data = bytes(self._waiting) + data
            self._waiting = memoryview(data)
            self._is_dry, self._may_answer = False, True
            self._refill(self._connection)

    def _find_records(self, data: bytes) -> None:
        """Follow where records begin (RFC 8446, 5.1), to know when one came alone."""
        place, end = self._left, len(data)
        if place is None:
            return
        self._is_one_record = place == 0 and data[0] == _APPLICATION_DATA
        count = 0
        while place + _RECORD_HEAD <= end:
            place += _RECORD_HEAD + int.from_bytes(data[place + 3 : place + _RECORD_HEAD])
            count += 1
        self._is_one_record = self._is_one_record and count == 1 and place == end
        # In the middle of a record's head it is not worth while to go on.
        self._left = place - end if place >= end else None

    def _refill(self, connection: EngineConnection) -> bool:
        """:returns: whether OpenSSL got some of the waiting bytes."""
        if not self._waiting:
            return False
        connection.bio_write(self._waiting[:_SLICE])
        self._waiting = self._waiting[_SLICE:]
        return True

    def next(self) -> bytes | Event:
        """
        :returns: application bytes, or an event.  The last event is always
            `Event.NEEDS_BYTES`.
        :raises SSL.Error: if TLS failed.  `outgoing` may then return an alert.
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
                # The other side sent close_notify during the handshake.
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
                    if self._is_one_record and len(records) == 1:
                        # To ask OpenSSL for more, or for an answer, costs an exception each.
                        self._is_dry, self._may_answer = True, bool(self._sealed)
                    continue
                except SSL.WantReadError:
                    pass
                if self._waiting:
                    self._check_answers(connection)
                self._is_dry = not self._refill(connection)
        except SSL.ZeroReturnError:
            self._met = Event.ENDED
        except SSL.Error as error:
            # Drop the traceback: its frames would form a reference cycle.
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
        # Nothing can follow an error or close_notify.
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
        """Whether `next` may return something without more bytes."""
        return self._is_open and not self._is_dry

    # Bytes out.

    @property
    def may_answer(self) -> bool:
        """Whether `outgoing` may return something though nothing was written."""
        return self._may_answer

    def write(self, data: bytes) -> None:
        """
        :param data: application bytes; `outgoing` returns them encrypted.
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
        """Send close_notify.  OpenSSL cannot send it before the handshake is
        complete, or after TLS failed."""
        if self._connection is not None:
            with suppress(SSL.Error):
                self._connection.shutdown()

    def refuse(self) -> bytes:
        """
        :returns: an alert for a client that is rejected after its handshake; empty
            if the client could not read one.
        """
        return self._refusal

    def outgoing(self, size: int = 0) -> bytes:
        """
        :param size: how many application bytes it contains, if known.
        :returns: everything that must be sent.
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
        """:returns: all of OpenSSL's output."""
        pieces = []
        with suppress(SSL.WantReadError):
            while True:
                pieces.append(connection.bio_read(room))
                if len(pieces[-1]) < room:
                    break
        return pieces

    def free(self) -> None:
        """Free OpenSSL's memory.  Afterwards the connection's properties are None."""
        self._connection = None
        self._waiting = memoryview(b"")
        self._sealed.clear()

    # What was negotiated.

    @property
    def connection(self) -> EngineConnection | None:
        """OpenSSL's connection, to look things up; None before application bytes
        may pass, and after `free`."""
        return self._connection if self._is_open else None

    @property
    def handshake(self) -> Handshake:
        """What the callbacks recorded.  Do not use after `free`."""
        assert self._connection is not None
        return self._connection.handshake

    @property
    def server_name(self) -> str | None:
        """The name that the client asks for (SNI), as the client wrote it."""
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

    def presented(self) -> Path:
        """:returns: see `EngineConnection.presented`; empty once the engine was freed."""
        return () if self._connection is None else self._connection.presented()


def _send(connection: EngineConnection, data: bytes | memoryview) -> None:
    # With a Context from `new_context` one call takes everything.
    sent = 0
    while sent < len(data):
        sent += connection.send(data[sent:] if sent else data)


def _room(size: int) -> int:
    """:returns: how many bytes this many application bytes take when encrypted."""
    return size + (size // _RECORD + 1) * _RECORD_OVERHEAD


def _last_words(connection: EngineConnection) -> bytes:
    """
    :returns: an unencrypted alert.  It is right for a full TLS 1.2 handshake: the
        server has not sent its last flight, so encryption is not yet on.
    """
    if connection.get_protocol_version() != SSL.TLS1_2_VERSION or connection.handshake.resumed:
        return b""
    return alert_record(Alert.BAD_CERTIFICATE)
