"""
The result of a probe as values, and the conclusions from it.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from attrs import frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.names import Name


class Verdict(Enum):
    """Whether the server admitted the client, as far as TLS can tell."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Ending(Enum):
    """How the connection ended."""

    #: After the handshake nothing came during the wait.
    SILENCE = "silence"
    #: After the handshake the server sent data.
    DATA = "data"
    #: The server sent a fatal alert.
    ALERT = "alert"
    #: The server ended TLS properly, with close_notify.
    CLOSED = "closed"
    #: The server closed the TCP connection without close_notify or an alert.
    CUT = "cut"
    #: The TCP connection was reset.
    RESET = "reset"
    #: The server sent something other than TLS.
    NOT_TLS = "not_tls"
    #: TLS failed on the probe's side.
    FAILED = "failed"
    #: The server did not continue the handshake in time.
    TIMEOUT = "timeout"
    #: There was no TCP connection.
    NO_CONNECTION = "no_connection"


class ProbeStage(Enum):
    """How far the connection got."""

    CONNECT = "connect"
    #: Connected; the server has not shown a certificate yet.
    HELLO = "hello"
    #: The server has shown its certificate; the handshake is not complete.
    HANDSHAKE = "handshake"
    #: The probe's side of the handshake is complete.
    AFTER = "after"


@frozen
class CertificateFacts:
    """
    The facts about a certificate that are reported.

    :ivar subject: in RFC 4514 form, like ``issuer``; escape both before printing.
    :ivar not_before: aware, like ``not_after``.
    :ivar sha256: the fingerprint of the DER, in hexadecimal.
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
    """:returns: the name in RFC 4514 form, or words for an empty one."""
    return name.rfc4514_string() or "(empty name)"


@frozen
class PathProblem:
    """
    One error that OpenSSL found in the server's certificate path.

    :ivar number: X509_V_ERR_….
    :ivar depth: the depth of the certificate at fault; 0 is the leaf.
    :ivar certificate: the certificate at fault; None if it does not parse.
    """

    number: int
    depth: int
    certificate: CertificateFacts | None


@frozen
class ProbeTarget:
    """
    The address to probe.

    :ivar host: a name or an IP address.
    :ivar server_name: the name or IP address that the server must have.  A name is
        also sent as SNI (RFC 6066, 3).
    """

    host: str
    port: int
    server_name: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Outcome:
    """
    Everything that a probe saw.  Facts that it did not reach are None or empty.

    :ivar at: the time of the probe, aware.
    :ivar timeout: how many seconds the handshake had.
    :ivar wait: how many seconds the verdict had after the handshake.
    :ivar ending: how it ended.
    :ivar stage: how far it got.
    :ivar detail: more about the ending, such as an error message.
    :ivar address: the IP address that it connected to.
    :ivar alert: the number of the fatal alert received.
    :ivar tls_version: such as ``TLSv1.3``; ``cipher`` and ``group`` are OpenSSL's names.
    :ivar chain: the server's certificates as sent, leaf first; also empty if one of
        them does not parse.
    :ivar problems: why the chain does not verify; None if there was no CA to verify
        it with, or no certificate.
    :ivar name_problem: why the certificate is not for ``target.server_name``; None if
        it is, or if there is no certificate.
    :ivar asked: whether the server asked for a client certificate.
    :ivar ca_names: the CAs that it named when it asked.
    :ivar offered: the client certificate that the probe could present.
    :ivar presented: whether it was presented, with proof of its key.
    """

    target: ProbeTarget
    at: datetime
    timeout: float
    wait: float
    ending: Ending
    stage: ProbeStage = ProbeStage.CONNECT
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
        An alert means refused.  So does a cut connection after the server has shown
        its certificate.  A proper close may come from the application.
        """
        if self.ending in (Ending.SILENCE, Ending.DATA):
            return Verdict.ADMITTED
        if self.ending is Ending.ALERT:
            return Verdict.REFUSED
        unfinished = self.ending is Ending.CLOSED and self.stage is ProbeStage.HANDSHAKE
        hung_up = self.ending in (Ending.CUT, Ending.RESET) and self.showed_certificate
        if unfinished or hung_up:
            return Verdict.REFUSED
        return Verdict.UNKNOWN

    @property
    def verified(self) -> bool | None:
        """Whether the server's chain leads to a given CA; None if no CA was given."""
        return None if self.problems is None else not self.problems

    @property
    def name_matches(self) -> bool | None:
        """Whether the server's certificate is for its name; None without a certificate."""
        return self.name_problem is None if self.showed_certificate else None

    @property
    def showed_certificate(self) -> bool:
        """Whether the server sent a certificate."""
        return self.stage in (ProbeStage.HANDSHAKE, ProbeStage.AFTER)

    @property
    def exit_status(self) -> int:
        """0 for admitted, 1 for refused or an unverified server, 2 for not known."""
        if self.verdict is Verdict.UNKNOWN:
            return 2
        return int(self.verdict is Verdict.REFUSED or self.is_impostor)

    @property
    def is_impostor(self) -> bool:
        """Whether a CA was given and the server could not be verified."""
        return self.verified is False or (self.verified is True and not self.name_matches)
