"""
The audit log: one JSON line for each thing that happened.

``docs/audit.md`` is its schema.  Whatever a client sends is escaped and bounded,
so that no line can be forged or broken, or be longer than `MAX_LINE`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from twisted.logger import Logger

from mtlsgate.clock import utc_now
from mtlsgate.config import model
from mtlsgate.errors import ConfigError, Problem
from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    OperatorAction,
    RegistryChange,
    RejectedConnection,
    Reload,
)
from mtlsgate.gate.shadow import ShadowVerdict
from mtlsgate.observe.capped import Capped, encode
from mtlsgate.observe.leaf_facts import NO_FACTS, facts_of, facts_of_admitted
from mtlsgate.observe.log_file import LogFile
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.peer import address_text
from mtlsgate.text import printable, shown

_log = Logger("mtlsgate.audit")

#: The version of the schema.  New fields and events do not change it; a field
#: that goes, or means something else, does.
SCHEMA = 1

#: Bytes of a list of a reload's.
MAX_REPORT = 8192
#: Bytes of a line about a connection.
MAX_LINE = 65536
#: The largest rejected leaf, in bytes, of which the names are read: anybody can
#: present a leaf with thousands of names.
MAX_STRANGER = 16384


class AuditLog:
    """
    Writes the audit log, if the configuration has one.

    :ivar run: identifies this run of the gate; each run numbers connections
        from 1.
    :ivar epoch: the number of the epoch in force, or None.
    :ivar _file: where lines go, or None.
    """

    def __init__(
        self, now: Callable[[], datetime] = utc_now, run: str | None = None, epoch: int | None = 1
    ) -> None:
        """
        :param run: of a gate that several processes make up; by default a new one.
        :param epoch: the number of the epoch in force; None for what is no gate.
        """
        self.run = token_hex(8) if run is None else run
        self.epoch = epoch
        self._now = now
        self._file: LogFile | None = None
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many lines could not be written."""
        return self._lost + (0 if self._file is None else self._file.lost)

    @property
    def is_failing(self) -> bool:
        """Whether the file cannot be written, or cannot be reopened."""
        return self._file is not None and self._file.is_failing

    # The file.

    def prepare(
        self, config: str, block: model.Audit | None, owner: Owner = NOBODY_ELSE
    ) -> LogFile | None:
        """
        Open the file of an ``audit`` block, if it is not open already.

        :param config: the configuration file.
        :param owner: owns the file if it is created.
        :returns: for `turn_to` or `discard`.
        :raises ConfigError: if it cannot be opened.
        """
        if block is None:
            return None
        path = Path(config).absolute().parent / block.file.value
        if self._file is not None and self._file.path == path:
            return self._file
        try:
            return LogFile(path, self._gap, owner)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            text = f'file: "{shown(block.file.value)}" cannot be opened for writing: {why}'
            raise ConfigError([Problem(config, block.file.at, "audit", text)]) from error

    def turn_to(self, file: LogFile | None) -> None:
        """Write to this file from now on; None to write nothing."""
        before, self._file = self._file, file
        if before is not None and before is not file:
            self._lost += before.lost
            before.close()

    def discard(self, file: LogFile | None) -> None:
        """Close a file that `prepare` opened, unless it is in use."""
        if file is not None and file is not self._file:
            file.close()

    def reopen(self) -> bool:
        """Open the file again by its name.

        :returns: whether it is open; False without an audit log.
        """
        return self._file is not None and self._file.reopen()

    def rotate(self) -> None:
        """Continue in the file that has the name now, and log that."""
        if self.reopen():
            assert self._file is not None
            _log.info("the audit log goes on in {path}", path=printable(str(self._file.path)))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def follow(self, epoch: int) -> None:
        """:param epoch: the number of the epoch that took over, which another process
        tells of."""
        self.epoch = epoch

    # The events.

    def admitted(self, connection: AdmittedConnection) -> None:
        """Write that a client was admitted."""
        if self._file is None:
            return
        capped, negotiated = Capped(), connection.admission.negotiated
        self._write_connection(
            self._now(),
            "admitted",
            connection,
            capped,
            {
                "sni": capped.text(negotiated.server_name),
                "tls_version": negotiated.tls_version,
                "cipher": negotiated.cipher,
                "group": negotiated.group,
                "alpn": capped.text(negotiated.alpn),
                "resumed": negotiated.resumed,
                "seconds": round(connection.admission.since - connection.arrival.began, 6),
            },
        )

    def rejected(self, connection: RejectedConnection) -> None:
        """Write that a client was rejected."""
        if self._file is None:
            return
        rejection, leaf, capped = connection.rejection, connection.leaf, Capped()
        facts = NO_FACTS if leaf is None else facts_of(leaf, MAX_STRANGER)
        self._write(
            {
                **self._head("rejected", connection.at),
                "connection": connection.number,
                "server": capped.text(connection.server),
                "place": capped.text(connection.listener),
                "peer_address": capped.text(address_text(connection.address)),
                "reason": rejection.reason.value,
                "detail": capped.text(rejection.detail),
                "depth": rejection.depth,
                "sni": capped.text(connection.server_name),
                "tls_version": connection.tls_version,
                "health_check": connection.is_health_check,
                "seconds": round(connection.seconds, 6),
                "truncated": capped.is_cut or facts.is_cut,
            },
            facts.text,
        )

    def closed(self, connection: ClosedConnection) -> None:
        """Write that the connection of an admitted client has ended."""
        if self._file is None:
            return
        capped = Capped()
        self._write_connection(
            connection.at,
            "closed",
            connection.connection,
            capped,
            {
                "cause": connection.cause.value,
                "reason": None if connection.reason is None else connection.reason.value,
                "detail": capped.text(connection.detail),
                "seconds": round(connection.seconds, 6),
                "bytes_received": connection.received,
                "bytes_sent": connection.sent,
            },
        )

    def reloaded(self, reload: Reload) -> None:
        """Write the result of a reload."""
        self.epoch = reload.number
        if self._file is None:
            return
        capped = Capped()
        self._write(
            {
                **self._head("reload", reload.at),
                "result": "failed" if reload.problems else "ok",
                "trial": reload.is_trial,
                "seconds": round(reload.seconds, 6),
                "problems": capped.texts(reload.problems, MAX_REPORT),
                "changes": capped.texts(reload.changes, MAX_REPORT),
                "dropped": capped.texts(reload.dropped, MAX_REPORT),
                "truncated": capped.is_cut,
            }
        )

    def told(self, action: OperatorAction) -> None:
        """Write that an operator told the gate to do something."""
        if self._file is None:
            return
        capped = Capped()
        self._write(
            {
                **self._head("operator", action.at),
                "action": action.action,
                "who": capped.text(action.who),
                "subject": capped.text(action.subject),
                "truncated": capped.is_cut,
            }
        )

    def registry_changed(self, change: RegistryChange) -> None:
        """Write that an operator changed what a registry lists."""
        if self._file is None:
            return
        capped = Capped()
        self._write(
            {
                **self._head("registry", change.at),
                "action": change.action,
                "who": capped.text(change.who),
                "registry": capped.text(change.registry),
                "key": capped.text(change.key),
                "subject": capped.text(change.subject),
                "before": change.before,
                "after": change.after,
                "details": capped.texts(change.details, MAX_REPORT),
                "file": capped.text(change.file),
                "sha256": change.sha256,
                "devices": change.devices,
                "added": change.added,
                "changed": change.changed,
                "removed": change.removed,
                "complete": change.is_complete,
                "truncated": capped.is_cut,
            }
        )

    def shadowed(self, verdict: ShadowVerdict, file: str) -> None:
        """
        Write that the configuration in the shadow has another verdict on a client.

        :param file: that configuration's.
        """
        then = verdict.then
        if self._file is None or then is None:
            return
        now, leaf, capped = verdict.now, verdict.leaf, Capped()
        facts = NO_FACTS if leaf is None else facts_of(leaf, MAX_STRANGER)
        self._write(
            {
                **self._head("shadow", verdict.at),
                "connection": verdict.connection,
                "server": capped.text(now.server),
                "peer_address": capped.text(address_text(verdict.address)),
                "outcome": verdict.outcome.value,
                "rule": capped.text(now.rule),
                "reason": None if now.rejection is None else now.rejection.reason.value,
                "server_then": capped.text(then.server or None),
                "rule_then": capped.text(then.rule),
                "reason_then": None if then.rejection is None else then.rejection.reason.value,
                "detail_then": (
                    None if then.rejection is None else capped.text(then.rejection.detail)
                ),
                "live": verdict.is_live,
                "shadow": capped.text(file),
                "truncated": capped.is_cut or facts.is_cut,
            },
            facts.text,
        )

    def _gap(self, count: int) -> bytes:
        return _line({**self._head("lost", self._now()), "lines": count})

    def _head(self, event: str, at: datetime) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "event": event,
            # RFC 3339, in UTC.
            "time": at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "run": self.run,
            "epoch": self.epoch,
        }

    def _write_connection(
        self,
        at: datetime,
        event: str,
        connection: AdmittedConnection,
        capped: Capped,
        fields: dict[str, object],
    ) -> None:
        """:param fields: follow those that identify the connection, its rule and its pin."""
        arrival, admission = connection.arrival, connection.admission
        facts = NO_FACTS if admission.leaf is None else facts_of_admitted(admission.leaf)
        destination = admission.destination
        self._write(
            {
                **self._head(event, at),
                "connection": arrival.number,
                "server": capped.text(connection.server),
                "place": capped.text(arrival.listener),
                "peer_address": capped.text(address_text(arrival.address)),
                "rule": capped.text(connection.rule),
                "pin": None if admission.pin is None else capped.text(admission.pin.name),
                "target": None if destination is None else capped.text(destination.target),
                "uid": None if destination is None else destination.uid,
                **fields,
                "truncated": capped.is_cut or facts.is_cut,
            },
            facts.text,
        )

    def _write(self, fields: dict[str, object], facts: str = "") -> None:
        assert self._file is not None
        self._file.write(_line(fields, facts))


def _line(fields: dict[str, object], facts: str = "") -> bytes:
    """:param facts: more fields, as JSON without the braces."""
    text = encode(fields)
    return f"{text[:-1]},{facts}}}\n".encode("ascii") if facts else f"{text}\n".encode("ascii")
