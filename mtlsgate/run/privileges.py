"""
The user that the gate becomes after it has started as root.

The user comes from twistd's ``--uid`` and ``--gid``, or from ``user`` and ``group`` in
``settings``; the latter are made the former, so that twistd does it all in one way.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from mtlsgate.config import Located
from mtlsgate.errors import START, ConfigError, Problem
from mtlsgate.load.outline import Configured
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.run.followers import Change
from mtlsgate.run.twistd import TwistdError
from mtlsgate.text import quoted

_log = Logger("mtlsgate.service")


def become_configured_user(options: Any, epoch: Configured) -> Owner:
    """
    Have twistd become the user that the configuration names.

    :param options: twistd's, which may be changed; None outside of it.
    :returns: who the gate will be; `NOBODY_ELSE` if it stays who it is.
    :raises GateError: if it cannot become that user.
    """
    wanted = _wanted(epoch)
    given = _given(options)
    if wanted == NOBODY_ELSE:
        return given
    user = epoch.settings.user
    assert user is not None
    if given not in (NOBODY_ELSE, wanted):
        raise _error(epoch, user, "user: --uid or --gid names another: leave one of them out")
    if os.geteuid() != 0:
        if wanted[0] != os.geteuid() or wanted[1] not in (os.getegid(), *os.getgroups()):
            own = _name_of(os.geteuid())
            text = f"the gate runs as {own}, and only root can become {_name_of(wanted[0])}"
            raise _error(epoch, user, f"user: {text}")
        return NOBODY_ELSE
    if wanted[0] == 0:
        return given
    if options is None or "uid" not in options:
        text = "twist cannot become another user: use twistd or mtlsgate run"
        raise _error(epoch, user, f"user: {text}")
    options["uid"], options["gid"] = wanted
    return wanted


def _given(options: Mapping[str, Any] | None) -> Owner:
    """
    :returns: who twistd's options say.
    :raises TwistdError: if there is no such user, which twistd would say in a traceback.
    """
    if options is None:
        return NOBODY_ELSE
    uid, gid = options.get("uid"), options.get("gid")
    if uid is not None:
        try:
            own_group = pwd.getpwuid(uid).pw_gid
        except (KeyError, OverflowError):
            raise TwistdError(f"--uid: there is no user with the number {uid}") from None
        # As twistd itself has it.
        gid = own_group if gid is None else gid
    return -1 if uid is None else uid, -1 if gid is None else gid


def _wanted(epoch: Configured) -> Owner:
    """:raises ConfigError: if there is no such user or group."""
    user, group = epoch.settings.user, epoch.settings.group
    if user is None:
        return NOBODY_ELSE
    found = _found(pwd.getpwnam, pwd.getpwuid, user.value)
    if found is None:
        raise _error(epoch, user, f"user: there is no user {quoted(user.value)}")
    if group is None:
        return found.pw_uid, found.pw_gid
    found_group = _found(grp.getgrnam, grp.getgrgid, group.value)
    if found_group is None:
        raise _error(epoch, group, f"group: there is no group {quoted(group.value)}")
    return found.pw_uid, found_group.gr_gid


def _found(by_name: Callable[[str], Any], by_number: Callable[[int], Any], text: str) -> Any:
    """:returns: the entry of a name, or of a number; None if there is none."""
    try:
        return by_name(text)
    except (KeyError, ValueError):
        pass
    try:
        # twistd needs the entry's name, to set the groups that the user is in.
        return by_number(int(text)) if text.isascii() and text.isdigit() else None
    except (KeyError, OverflowError):
        return None


def _error(epoch: Configured, value: Located[str], text: str) -> ConfigError:
    return ConfigError([Problem(value.at.path or epoch.path, value.at, "settings", text)])


def _name_of(uid: int) -> str:
    try:
        return quoted(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"user {uid}"


def warn_if_root() -> None:
    """Log a warning if the gate has kept the rights of root."""
    if os.geteuid() == 0:
        _log.warn(
            "the gate runs as root: give it a user of its own, with settings "
            '{{ user = "…" }}, --uid or the service manager'
        )


@frozen
class UserFollower:
    """
    Refuses a configuration that names another user than the gate started with: a gate
    that is no longer root cannot become anybody.

    :ivar _started: the user and group in the configuration that the gate started with.
    """

    _started: tuple[str | None, str | None]

    @classmethod
    def of(cls, epoch: Configured) -> UserFollower:
        """:param epoch: that the gate starts with."""
        return cls(_names(epoch))

    def prepare(self, epoch: Configured) -> Change:
        """:raises ConfigError: if it names another user."""
        if _names(epoch) != self._started:
            value = epoch.settings.user or epoch.settings.group
            text = "user and group take effect when the gate starts: restart it"
            if value is None:
                raise ConfigError([Problem(epoch.path, START, "settings", text)])
            raise _error(epoch, value, text)
        return Change()


def _names(epoch: Configured) -> tuple[str | None, str | None]:
    user, group = epoch.settings.user, epoch.settings.group
    return (
        None if user is None else user.value,
        None if group is None else group.value,
    )
