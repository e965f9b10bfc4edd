"""
A server's own certificate, as its handshakes find it: there, missing, or expired.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen
from OpenSSL import SSL


@frozen(eq=False)
class OwnCertificate:
    """
    One certificate of a server.

    :ivar context: shows it; None if it is missing.
    :ivar until: the last instant at which it is shown, aware; None for always.
    :ivar missing: why it is missing, in a few words, or None.
    """

    context: SSL.Context | None = None
    until: datetime | None = None
    missing: str | None = None

    @property
    def may_be_missing(self) -> bool:
        """Whether `problem` may say anything."""
        return self.until is not None or self.context is None

    def problem(self, now: datetime) -> str | None:
        """
        :param now: the time now, aware.
        :returns: why it cannot be shown, or None.
        """
        if self.context is None:
            return f"the gate has no certificate of its own: {self.missing}"
        # Certificates expire at the end of a second (RFC 5280, 4.1.2.5).
        if self.until is not None and now.replace(microsecond=0) > self.until:
            return f"the gate's own certificate expired at {self.until:%Y-%m-%d %H:%M:%SZ}"
        return None
