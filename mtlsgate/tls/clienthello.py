"""
The server name that a TLS client asks for, read before TLS begins.

Servers on one port each have their own `SSL.Context`.  The client's first message
says which server it wants.  `ClientHelloReader` reads bytes until it knows the
name; OpenSSL then gets all of the same bytes and does the rest.  The reader checks
only what the name depends on, so it may accept a hello that OpenSSL refuses.  For a
hello that OpenSSL accepts, the reader finds the same name or refuses it.

The reader does not see two names: the one in the second hello after a
HelloRetryRequest, and in TLS 1.2 the one of a resumed session.  So compare with
``connection.get_servername()`` when the handshake is complete.

Pure: no sockets, no OpenSSL.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from mtlsgate.reasons import Reason
from mtlsgate.starttls import plain_protocol

#: The longest possible ClientHello, with every vector full; also OpenSSL's limit.
MAX_HELLO = 131_396

#: The most bytes that a hello may take, with record headers.  It is enough for any
#: hello in normal records, or for 43 KB in records of one byte.
MAX_BYTES = 256 * 1024

_MAX_RECORD = 2**14  # RFC 8446, 5.1
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_ALERT, _HANDSHAKE = 21, 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16
_HOST_NAME = 0
_MAX_HOST_NAME = 255


class Alert(IntEnum):
    """The alerts that the gate sends without OpenSSL (RFC 8446, 6)."""

    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    BAD_CERTIFICATE = 42
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    UNRECOGNIZED_NAME = 112


def alert_record(description: int) -> bytes:
    """
    :param description: the alert, such as `Alert.UNRECOGNIZED_NAME`.
    :returns: the fatal alert in an unencrypted record.
    """
    return bytes((_ALERT, 3, 3, 0, 2, 2, description))


@frozen
class ClientHello:
    """
    :ivar server_name: the name exactly as the client wrote it, including case
        and a trailing dot; 1 to 255 characters, one for each octet (latin-1).
        None if the hello has no name.
    :ivar alpn: the content of its extension for application protocols (RFC 7301,
        3.1), not checked; None if there is none.
    """

    server_name: str | None
    alpn: bytes | None = None

    def offers_only(self, protocol: bytes) -> bool:
        """:returns: whether this is the one application protocol that it offers."""
        names = bytes((len(protocol),)) + protocol
        return self.alpn == len(names).to_bytes(2, "big") + names


@frozen
class NoClientHello:
    """
    :ivar reason: `NOT_TLS`, `UNSUPPORTED_TLS`, `PEER_ALERT` or `PROTOCOL_ERROR`.
    :ivar detail: what is wrong, without any text from the client.
    :ivar alert: the alert to send; None if the client does not speak TLS or has
        sent an alert itself.
    """

    reason: Reason
    detail: str
    alert: Alert | None = None


class ClientHelloReader:
    """
    Finds the ClientHello in the first bytes of a client.

    :ivar received: all bytes fed so far; OpenSSL needs them afterwards.
    :ivar _message: the content of the records so far.
    :ivar _at: where in ``received`` the next record begins.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self._message = bytearray()
        self._at = 0
        self._outcome: ClientHello | NoClientHello | None = None

    def feed(self, data: bytes) -> ClientHello | NoClientHello | None:
        """
        :param data: the next bytes, any number of them.
        :returns: None while more bytes are needed.  The result depends only on
            the bytes, not on how they were split, and later bytes do not change it.
        """
        self.received += data
        try:
            while self._outcome is None and self._next_record():
                self._outcome = self._hello()
        except _Refused as refused:
            self._outcome = refused.outcome
        return self._outcome

    def _next_record(self) -> bool:
        """:returns: whether a complete record was added to the message."""
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
        return _client_hello(bytes(message[_MESSAGE_HEADER:end]))


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
    """Refuse what is not TLS, or an SSL 2.0 hello; let other errors be found later."""
    plain = plain_protocol(header)
    if plain is not None:
        raise _Refused(plain.words, None, Reason.NOT_TLS)
    if header[0] & 0x80 and header[2] == _CLIENT_HELLO:
        raise _Refused("an SSL 2.0 hello", Alert.PROTOCOL_VERSION, Reason.UNSUPPORTED_TLS)
    if header[1] != 3 or not 20 <= header[0] <= 24:
        raise _Refused("what arrived is no TLS record", None, Reason.NOT_TLS)
    if header[0] == _ALERT:
        raise _Refused("the client began with an alert", None, Reason.PEER_ALERT)


def _fragment_length(header: bytes) -> int:
    """:returns: the length of a handshake record's fragment (RFC 8446, 5.1)."""
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
    """Reads the fields of a message one after the other."""

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
        """:returns: the bytes after a length field of this width."""
        return self.take(self.number(width))

    def more(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        if self.more():
            raise _Refused("the ClientHello has data past an end")


def _client_hello(body: bytes) -> ClientHello:
    """:returns: what a ClientHello says (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2)."""
    hello = _Fields(body)
    hello.take(2 + 32)  # legacy_version, random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    if not hello.more():
        return ClientHello(None)
    extensions = _Fields(hello.vector(2))
    hello.end()
    name, alpn = None, None
    while extensions.more():
        kind = extensions.number(2)
        data = extensions.vector(2)
        if kind == _SERVER_NAME:
            if name is not None:
                raise _Refused("the server_name extension is there twice", Alert.ILLEGAL_PARAMETER)
            name = _host_name(data)
        elif kind == _ALPN:
            if alpn is not None:
                raise _Refused("the ALPN extension is there twice", Alert.ILLEGAL_PARAMETER)
            alpn = data
    return ClientHello(name, alpn)


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
