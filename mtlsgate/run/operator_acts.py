"""
What is told of an operator's acts: in the log, in the audit log, and to who waits for changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attrs import frozen
from twisted.logger import Logger

from mtlsgate.gate.events import OperatorAction
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.shadow_status import ShadowAttempt
from mtlsgate.text import loggable

_log = Logger("mtlsgate.control")
_shadow_log = Logger("mtlsgate.shadow")


@frozen
class OperatorActs:
    """
    Tells of them.

    :ivar _audit: the audit log.
    :ivar _changes: whoever waits for changes.
    :ivar _now: tells the time, aware.
    """

    _audit: AuditLog
    _changes: Changes
    _now: Callable[[], datetime]

    def reload(self, who: str) -> None:
        """The configuration is going to be loaded again."""
        _log.info("reloading the configuration, asked for by {who}", who=loggable(who))
        self._tell("reload", who)

    def drain(self, who: str) -> None:
        """The gate is going to accept no more connections, and to end."""
        _log.info("draining, asked for by {who}", who=loggable(who))
        self._tell("drain", who)

    def close(self, number: int, who: str) -> None:
        """A connection is going to be closed."""
        self._tell("close", who, f"connection {number}")

    def eject(self, sha256: str, who: str) -> None:
        """A client's connections are closed."""
        self._tell("eject", who, f"the client with the certificate {sha256}")

    def put_in_shadow(self, attempt: ShadowAttempt, who: str) -> ShadowAttempt:
        """A configuration is in the shadow, if that was possible."""
        if attempt.succeeded:
            _shadow_log.info(
                "{file} is in the shadow, asked for by {who}: it judges every client, and "
                "changes nothing",
                file=attempt.file,
                who=loggable(who),
            )
            self._tell("shadow", who, attempt.file)
        return attempt

    def end_shadow(self, file: str | None, who: str) -> bool:
        """
        A configuration is no longer in the shadow.

        :param file: its file; None if none was.
        :returns: whether one was.
        """
        if file is None:
            return False
        _shadow_log.info(
            "{file} is no longer in the shadow, asked for by {who}", file=file, who=loggable(who)
        )
        self._tell("shadow_off", who, file)
        return True

    def _tell(self, action: str, who: str, subject: str | None = None) -> None:
        self._audit.told(
            OperatorAction(at=self._now(), action=action, who=loggable(who), subject=subject)
        )
        self._changes.happened()
