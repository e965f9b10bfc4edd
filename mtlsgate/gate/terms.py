"""
What a server holds its connections to.
"""

from __future__ import annotations

from attrs import frozen

from mtlsgate.gate.limits import UNLIMITED, Limits


@frozen(kw_only=True)
class Terms:
    """
    What a server holds its connections to.

    :ivar limits: how many there may be.
    :ivar idle_timeout: seconds without a byte in either direction, or None.
    :ivar close_on_expiry: whether a connection ends with its client's
        certificate, or with its pin.
    :ivar judged_on_reload: whether a new epoch judges connected clients again.
    :ivar revoke_grace: seconds until a client that a new epoch rejects is closed.
    """

    limits: Limits = UNLIMITED
    idle_timeout: float | None = None
    close_on_expiry: bool = True
    judged_on_reload: bool = True
    revoke_grace: float = 0.0
