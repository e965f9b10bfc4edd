"""
A call of gRPC with a stream of answers, without I/O: bytes in, messages out.

As https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from mtlsgate.text import printable

#: The longest message, in bytes: gRPC's own limit.
MAX_MESSAGE = 4 * 1024 * 1024
#: What comes before a message: whether it is compressed, and its length.
_HEAD = 5

#: The status of a call (https://grpc.io/docs/guides/status-codes/).
OK, PERMISSION_DENIED = 0, 7
_NAMES = (
    "OK",
    "Cancelled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)


class CallEnded(Exception):
    """
    The call is over; the text says why, in one line.

    :ivar status: the status that the server gave, or None.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(printable(text))
        self.status = status


class Call:
    """One call, with an empty request."""

    def __init__(self, method: str, metadata: Iterable[tuple[str, str]]) -> None:
        """
        :param method: as ``/Service/Method``.
        :param metadata: further headers.
        """
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._http.initiate_connection()
        self._stream = self._http.get_next_available_stream_id()
        self._received = bytearray()
        self._status: tuple[str, str] | None = None
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        ]
        self._http.send_headers(self._stream, headers)
        self._http.send_data(self._stream, bytes(_HEAD), end_stream=True)

    def outgoing(self) -> bytes:
        """:returns: what must be sent."""
        return self._http.data_to_send()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        :param data: what came.
        :returns: the messages that are complete.
        :raises CallEnded: after the last message.
        """
        try:
            events = self._http.receive_data(data)
        except ProtocolError as error:
            raise CallEnded(f"it does not speak HTTP/2: {error}") from None
        for event in events:
            yield from self._on(event)

    def _on(self, event: Event) -> Iterator[bytes]:
        match event:
            case ResponseReceived(headers=headers) | TrailersReceived(headers=headers):
                self._read_status(headers or ())
            case DataReceived(data=data, flow_controlled_length=size):
                self._received += data or b""
                if size:
                    self._http.acknowledge_received_data(size, self._stream)
                yield from self._messages()
            case StreamEnded():
                raise self._ended()
            case StreamReset(error_code=code):
                raise CallEnded(f"it broke off the call (HTTP/2 error {code})")
            case ConnectionTerminated():
                raise CallEnded("it ends the connection")

    def _read_status(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        http = found.get(":status", "200")
        if "grpc-status" in found:
            self._status = found["grpc-status"], unquote(found.get("grpc-message", ""))
        elif http != "200":
            raise CallEnded(f"it does not speak gRPC: it answers with HTTP status {http}")

    def _messages(self) -> Iterator[bytes]:
        received = self._received
        while len(received) >= _HEAD:
            size = int.from_bytes(received[1:_HEAD])
            if received[0]:
                raise CallEnded("it compresses messages, though it was not asked to")
            if size > MAX_MESSAGE:
                raise CallEnded(f"it sends a message of {size} bytes; {MAX_MESSAGE} is the limit")
            if len(received) < _HEAD + size:
                return
            message = bytes(received[_HEAD : _HEAD + size])
            del received[: _HEAD + size]
            yield message

    def _ended(self) -> CallEnded:
        if self._status is None:
            return CallEnded("it ended the call without a status")
        code, text = self._status
        number = int(code) if code.isascii() and code.isdecimal() and len(code) < 3 else None
        name = code if number is None or number >= len(_NAMES) else _NAMES[number]
        if number == OK:
            return CallEnded("it ended the call", OK)
        return CallEnded(f"{name}: {text}" if text else name, number)
