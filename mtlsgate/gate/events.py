"""
Facts and events about connections, as values.

`Arrival` says where and when a connection came, `Negotiated` what TLS agreed on,
`Admission` why the client was admitted.  `mtlsgate.gate.connections` keeps track of
connections and passes these frozen values to observers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from attrs import field, frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Path, Pin, Rejection
from mtlsgate.admission.devices import Device
from mtlsgate.admission.listings import NOT_ASKED, Answers
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.terms import Terms
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason


@frozen(kw_only=True)
class Arrival:
    """
    The arrival of a connection.

    :ivar number: the connection's number, counted from the start of the service.
    :ivar listener: the listener's key: the address as written in the
        configuration.
    :ivar address: the client's address; behind a proxy, the proxy's until its
        header has been read.
    :ivar at: when it came.
    :ivar began: the same instant in the clock's seconds.
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

    :ivar server_name: the name that the client asked for (SNI), or None.
    :ivar tls_version: ``TLSv1.2`` or ``TLSv1.3``.
    :ivar cipher: the cipher suite, in OpenSSL's spelling.
    :ivar group: the key exchange group, in OpenSSL's spelling, or None.
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
class Destination:
    """
    Where a connection of a client gate goes, and whose it is.

    :ivar target: the target, as written.
    :ivar path: the target's certificates as verified, leaf first.
    :ivar uid: the user whose program it is; None if the system does not say.
    :ivar pid: the program's process, likewise.
    """

    target: str
    path: Path
    uid: int | None = None
    pid: int | None = None

    @property
    def leaf(self) -> Certificate:
        """The target's own certificate."""
        return self.path[0]


@frozen(kw_only=True)
class Admission:
    """
    Why a connection was admitted.

    :ivar peer: the verified client; None if the server asks for no certificate.
    :ivar identity: the identity of its certificate, see `VerifiedPeer.identity`;
        or None.
    :ivar pin: the pin that admitted it, or None.
    :ivar negotiated: what TLS agreed on.
    :ivar since: when it was admitted, in the clock's seconds.
    :ivar is_first_use: whether this is the first use of a pin with a name.
    :ivar destination: where a client gate's connection goes; None for a server's.
    :ivar device: what a registry knows of the client, or None.
    :ivar answers: what registries said when it was judged last.
    """

    peer: VerifiedPeer | None
    identity: bytes | None
    pin: Pin | None
    negotiated: Negotiated
    since: float
    is_first_use: bool = False
    destination: Destination | None = None
    device: Device | None = None
    answers: Answers = field(default=NOT_ASKED, hash=False)

    @property
    def leaf(self) -> Certificate | None:
        """The certificate at the other end: the client's, or the target's; or None."""
        if self.destination is not None:
            return self.destination.leaf
        return None if self.peer is None else self.peer.certificates[0]


@frozen(kw_only=True)
class Closing:
    """
    Why the gate is ending a connection.

    :ivar cause: the cause.
    :ivar detail: more about it in one line, or "".
    :ivar reason: why it is no longer admitted, or None.
    """

    cause: Cause
    detail: str = ""
    reason: Reason | None = None


class LiveConnection(Protocol):
    """A read-only view of a connection that is not over."""

    @property
    def arrival(self) -> Arrival:
        """Where and when it came."""

    @property
    def server(self) -> str:
        """The server's name; the listener's name while the server is not known."""

    @property
    def terms(self) -> Terms:
        """Its terms."""

    @property
    def admission(self) -> Admission | None:
        """Why it was admitted; None before that."""

    @property
    def closing(self) -> Closing | None:
        """Why the gate is ending it, or None."""

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes the client has sent to the application, and got from it."""

    @property
    def quiet_since(self) -> float | None:
        """
        Since when no byte has come or gone, in the clock's seconds; None if the
        terms have no idle timeout.
        """


@frozen(kw_only=True)
class AdmittedConnection:
    """
    A client was admitted.

    :ivar arrival: where and when it came.
    :ivar server: the server's name.
    :ivar admission: why it was admitted.
    :ivar is_logged: whether its admission has a line in the log.
    :ivar presented: tells the certificates that it sent, its leaf first, while it is
        connected; empty if they are not known.
    """

    arrival: Arrival
    server: str
    admission: Admission
    is_logged: bool = True
    presented: Callable[[], Path] = field(default=tuple, eq=False, repr=False)

    @property
    def rule(self) -> str | None:
        """The name of the rule that admitted it; None without a certificate."""
        peer = self.admission.peer
        return None if peer is None else peer.rule


@frozen(kw_only=True)
class RejectedConnection:
    """
    A client was rejected.

    :ivar at: when.
    :ivar server: the server's name; the listener's name if the server was not
        known.
    :ivar address: the client's address.
    :ivar rejection: why.
    :ivar number: the connection's number; None if it was closed at once.
    :ivar listener: the listener's key; None if the connection was closed at once.
    :ivar leaf: the leaf that the client presented, or None.  The client may not
        have the key.
    :ivar presented: that leaf and the certificates above it, as far as OpenSSL shows
        them; empty if there are none.
    :ivar server_name: the name that the client asked for, or None.
    :ivar tls_version: the TLS version, or None.
    :ivar seconds: the time since its arrival.
    :ivar received: how many bytes came.
    """

    at: datetime
    server: str
    address: IAddress
    rejection: Rejection
    number: int | None = None
    listener: str | None = None
    leaf: Certificate | None = None
    presented: Path = ()
    server_name: str | None = None
    tls_version: str | None = None
    seconds: float = 0.0
    received: int = 0

    @property
    def is_health_check(self) -> bool:
        """Whether it connected and left without a byte, as health checks do."""
        return (
            self.number is not None
            and self.received == 0
            # The client left by itself.
            and self.rejection.reason is Reason.PEER_GONE
        )


@frozen(kw_only=True)
class ClosedConnection:
    """
    An admitted connection is over.

    :ivar at: when.
    :ivar connection: the connection, with its latest server and rule.
    :ivar cause: why.
    :ivar detail: more about the cause in one line, or "".
    :ivar by_gate: whether the gate ended it.
    :ivar reason: why it is no longer admitted, or None.
    :ivar seconds: the time since it was admitted.
    :ivar received: how many bytes the client sent to the application.
    :ivar sent: how many bytes it got from the application.
    """

    at: datetime
    connection: AdmittedConnection
    cause: Cause
    detail: str = ""
    by_gate: bool = False
    reason: Reason | None = None
    seconds: float
    received: int
    sent: int


@frozen(kw_only=True)
class Reload:
    """
    A reload, or a failed attempt.

    :ivar at: when.
    :ivar number: the number of the epoch that is in force now.
    :ivar problems: why the earlier epoch stays in force, in lines; empty if the
        new one took over.
    :ivar changes: the differences from the earlier epoch, in lines.
    :ivar dropped: the clients that are, or would be, no longer admitted, in lines.
    :ivar seconds: how long it took.
    :ivar is_trial: whether this was a trial that only shows what would change.
    """

    at: datetime
    number: int
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0
    is_trial: bool = False


@frozen(kw_only=True)
class OperatorAction:
    """
    An operator told the running gate to do something.

    :ivar at: when.
    :ivar action: ``reload``, ``drain``, ``close``, ``eject``, ``shadow`` or
        ``shadow_off``.
    :ivar who: the caller, in one line.
    :ivar subject: which connection, or whose; None for the whole gate.
    """

    at: datetime
    action: str
    who: str
    subject: str | None = None


@frozen(kw_only=True)
class RegistryChange:
    """
    An operator changed what a registry lists, by ``mtlsgate registry``.

    :ivar at: when.
    :ivar action: the command: ``allow``, ``deny``, ``remove``, ``import`` or ``schema``.
    :ivar who: the operator, in one line.
    :ivar registry: its label.
    :ivar key: of the device, or None for many.
    :ivar subject: of its certificate, or None if that was not shown.
    :ivar before: its state before, or None if it was not listed, or for many.
    :ivar after: its state now, or None in the same way.
    :ivar details: what else changed, in lines.
    :ivar file: what was imported, or None.
    :ivar sha256: of the file's content, in hex, or None.
    :ivar devices: how many the file has, or None without one.
    :ivar added: how many devices are new.
    :ivar changed: how many were listed, and differ now.
    :ivar removed: how many are no longer listed.
    :ivar is_complete: whether the command was carried out to its end.
    """

    at: datetime
    action: str
    who: str
    registry: str
    key: str | None = None
    subject: str | None = None
    before: str | None = None
    after: str | None = None
    details: tuple[str, ...] = ()
    file: str | None = None
    sha256: str | None = None
    devices: int | None = None
    added: int = 0
    changed: int = 0
    removed: int = 0
    is_complete: bool = True


class Observer(Protocol):
    """Is told about events.  It must not raise."""

    def admitted(self, connection: AdmittedConnection) -> None:
        """A client was admitted."""

    def rejected(self, connection: RejectedConnection) -> None:
        """A client was rejected."""

    def closed(self, connection: ClosedConnection) -> None:
        """An admitted client's connection is over."""

    def reloaded(self, reload: Reload) -> None:
        """The configuration was reloaded, or the attempt failed."""
