"""
The terms of a server's connections.
"""

from __future__ import annotations

from attrs import frozen

from mtlsgate.gate.limits import UNLIMITED, Limits


@frozen(kw_only=True)
class Terms:
    """
    The terms of a server's connections.

    :ivar limits: how many connections are allowed.
    :ivar count_in: the registry that counts an identity's connections to all gates, or
        None.
    :ivar idle_timeout: after how many seconds without a byte in either direction a
        connection ends; None for never.
    :ivar close_on_expiry: whether a connection ends when its client's certificate
        expires or its pin is retired.
    :ivar judged_on_reload: whether a new epoch judges connected clients again.
    :ivar revoke_grace: how many seconds a client that a new epoch rejects may stay.
    :ivar log_admitted: whether the log has a line for each admitted client.
    """

    limits: Limits = UNLIMITED
    count_in: str | None = None
    idle_timeout: float | None = None
    close_on_expiry: bool = True
    judged_on_reload: bool = True
    revoke_grace: float = 0.0
    log_admitted: bool = True
