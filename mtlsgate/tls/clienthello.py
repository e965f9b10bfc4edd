"""
The server name that a TLS client asks for, read before TLS begins.

Servers that share a port have an `SSL.Context` each, and which of them a
connection belongs to stands in its first message.  `ClientHelloReader` takes
the bytes as they come until it knows; OpenSSL then gets the same bytes, all of
them, and does everything else.  Nothing is judged here but what the name
depends on, so a hello that OpenSSL refuses may pass.  Of a hello that OpenSSL
accepts, both read the same name, or the reader refuses it.

Two names are OpenSSL's alone: that of the second hello, after a
HelloRetryRequest, and, in TLS 1.2, that of a session which is resumed.  So
compare with ``connection.get_servername()`` when the handshake is complete.

Pure: no sockets, no OpenSSL.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from mtlsgate.proxyprotocol import begins_header
from mtlsgate.reasons import Reason

#: The longest ClientHello there can be, every vector full; OpenSSL's limit too.
MAX_HELLO = 131_396

#: How much may arrive until the hello is whole, record headers and all: any
#: hello in sane records, or one of 43 KB in records of one byte.
MAX_BYTES = 256 * 1024

#: What a PROXY header in TLS's place is.
UNEXPECTED_HEADER = (
    "a PROXY header where TLS should begin: proxy_protocol is not set, or the header came twice"
)

_MAX_RECORD = 2**14  # RFC 8446, 5.1
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_ALERT, _HANDSHAKE = 21, 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_MAX_HOST_NAME = 255

_HTTP_METHODS = (b"GET /", b"POST ", b"HEAD ", b"PUT /", b"DELET", b"OPTIO", b"PATCH", b"PRI *")


class Alert(IntEnum):
    """The alerts that are sent without OpenSSL (RFC 8446, 6)."""

    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    BAD_CERTIFICATE = 42
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    UNRECOGNIZED_NAME = 112


def alert_record(description: int) -> bytes:
    """
    :param description: which alert, as `Alert.UNRECOGNIZED_NAME`.
    :returns: it, fatal, in an unencrypted record.
    """
    return bytes((_ALERT, 3, 3, 0, 2, 2, description))


@frozen
class ClientHello:
    """
    :ivar server_name: as the client wrote it, in whatever case and with a
        trailing dot if it has one; 1 to 255 characters, each of them an octet
        (latin-1).  None where the hello names none.
    """

    server_name: str | None


@frozen
class NoClientHello:
    """
    :ivar reason: `NOT_TLS`, `UNSUPPORTED_TLS`, `PEER_ALERT` or `PROTOCOL_ERROR`.
    :ivar detail: what is wrong; nothing in it is the client's own text.
    :ivar alert: what to answer, or None to say nothing to one that speaks no
        TLS or has taken leave.
    """

    reason: Reason
    detail: str
    alert: Alert | None = None


class ClientHelloReader:
    """
    Finds the ClientHello in what a client sends first.

    :ivar received: every byte that was fed, for the TLS that follows.
    :ivar _message: what the records so far hold.
    :ivar _at: where in ``received`` the next record begins.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self._message = bytearray()
        self._at = 0
        self._outcome: ClientHello | NoClientHello | None = None

    def feed(self, data: bytes) -> ClientHello | NoClientHello | None:
        """
        :param data: the next bytes, as many as there are.
        :returns: None while more is needed.  The outcome then depends on the
            bytes alone and not on how they came, and later ones do not change it.
        """
        self.received += data
        try:
            while self._outcome is None and self._next_record():
                self._outcome = self._hello()
        except _Refused as refused:
            self._outcome = refused.outcome
        return self._outcome

    def _next_record(self) -> bool:
        """:returns: whether a record was whole, and is now part of the message."""
        start = self._at + _RECORD_HEADER
        header = bytes(self.received[self._at : start])
        if len(header) < _RECORD_HEADER:
            return False
        if not self._message:
            _check_beginning(header)
        length = _fragment_length(header)
        end = start + length
        if end > MAX_BYTES:
            raise _Refused("the ClientHello is in too many small records", Alert.ILLEGAL_PARAMETER)
        if len(self.received) < end:
            return False
        self._message += self.received[start:end]
        self._at = end
        return True

    def _hello(self) -> ClientHello | None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise _Refused("the first message is no ClientHello", Alert.UNEXPECTED_MESSAGE)
        if len(message) < _MESSAGE_HEADER:
            return None
        length = int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        if length > MAX_HELLO:
            raise _Refused("the ClientHello is too long", Alert.ILLEGAL_PARAMETER)
        end = _MESSAGE_HEADER + length
        if len(message) < end:
            return None
        return ClientHello(_server_name(bytes(message[_MESSAGE_HEADER:end])))


class _Refused(Exception):
    def __init__(
        self,
        detail: str,
        alert: Alert | None = Alert.DECODE_ERROR,
        reason: Reason = Reason.PROTOCOL_ERROR,
    ) -> None:
        super().__init__(detail)
        self.outcome = NoClientHello(reason, detail, alert)


def _check_beginning(header: bytes) -> None:
    """Tell those who do not speak TLS, or not yet, from those who do it badly."""
    if header.startswith(_HTTP_METHODS):
        raise _Refused("an HTTP request without TLS", None, Reason.NOT_TLS)
    if header.startswith(b"CONNE"):
        raise _Refused("an HTTP proxy request without TLS", None, Reason.NOT_TLS)
    if begins_header(header):
        raise _Refused(UNEXPECTED_HEADER, None, Reason.NOT_TLS)
    if header[0] & 0x80 and header[2] == _CLIENT_HELLO:
        raise _Refused("an SSL 2.0 hello", Alert.PROTOCOL_VERSION, Reason.UNSUPPORTED_TLS)
    if header[1] != 3 or not 20 <= header[0] <= 24:
        raise _Refused("what arrived is no TLS record", None, Reason.NOT_TLS)
    if header[0] == _ALERT:
        raise _Refused("the client began with an alert", None, Reason.PEER_ALERT)


def _fragment_length(header: bytes) -> int:
    """:returns: how long the fragment of a handshake record is (RFC 8446, 5.1)."""
    if header[0] != _HANDSHAKE:
        raise _Refused("a record that is no handshake's", Alert.UNEXPECTED_MESSAGE)
    if header[1] != 3:
        raise _Refused("a record of another version", Alert.PROTOCOL_VERSION)
    length = int.from_bytes(header[3:], "big")
    if length == 0:
        raise _Refused("a handshake record without content", Alert.UNEXPECTED_MESSAGE)
    if length > _MAX_RECORD:
        raise _Refused("a record is too long", Alert.RECORD_OVERFLOW)
    return length


class _Fields:
    """Takes the fields of a message one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) < length:
            raise _Refused("the ClientHello is cut short")
        self._at += length
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """:returns: what follows its length, a number of that width."""
        return self.take(self.number(width))

    def more(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        if self.more():
            raise _Refused("the ClientHello has data past an end")


def _server_name(body: bytes) -> str | None:
    """:returns: the name in a ClientHello (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2)."""
    hello = _Fields(body)
    hello.take(2 + 32)  # legacy_version, random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    if not hello.more():
        return None
    extensions = _Fields(hello.vector(2))
    hello.end()
    name = None
    while extensions.more():
        kind = extensions.number(2)
        data = extensions.vector(2)
        if kind == _SERVER_NAME:
            if name is not None:
                raise _Refused("the server_name extension is there twice", Alert.ILLEGAL_PARAMETER)
            name = _host_name(data)
    return name


def _host_name(data: bytes) -> str:
    """:returns: the one name of a server_name extension (RFC 6066, 3)."""
    extension = _Fields(data)
    names = _Fields(extension.vector(2))
    extension.end()
    if names.number(1) != _HOST_NAME:
        raise _Refused("the server name is no host name")
    name = names.vector(2)
    names.end()
    if not name:
        raise _Refused("the server name is empty")
    if len(name) > _MAX_HOST_NAME or 0 in name:
        raise _Refused("the server name is no DNS name", Alert.UNRECOGNIZED_NAME)
    return name.decode("latin-1")
