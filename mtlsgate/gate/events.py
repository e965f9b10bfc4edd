"""
What is known of a connection, and what happens to it, as values.

`Arrival` is what came, `Negotiated` what TLS agreed on, `Admission` the verdict
and by what it stands.  Observers get these, frozen.  `mtlsgate.gate.registry`
keeps account of connections and tells observers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Pin, Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.terms import Terms
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason


@frozen(kw_only=True)
class Arrival:
    """
    What came.

    :ivar number: the connection's own, counted from the start of the service.
    :ivar listener: the key of the listener: the address as the configuration
        has it.
    :ivar address: the client's; behind a proxy, the proxy's until its header
        was read.
    :ivar at: when.
    :ivar began: the same, in the clock's seconds.
    """

    number: int
    listener: str
    address: IAddress
    at: datetime
    began: float


@frozen(kw_only=True)
class Negotiated:
    """
    What TLS agreed on.

    :ivar server_name: that the client asked for (SNI), or None.
    :ivar tls_version: ``TLSv1.2`` or ``TLSv1.3``.
    :ivar cipher: the cipher suite, as OpenSSL spells it.
    :ivar group: of the key exchange, as OpenSSL spells it, or None.
    :ivar alpn: the application protocol, or None.
    :ivar resumed: whether a session was resumed.
    """

    server_name: str | None
    tls_version: str
    cipher: str
    group: str | None = None
    alpn: str | None = None
    resumed: bool = False


@frozen(kw_only=True)
class Admission:
    """
    Why a connection is in.

    :ivar peer: the verified client; None where the server asks for no certificate.
    :ivar identity: of its certificate, see `VerifiedPeer.identity`; or None.
    :ivar pin: by which it is in, or None.
    :ivar negotiated: what TLS agreed on.
    :ivar since: in the clock's seconds.
    :ivar is_first_use: whether the pin has a name and nobody came in by it before.
    """

    peer: VerifiedPeer | None
    identity: bytes | None
    pin: Pin | None
    negotiated: Negotiated
    since: float
    is_first_use: bool = False


@frozen(kw_only=True)
class Closing:
    """
    That the gate ends a connection.

    :ivar cause: why.
    :ivar detail: the particulars in one line, or "".
    """

    cause: Cause
    detail: str = ""


class LiveConnection(Protocol):
    """A connection that is not over, to read."""

    @property
    def arrival(self) -> Arrival:
        """What came."""

    @property
    def server(self) -> str:
        """The server's name; where it is not known yet, the listener's."""

    @property
    def terms(self) -> Terms:
        """What it is held to."""

    @property
    def admission(self) -> Admission | None:
        """Why it is in, or None while it is not."""

    @property
    def closing(self) -> Closing | None:
        """That the gate ends it, or None."""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""

    @property
    def quiet_since(self) -> float | None:
        """
        Since when no byte is known to have come or gone, in the clock's
        seconds; None where nobody looks.
        """


@frozen(kw_only=True)
class AdmittedConnection:
    """
    A client came in.

    :ivar arrival: what came.
    :ivar server: the server's name.
    :ivar admission: why it is in.
    """

    arrival: Arrival
    server: str
    admission: Admission

    @property
    def rule(self) -> str | None:
        """The name of the rule by which it is in; None without a certificate."""
        peer = self.admission.peer
        return None if peer is None else peer.rule


@frozen(kw_only=True)
class RejectedConnection:
    """
    A client was turned away.

    :ivar at: when.
    :ivar server: which server's it was, or the listener, if that was not known yet.
    :ivar address: the client's.
    :ivar rejection: why.
    :ivar number: the connection's; None if it was closed as it came.
    :ivar listener: the key of the listener; None if it was closed as it came.
    :ivar leaf: what the client presented, whether or not it holds the key; or None.
    :ivar server_name: that it asked for, or None.
    :ivar tls_version: or None.
    :ivar seconds: from its arrival.
    :ivar received: bytes that came.
    """

    at: datetime
    server: str
    address: IAddress
    rejection: Rejection
    number: int | None = None
    listener: str | None = None
    leaf: Certificate | None = None
    server_name: str | None = None
    tls_version: str | None = None
    seconds: float = 0.0
    received: int = 0

    @property
    def is_health_check(self) -> bool:
        """Whether it came and went without a byte, as health checks do."""
        return (
            self.number is not None
            and self.received == 0
            # It went, and was not sent away.
            and self.rejection.reason is Reason.PEER_GONE
        )


@frozen(kw_only=True)
class ClosedConnection:
    """
    A connection that had been admitted is over.

    :ivar at: when.
    :ivar connection: which, by what it was held to in the end.
    :ivar cause: why.
    :ivar detail: the particulars in one line, or "".
    :ivar by_gate: whether the gate ended it.
    :ivar seconds: since it was admitted.
    :ivar received: bytes that the client sent to the application.
    :ivar sent: bytes that it got from it.
    """

    at: datetime
    connection: AdmittedConnection
    cause: Cause
    detail: str = ""
    by_gate: bool = False
    seconds: float
    received: int
    sent: int


@frozen(kw_only=True)
class Reload:
    """
    The configuration was loaded anew, or somebody tried.

    :ivar at: when.
    :ivar number: of the epoch that is in force since.
    :ivar problems: why the epoch before it is still in force, in lines; empty
        if it took over.
    :ivar changes: what is different from the epoch before, in lines.
    :ivar dropped: which clients are, or would be, no longer admitted, in lines.
    :ivar seconds: that it took.
    :ivar is_trial: whether it was only to tell what would change.
    """

    at: datetime
    number: int
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0
    is_trial: bool = False


class Observer(Protocol):
    """Is told what happens; must not raise."""

    def admitted(self, connection: AdmittedConnection) -> None:
        """A client was let in."""

    def rejected(self, connection: RejectedConnection) -> None:
        """A client was turned away."""

    def closed(self, connection: ClosedConnection) -> None:
        """An admitted client's connection is over."""

    def reloaded(self, reload: Reload) -> None:
        """The configuration was loaded anew, or somebody tried."""
