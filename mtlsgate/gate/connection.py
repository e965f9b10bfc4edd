"""
Connections, what they are held to and what happens to them, as values.

`mtlsgate.gate.registry` keeps account of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import attrs
from attrs import frozen
from cryptography import x509
from twisted.internet.interfaces import IAddress, IDelayedCall

from mtlsgate.admission import Pin, Rejection
from mtlsgate.gate.limits import UNLIMITED, Limits
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason

if TYPE_CHECKING:
    from mtlsgate.gate.factory import GateTransport

#: The length of a TLS record's header (RFC 8446, 5.1).
RECORD_HEADER = 5


@frozen(kw_only=True)
class Terms:
    """
    What one server's connections are held to.

    :ivar limits: how many there may be.
    :ivar idle_timeout: seconds without a byte in either direction, or None.
    :ivar close_on_expiry: whether a connection ends with its client's
        certificate, or with its pin.
    :ivar judged_on_reload: whether a new epoch judges its clients again.
    :ivar revoke_grace: seconds that those have to go whom it does not admit.
    """

    limits: Limits = UNLIMITED
    idle_timeout: float | None = None
    close_on_expiry: bool = True
    judged_on_reload: bool = True
    revoke_grace: float = 0.0


@attrs.define(eq=False)
class Visit:
    """
    One connection.

    :ivar number: its own, since the gate was started.
    :ivar place: the address it came to, as the configuration has it.
    :ivar server: the server's name; where it is not known yet, the place.
    :ivar address: the client's.
    :ivar began: when it came, in the clock's seconds.
    :ivar at: the same as a date.
    :ivar terms: what it is held to.
    :ivar server_name: that the client asked for, or None; known once its
        handshake is complete.
    :ivar received_in_handshake: bytes that came before it was admitted.
    :ivar beginning: the first of these, a record's header at least: OpenSSL does
        not tell what it takes for no TLS.
    :ivar transport: its TLS transport, once there is one.
    :ivar abort: ends it at once.
    :ivar peer: the verified client, once it is admitted; None also where the
        server asks for no certificate.
    :ivar identity: the digest of the admitted leaf, or None.
    :ivar pin: by which it is admitted, or None.
    :ivar admitted_at: when it was admitted, in the clock's seconds, or None.
    :ivar cause: why the gate ends it, once it does.
    :ivar detail: the particulars of that, in one line, or "".
    :ivar is_left: whether the application had ended it when it was lost.
    :ivar ended: whether it is over.
    :ivar reprieve: ends it, once its grace is over.
    :ivar _generation: of the terms; what was noted under others is void.
    :ivar _traffic: how many bytes there had been at the last look, and since when.
    """

    number: int
    place: str
    server: str
    address: IAddress
    began: float
    at: datetime
    terms: Terms
    source: str | None
    server_name: str | None = None
    received_in_handshake: int = 0
    beginning: bytes = b""
    transport: GateTransport | None = None
    abort: Callable[[], object] | None = None
    peer: VerifiedPeer | None = None
    identity: bytes | None = None
    pin: Pin | None = None
    admitted_at: float | None = None
    cause: Cause | None = None
    detail: str = ""
    is_left: bool = False
    ended: bool = False
    reprieve: IDelayedCall | None = None
    _generation: int = 0
    _traffic: tuple[int, float] = (0, 0.0)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""
        return (0, 0) if self.transport is None else self.transport.traffic

    @property
    def quiet_since(self) -> float | None:
        """Since when no byte is known to have come or gone, in the clock's
        seconds; None where nobody looks."""
        if self.admitted_at is None or self.terms.idle_timeout is None:
            return None
        return self._traffic[1]


@frozen(kw_only=True)
class Refusal:
    """
    A connection that was turned away.

    :ivar at: when.
    :ivar server: which server's it was, or the address, if that was not known yet.
    :ivar address: the client's.
    :ivar rejection: why.
    :ivar visit: the connection, or None if it was closed as it came.
    :ivar leaf: what the client presented, whether or not it holds the key; or None.
    :ivar server_name: that it asked for, or None.
    :ivar tls_version: or None.
    :ivar seconds: from its arrival.
    """

    at: datetime
    server: str
    address: IAddress
    rejection: Rejection
    visit: Visit | None = None
    leaf: x509.Certificate | None = None
    server_name: str | None = None
    tls_version: str | None = None
    seconds: float = 0.0

    @property
    def is_health_check(self) -> bool:
        """Whether it came and went without a byte, as health checks do."""
        return (
            self.visit is not None
            and self.visit.received_in_handshake == 0
            # It went, and was not sent away.
            and self.rejection.reason is Reason.PEER_GONE
        )


@frozen(kw_only=True)
class Ending:
    """
    The end of a connection that had been admitted.

    :ivar at: when.
    :ivar visit: the connection.
    :ivar cause: why.
    :ivar detail: the particulars, in one line, or "".
    :ivar seconds: since it was admitted.
    :ivar received: bytes that the client sent to the application.
    :ivar sent: bytes that it got from it.
    """

    at: datetime
    visit: Visit
    cause: Cause
    detail: str
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
    """Who is told what happens; must not raise."""

    def admitted(self, visit: Visit) -> None:
        """A client was let in."""

    def rejected(self, refusal: Refusal) -> None:
        """A client was turned away."""

    def ended(self, ending: Ending) -> None:
        """An admitted client's connection is over."""

    def reloaded(self, reload: Reload) -> None:
        """The configuration was loaded anew, or somebody tried."""
