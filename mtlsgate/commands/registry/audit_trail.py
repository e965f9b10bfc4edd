"""
The lines that ``mtlsgate registry`` adds to the gate's audit log, one for each change.

The log is opened before the store is: a change that cannot be recorded is not made.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from mtlsgate.commands.registry.naming import RegistryError
from mtlsgate.config import Located, model
from mtlsgate.errors import NOWHERE, ConfigError
from mtlsgate.gate.events import RegistryChange
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.text import printable

_REMEDY = "run the command as the gate's user, or name another file by --audit-log"


@frozen
class AuditTrail:
    """
    An audit log that is open.

    :ivar _log: writes it.
    """

    _log: AuditLog

    def write(self, change: RegistryChange) -> None:
        """:raises RegistryError: if the line is not in the file."""
        self._log.registry_changed(change)
        if self._log.lost or self._log.is_failing:
            raise RegistryError("the change was made, but its line in the audit log is missing")


@contextmanager
def opened(config: str, block: model.Audit | None, given: str | None) -> Iterator[AuditTrail]:
    """
    :param config: the configuration, where the block's file is.
    :param block: its ``audit`` block, or None.
    :param given: a file of the user's choice, or None.
    :returns: the audit log, until the block ends; without a file its lines go nowhere.
    :raises RegistryError: if it cannot be opened.
    """
    if given is not None:
        block = model.Audit(at=NOWHERE, file=Located(str(Path(given).absolute()), NOWHERE))
    log = AuditLog(epoch=None)
    try:
        owner = NOBODY_ELSE
        if block is not None and given is None:
            owner = _owner_of_new(Path(config).absolute().parent / block.file.value)
        log.turn_to(log.prepare(config, block, owner))
    except ConfigError as error:
        remedy = "" if given is not None else f"; {_REMEDY}"
        raise RegistryError(f"{error}{remedy}") from None
    try:
        yield AuditTrail(log)
    finally:
        log.close()


def _owner_of_new(path: Path) -> Owner:
    """
    A file that the gate may not open would keep it from starting, so what this command
    makes belongs to whoever has the directory.

    :returns: who is to own the file if it is made.
    :raises RegistryError: if it is not there, and this user must not make it.
    """
    with suppress(OSError):
        parent = path.parent.stat()
        if not path.exists() and parent.st_uid != os.geteuid():
            if os.geteuid() != 0:
                raise RegistryError(f"{printable(str(path))}: is not there yet: {_REMEDY}")
            return parent.st_uid, parent.st_gid
    return NOBODY_ELSE


def operator(environ: Mapping[str, str] = os.environ) -> str:
    """:returns: whose command this is, in one line."""
    who = _user(os.getuid())
    sudo = environ.get("SUDO_UID", "")
    if os.getuid() == 0 and sudo.isascii() and sudo.isdigit() and sudo != "0":
        who += f", by sudo of {_user(int(sudo))}"
    return who


def _user(uid: int) -> str:
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except (KeyError, OverflowError):
        return f"user {uid}"
