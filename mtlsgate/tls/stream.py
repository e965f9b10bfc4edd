"""
A connected socket in a reactor, which sends bytes as soon as the kernel takes them.

`SocketStream` is the base of `mtlsgate.tls.transport`.  It knows nothing about TLS.
Subclasses decide what to do with received bytes, and what happens when everything
has been sent.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Protocol as Structure
from typing import cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPullProducer,
    IPushProducer,
    IReactorFDSet,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger("mtlsgate.connections")

#: How much is read from the kernel at once.
READ_SIZE = 2**18

#: How many buffers one system call takes (IOV_MAX is 1024 on Linux, 16 at least).
_MAX_BUFFERS = 64

#: The most reads after a failed write.
_MAX_LAST_READS = 16

#: SO_LINGER with a time of zero: closing resets the connection.
_RESET = struct.pack("ii", 1, 0)


def reset_socket(sock: socket.socket) -> None:
    """Close a connected socket with a reset, so that nobody takes it for a proper end."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class StreamReactor(Structure):
    """What a stream needs from its reactor."""

    def addReader(self, reader: object) -> object: ...
    def removeReader(self, reader: object) -> object: ...
    def addWriter(self, writer: object) -> object: ...
    def removeWriter(self, writer: object) -> object: ...
    def callLater(
        self, delay: float, function: Callable[..., object], *arguments: object
    ) -> IDelayedCall: ...


class SocketStream(FileDescriptor):
    """
    Reads and writes a connected socket.

    :ivar reactor: watches the socket.
    :ivar read_size: how much is read at once.
    :ivar unsent: bytes that the kernel has not taken yet.
    :ivar low_size: a producer that waits goes on when no more bytes than this are
        unsent.
    :ivar is_aborted: whether `abortConnection` was called.
    :ivar _unsent: those bytes.
    :ivar _is_reader: whether the reactor watches for bytes.
    :ivar _is_writer: whether it watches for room to write.
    """

    read_size = READ_SIZE
    unsent = 0
    low_size = 0
    is_aborted = False
    _is_reader = False
    _is_writer = False

    def __init__(
        self, sock: socket.socket, reactor: StreamReactor, peer: IAddress, host: IAddress
    ) -> None:
        """
        :param sock: connected; it belongs to this object from now on.
        :param peer: the other side's address.
        :param host: this side's.
        """
        super().__init__(cast(IReactorFDSet, reactor))
        sock.setblocking(False)
        self.connected = 1
        self._socket = sock
        self._descriptor = sock.fileno()
        self._peer = peer
        self._host = host
        self._is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        self._unsent: deque[memoryview | bytes] = deque()

    def fileno(self) -> int:
        """:returns: the socket's descriptor; -1 when it is closed."""
        return self._descriptor

    def getPeer(self) -> IAddress:
        """:returns: the other side's address."""
        return self._peer

    def getHost(self) -> IAddress:
        """:returns: this side's address."""
        return self._host

    # For subclasses.

    def bytes_came(self, data: bytes) -> None:
        """:param data: bytes that were read from the socket."""
        raise NotImplementedError

    def all_sent(self) -> Exception | None:
        """
        Everything has been sent, and there is room for more.

        :returns: why the connection is over now, or None.
        """
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send what the kernel takes now, and the rest later."""
        if not data:
            return
        if self._unsent:
            self._unsent.append(data)
            self.unsent += len(data)
            return
        try:
            sent = self._socket.send(data)
        except OSError:
            # The reactor will get the same error and handle it.
            sent = 0
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:] if sent else data)
            self.unsent = len(data) - sent
            self.startWriting()

    @property
    def underway(self) -> int:
        """How many sent bytes have not reached the other side yet, if the kernel
        can tell."""
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def drop_unsent(self) -> None:
        """Drop the bytes that the kernel has not taken."""
        self._unsent.clear()
        self.unsent = 0

    def drop_received(self) -> None:
        """Drop the bytes that came and were not read.  Closing a socket with unread
        bytes resets the connection, and the last bytes sent may be lost."""
        with suppress(OSError):
            self._socket.recv(READ_SIZE)

    def keep_below(self, size: int) -> None:
        """
        :param size: the producer waits while more bytes than this are unsent.  By
            default it waits above `bufferSize`, and goes on when all are sent.
        """
        self.bufferSize = self.low_size = size

    def make_producer_wait(self) -> None:
        """Have the producer wait while more than `bufferSize` bytes are unsent."""
        producer = self.producer
        if producer is None:
            return
        if not self.streamingProducer:
            # It is asked for more when there is room.
            self.startWriting()
        elif self.unsent > self.bufferSize and not self.producerPaused:
            self.producerPaused = True
            cast(IPushProducer, producer).pauseProducing()

    def ask_producer(self) -> bool:
        """:returns: whether there is a producer that waited; it has been asked for more."""
        producer = self.producer
        if producer is None or (self.streamingProducer and not self.producerPaused):
            return False
        self.producerPaused = False
        cast(IPullProducer, producer).resumeProducing()
        return True

    # What the reactor calls.

    def doRead(self) -> Exception | None:
        """Read the bytes that came."""
        if not self._is_reader or self.disconnected:
            return None
        try:
            data = self._socket.recv(self.read_size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return ConnectionLost()
        if not data:
            return ConnectionDone()
        self.bytes_came(data)
        return None

    def doWrite(self) -> Exception | None:
        """Send the waiting bytes."""
        if not self._is_writer or self.disconnected:
            return None
        if self._unsent and not self._send_waiting():
            self._read_what_came()
            return ConnectionLost()
        if not self._unsent:
            return self.all_sent()
        if self.producerPaused and self.unsent <= self.low_size:
            self.ask_producer()
        return None

    def _read_what_came(self) -> None:
        """Handle bytes that came before a write failed: the other side may have
        answered early and closed."""
        for _ in range(_MAX_LAST_READS):
            if self.doRead() is not None or not self._is_reader:
                return

    def _send_waiting(self) -> bool:
        """:returns: whether the connection is alive."""
        try:
            sent = self._socket.sendmsg(list(islice(self._unsent, _MAX_BUFFERS)))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        self.unsent -= sent
        while sent:
            first = self._unsent.popleft()
            if len(first) > sent:
                self._unsent.appendleft(memoryview(first)[sent:])
                break
            sent -= len(first)
        return True

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over: close the socket."""
        try:
            super().connectionLost(reason)
        except Exception:  # noqa: BLE001 -- a producer's own, which is told to stop
            _log.failure("a producer failed at the end of its connection")
            self.stopReading()
            self.stopWriting()
        self.drop_unsent()
        self._close_socket()

    def _close_socket(self) -> None:
        sock = self._socket
        self._descriptor = -1
        try:
            if self.is_aborted:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side closed it first.
            pass
        finally:
            sock.close()

    def abortConnection(self) -> None:
        """Reset the connection; what has not been sent is dropped."""
        if self.is_aborted or self.disconnected:
            return
        self.is_aborted = True
        self.disconnecting = 1
        self.drop_unsent()
        self.stopReading()
        self.stopWriting()
        # Not within the current call.
        cast(StreamReactor, self.reactor).callLater(0, self._aborted)

    def _aborted(self) -> None:
        if not self.disconnected:
            self.connectionLost(Failure(ConnectionAborted()))

    # Remember what the reactor watches: asking it costs more.

    def startReading(self) -> None:
        """Watch for bytes."""
        if not self._is_reader and not self.is_aborted and self.connected:
            self._is_reader = True
            super().startReading()

    def stopReading(self) -> None:
        """Stop watching for bytes."""
        if self._is_reader:
            self._is_reader = False
            super().stopReading()

    def startWriting(self) -> None:
        """Watch for room to write."""
        if not self._is_writer and not self.is_aborted and self.connected:
            self._is_writer = True
            super().startWriting()

    def stopWriting(self) -> None:
        """Stop watching for room to write."""
        if self._is_writer:
            self._is_writer = False
            super().stopWriting()

    # ITCPTransport.  A unix socket has no such options.

    def getTcpNoDelay(self) -> bool:
        """:returns: whether small segments are sent without waiting."""
        return self._is_tcp and bool(
            self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        )

    def setTcpNoDelay(self, enabled: bool) -> None:
        """:param enabled: whether to send small segments without waiting."""
        if self._is_tcp:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, bool(enabled))

    def getTcpKeepAlive(self) -> bool:
        """:returns: whether the kernel checks that the other side still exists."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """:param enabled: whether the kernel checks that the other side still exists."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))
