"""
Sending parts of a file, as fast as the client reads them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

from twisted.internet.interfaces import IPullProducer
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from mtlsgate.http.resources import ResourceRequest
from mtlsgate.protocols.web.paths import Opened

#: Bytes that are read at a time.
BLOCK = 65536

#: Bytes as they are, or the place and the length of a part of the file.
Part: TypeAlias = bytes | tuple[int, int]


def send(request: ResourceRequest, file: Opened, parts: Sequence[Part]) -> int:
    """
    Send the parts and close the file, now or when the client has taken them.

    :param parts: none of which is beyond the file as it was when it was opened.  What is
        appended meanwhile is not in it.
    :returns: that the response comes by itself.
    """
    producer = FileProducer(request, file, parts)
    if sum(_size(one) for one in parts) > BLOCK:
        request.registerProducer(producer, False)
    else:
        producer.send_all()
    return NOT_DONE_YET


def _size(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part[1]


@implementer(IPullProducer)
class FileProducer:
    """
    Reads a file's parts, one block after the other.

    :ivar _file: until it is closed.
    :ivar _left: what is still to be sent.
    """

    def __init__(self, request: ResourceRequest, file: Opened, parts: Sequence[Part]) -> None:
        self._request = request
        self._file: Opened | None = file
        self._left = [one for one in parts if _size(one)]

    def send_all(self) -> None:
        """Send all of it: it is small."""
        try:
            while self._left and self._send_block():
                pass
        finally:
            complete = self._file is not None
            self.stopProducing()
        if complete:
            self._request.finish()

    def resumeProducing(self) -> None:
        """Send a block."""
        if self._send_block() and self._left:
            return
        complete = self._file is not None
        self._request.unregisterProducer()
        self.stopProducing()
        if complete:
            self._request.finish()

    def _send_block(self) -> bool:
        """:returns: whether there was one: the file may have become shorter."""
        assert self._file is not None
        part = self._left.pop(0)
        if isinstance(part, bytes):
            self._request.write(part)
            return True
        place, size = part
        data = os.pread(self._file.descriptor, min(size, BLOCK), place)
        if not data:
            # The client must not take what it has for all.
            self.stopProducing()
            self._request.channel.cut()
            return False
        if len(data) < size:
            self._left.insert(0, (place + len(data), size - len(data)))
        self._request.write(data)
        return True

    def stopProducing(self) -> None:
        """Nothing more will be read."""
        self._left.clear()
        file, self._file = self._file, None
        if file is not None:
            file.close()
