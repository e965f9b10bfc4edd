"""
The access log: one event for each request, and one for each that failed.
"""

from __future__ import annotations

from attrs import define, frozen
from twisted.logger import Logger

from mtlsgate.http.sides import HttpClient
from mtlsgate.text import address_text, loggable

_log = Logger("mtlsgate.http")


@frozen
class Who:
    """
    The client of a connection, as logs name it.

    :ivar address: where it connects from.
    :ivar rule: the rule that admitted it, or None.
    :ivar subject: of its leaf, printable, or None.
    :ivar fingerprint: SHA-256 of its leaf, or None.
    """

    address: str
    rule: str | None = None
    subject: str | None = None
    fingerprint: str | None = None


def who(client: HttpClient) -> Who:
    """:returns: the client, as logs name it."""
    text, peer = address_text(client.address), client.peer
    if peer is None:
        return Who(text)
    return Who(text, loggable(peer.rule), loggable(peer.subject), peer.sha256)


@define
class Record:
    """
    What is logged of a request.

    :ivar began: when its head was complete, in the clock's seconds.
    :ivar method: the request's; None if no request could be read.
    :ivar target: as it was asked for, with its query.
    :ivar status: of the response, or None if there was none.
    :ivar bytes_in: of its body.
    :ivar bytes_out: of the response's body.
    :ivar first_byte: when the response began, or None.
    :ivar upstream: the target that it went to, or None.
    :ivar cause: what went wrong, or None.
    """

    began: float
    method: bytes | None = None
    target: bytes | None = None
    status: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    first_byte: float | None = None
    upstream: str | None = None
    cause: str | None = None

    @property
    def path(self) -> str | None:
        """The target up to the query, which may hold secrets, printable."""
        return None if self.target is None else _text(self.target.partition(b"?")[0])


def _text(octets: bytes) -> str:
    return loggable(octets.decode("ascii", "backslashreplace"))


@frozen
class AccessLog:
    """
    :ivar server: the server's label.
    """

    server: str

    def request(self, client: Who, record: Record, now: float) -> None:
        """Log a request that is over."""
        first = None if record.first_byte is None else record.first_byte - record.began
        duration = now - record.began
        method = None if record.method is None else _text(record.method)
        asked = f"{method or '-'} {record.path or '-'}"
        status = "-" if record.status is None else record.status
        subject = "-" if client.subject is None else client.subject
        why = "" if record.cause is None else f": {record.cause}"
        _log.info(
            # Formatted here, because Twisted's own formatting costs more.
            "{text}",
            text=f"{self.server}: {client.address} [{subject}] {asked} {status} "
            f"in={record.bytes_in} out={record.bytes_out} {duration * 1000:.1f} ms{why}",
            server=self.server,
            peer_address=client.address,
            rule=client.rule,
            subject=client.subject,
            fingerprint=client.fingerprint,
            method=method,
            path=record.path,
            status=record.status,
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            time_to_first_byte=first,
            duration=duration,
            target=record.upstream,
            cause=record.cause,
        )

    def failure(self, client: Who, record: Record) -> None:
        """Log that a request failed at the target, or found no room."""
        _log.warn(
            "{server}: {method} {path} of {peer_address} failed with {status}: {cause}",
            server=self.server,
            peer_address=client.address,
            method="-" if record.method is None else _text(record.method),
            path=record.path,
            status=record.status,
            target=record.upstream,
            cause=record.cause,
        )
