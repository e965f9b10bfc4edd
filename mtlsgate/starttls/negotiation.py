"""
What a dialect's exchange before TLS consists of.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from mtlsgate.reasons import Reason


@frozen
class Upgrade:
    """
    TLS begins now.

    :ivar received: bytes that are already part of TLS.
    """

    received: bytes = b""


@frozen
class NoUpgrade:
    """
    The client is refused.

    :ivar reason: `NOT_TLS`, or one of the ``STARTTLS_…`` reasons.
    :ivar detail: what is wrong, without any text from the client.
    """

    reason: Reason
    detail: str


@frozen
class Turn:
    """
    What comes of the bytes that a client sent.

    :ivar answer: what to send to the client, before anything else is done.
    :ivar outcome: None while more bytes are needed.
    """

    answer: bytes = b""
    outcome: Upgrade | NoUpgrade | None = None


class Negotiation(Protocol):
    """One connection's exchange before TLS."""

    @property
    def greeting(self) -> bytes:
        """What to send before the client says anything."""

    def feed(self, data: bytes) -> Turn:
        """
        :param data: the next bytes, at least one.
        :returns: what comes of them.  Do not feed more after an outcome.
        """
