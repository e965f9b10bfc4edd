"""
The access log of ``protocol "web"``: one event for each request.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal, own_body
from mtlsgate.http.sides import HttpClient
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.text import loggable

_log = Logger("mtlsgate.web")


@frozen
class AccessLog:
    """
    The log of one server.

    :ivar name: the server's.
    :ivar is_on: whether anything is logged.
    """

    name: str
    is_on: bool = True

    def answered(
        self,
        address: str,
        peer: IVerifiedPeer | None,
        asked: tuple[str, str],
        status: int,
        size: int,
        seconds: float,
        cause: str | None = None,
    ) -> None:
        """
        Log a request that was answered.

        :param address: the client's, as `address_of` has it.
        :param asked: the request's method and path.
        :param size: bytes of the answer.
        :param seconds: what it took.
        :param cause: why it was refused, or None.
        """
        if not self.is_on:
            return
        facts = {} if peer is None else {"rule": peer.rule, "fingerprint": peer.sha256}
        method, path = map(loggable, asked)
        _log.info(
            # Formatted here, because Twisted's own formatting costs more.
            "{text}",
            text=f"{self.name}: {address} {method} {path} {status} {size}"
            + (f" rule={peer.rule} sha256={peer.sha256}" if peer is not None else "")
            + (f": {cause}" if cause is not None else ""),
            server=self.name,
            peer_address=address,
            method=method,
            path=path,
            status=status,
            bytes=size,
            seconds=seconds,
            cause=cause,
            **facts,
        )

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """Log a request that no application heard of."""
        asked = ("-", "-")
        if head is not None:
            asked = texts(head.method, head.target.partition(b"?")[0])
        size = len(own_body(refusal.status))
        address = address_of(client.address)
        self.answered(address, client.peer, asked, refusal.status, size, 0.0, refusal.cause)


def texts(method: bytes, path: bytes) -> tuple[str, str]:
    """:returns: what a request asks for, as text."""
    return method.decode("latin-1"), path.decode("latin-1")


def address_of(address: IAddress) -> str:
    """:returns: an address, as the log has it."""
    return host_and_port(getattr(address, "host", None), getattr(address, "port", None))


def host_and_port(host: str | None, port: int | None) -> str:
    """:returns: an address, as the log has it; one without a host is of a unix socket."""
    if host is None:
        return "unix"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
