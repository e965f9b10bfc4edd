"""
What a probe saw, as values, and what follows from them.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from attrs import frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.names import Name


class Verdict(Enum):
    """What the server made of the client, as far as TLS tells."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Ending(Enum):
    """How the connection came to its end."""

    #: After the handshake nothing came for as long as was waited.
    SILENCE = "silence"
    #: After the handshake the server sent data.
    DATA = "data"
    #: The server sent a fatal alert.
    ALERT = "alert"
    #: The server ended TLS in good order, with close_notify.
    CLOSED = "closed"
    #: The server ended the TCP connection without a word of TLS.
    CUT = "cut"
    #: The TCP connection was reset.
    RESET = "reset"
    #: What came was not TLS.
    NOT_TLS = "not_tls"
    #: TLS failed on the probe's side.
    FAILED = "failed"
    #: The server did not go on with the handshake in time.
    TIMEOUT = "timeout"
    #: There was no TCP connection.
    NO_CONNECTION = "no_connection"


class Stage(Enum):
    """How far the connection got."""

    CONNECT = "connect"
    #: Connected; the server has not shown a certificate.
    HELLO = "hello"
    #: The server's certificate is there, and the handshake is not done.
    HANDSHAKE = "handshake"
    #: The probe's side of the handshake is done.
    AFTER = "after"


@frozen
class CertificateFacts:
    """
    What is reported of a certificate.

    :ivar subject: RFC 4514, as is ``issuer``; not fit for a terminal as it is.
    :ivar not_before: aware, as is ``not_after``.
    :ivar sha256: of the DER, in hexadecimal.
    """

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    sha256: str

    @classmethod
    def of(cls, certificate: Certificate) -> CertificateFacts:
        """
        :raises ValueError: or another of `mtlsgate.certificates.certificate.UNPARSABLE`.
        """
        return cls(
            name_text(certificate.subject),
            name_text(certificate.issuer),
            certificate.not_before,
            certificate.not_after,
            certificate.sha256.hex(),
        )


def name_text(name: Name) -> str:
    """:returns: the name as of RFC 4514, or words for an empty one."""
    return name.rfc4514_string() or "(empty name)"


@frozen
class PathProblem:
    """
    One objection of OpenSSL's to the server's certificate path.

    :ivar number: X509_V_ERR_….
    :ivar depth: of the certificate in question; 0 is the leaf.
    :ivar certificate: the certificate in question, or None if it does not parse.
    """

    number: int
    depth: int
    certificate: CertificateFacts | None


@frozen
class Target:
    """
    What is probed.

    :ivar host: a name or an IP address.
    :ivar server_name: the name or IP address that the server must have; also
        what is sent as SNI, if it is a name (RFC 6066, 3).
    """

    host: str
    port: int
    server_name: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Outcome:
    """
    Everything that a probe saw.  What was not reached is None or empty.

    :ivar at: the time of the probe, aware.
    :ivar timeout: seconds that the handshake was given.
    :ivar wait: seconds that the verdict was given after it.
    :ivar ending: how it ended.
    :ivar stage: how far it got.
    :ivar detail: what the ending leaves to say, such as an error's words.
    :ivar address: the IP address that was connected to.
    :ivar alert: the number of the fatal alert received.
    :ivar tls_version: as ``TLSv1.3``; ``cipher`` and ``group`` are OpenSSL's names.
    :ivar chain: the server's certificates as sent, leaf first; empty also
        where one of them does not parse.
    :ivar problems: why the chain does not verify; None where there was no CA
        to verify it with, or no certificate.
    :ivar name_problem: why the certificate is not that of
        ``target.server_name``; None where it is, or where there is no certificate.
    :ivar asked: whether the server asked for a client certificate.
    :ivar ca_names: the CAs it named when it asked.
    :ivar offered: the client certificate that there was to present.
    :ivar presented: whether it was presented, with proof of its key.
    """

    target: Target
    at: datetime
    timeout: float
    wait: float
    ending: Ending
    stage: Stage = Stage.CONNECT
    detail: str = ""
    address: str | None = None
    alert: int | None = None
    tls_version: str | None = None
    cipher: str | None = None
    group: str | None = None
    chain: tuple[CertificateFacts, ...] = ()
    problems: tuple[PathProblem, ...] | None = None
    name_problem: str | None = None
    asked: bool | None = None
    ca_names: tuple[str, ...] = ()
    offered: CertificateFacts | None = None
    presented: bool = False

    @property
    def verdict(self) -> Verdict:
        """
        An alert refuses, and so does whoever hangs up on a client that has
        seen the server's certificate.  A polite close may be the application's.
        """
        if self.ending in (Ending.SILENCE, Ending.DATA):
            return Verdict.ADMITTED
        if self.ending is Ending.ALERT:
            return Verdict.REFUSED
        unfinished = self.ending is Ending.CLOSED and self.stage is Stage.HANDSHAKE
        hung_up = self.ending in (Ending.CUT, Ending.RESET) and self.showed_certificate
        if unfinished or hung_up:
            return Verdict.REFUSED
        return Verdict.UNKNOWN

    @property
    def verified(self) -> bool | None:
        """Whether the server's chain leads to the given CA; None if there was none."""
        return None if self.problems is None else not self.problems

    @property
    def name_matches(self) -> bool | None:
        """Whether the server's certificate is its name's; None without a certificate."""
        return self.name_problem is None if self.showed_certificate else None

    @property
    def showed_certificate(self) -> bool:
        """Whether the server sent a certificate."""
        return self.stage in (Stage.HANDSHAKE, Stage.AFTER)

    @property
    def exit_status(self) -> int:
        """0 admitted, 1 refused or by a server that does not verify, 2 not known."""
        if self.verdict is Verdict.UNKNOWN:
            return 2
        return int(self.verdict is Verdict.REFUSED or self.is_impostor)

    @property
    def is_impostor(self) -> bool:
        """Whether a CA was given and the server did not prove that it is who it should be."""
        return self.verified is False or (self.verified is True and not self.name_matches)
