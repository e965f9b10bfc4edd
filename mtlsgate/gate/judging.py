"""
What the configuration in force says about a client, now.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from mtlsgate.admission import Pin, Rejection
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.terms import Terms
from mtlsgate.peer import VerifiedPeer


@frozen(kw_only=True)
class Held:
    """
    What an admitted client is held to.

    :ivar server: the name of the server that it would reach now.
    :ivar terms: that server's.
    :ivar peer: the client, with the rule by which it is in now; None where the
        server asks for no certificate.
    :ivar pin: by which it is in now, or None.
    :ivar authorizer: who is asked about it before it is admitted, or None.
    """

    server: str
    terms: Terms
    peer: VerifiedPeer | None
    pin: Pin | None
    authorizer: Authorizer | None = None


class Judging(Protocol):
    """Answers for the configuration in force, whichever that is when asked."""

    def is_in_force(self, listener: str, server: object) -> bool:
        """
        :param server: the `GateServer` that admitted a client at that listener.
        :returns: whether that server still stands there, so that its verdict counts.
        """

    def judge(
        self, listener: str, server_name: str | None, peer: VerifiedPeer | None
    ) -> Held | Rejection:
        """
        :param listener: the key of the listener that the client came to.
        :param server_name: that it asked for.
        :param peer: the client, as it was verified when it came; None where no
            certificate was asked for.
        :returns: what it is held to, or why it is not admitted.
        """
