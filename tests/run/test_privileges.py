"""
Whom the gate becomes: `user` and `group`, and twistd's --uid and --gid.
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any

import pytest

from mtlsgate.config import Located, model
from mtlsgate.errors import START, GateError
from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.run.privileges import UserFollower, become_configured_user

NOBODY = pwd.getpwnam("nobody")
NOGROUP = grp.getgrgid(NOBODY.pw_gid)
MAIL = grp.getgrnam("mail")


def epoch(user: str | None = None, group: str | None = None) -> Epoch:
    settings = model.Settings(
        user=None if user is None else Located(user, START),
        group=None if group is None else Located(group, START),
    )
    return Epoch("gate.hcl", (), settings, None, ())


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("user", "group", "owner"),
    [
        ("nobody", None, (NOBODY.pw_uid, NOBODY.pw_gid)),
        (str(NOBODY.pw_uid), None, (NOBODY.pw_uid, NOBODY.pw_gid)),
        ("nobody", "mail", (NOBODY.pw_uid, MAIL.gr_gid)),
        ("nobody", str(MAIL.gr_gid), (NOBODY.pw_uid, MAIL.gr_gid)),
    ],
)
def test_twistd_is_told_whom_to_become(user: str, group: str | None, owner: Owner) -> None:
    """By name and by number; the group is the user's own, unless it is named."""
    options: dict[str, Any] = {"uid": None, "gid": None}
    assert become_configured_user(options, epoch(user, group)) == owner
    assert options == {"uid": owner[0], "gid": owner[1]}


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("options", "user", "group", "problem"),
    [
        ({"uid": None}, "no-such", None, 'user: there is no user "no-such"'),
        ({"uid": None}, "4294967295", None, "user: there is no user"),
        ({"uid": None}, "9" * 40, None, "user: there is no user"),
        ({"uid": None}, "nobody", "no-such", 'group: there is no group "no-such"'),
        ({"uid": 1, "gid": 1}, "nobody", None, "--uid or --gid names another"),
        ({"uid": NOBODY.pw_uid, "gid": MAIL.gr_gid}, "nobody", None, "names another"),
        ({}, "nobody", None, "twist cannot become another user"),
        (None, "nobody", None, "twist cannot become another user"),
    ],
)
def test_what_cannot_be_followed_is_an_error(
    options: dict[str, Any] | None, user: str, group: str | None, problem: str
) -> None:
    """With file and line."""
    with pytest.raises(GateError) as caught:
        become_configured_user(options, epoch(user, group))
    assert str(caught.value).startswith("gate.hcl:1:1: settings: ")
    assert problem in str(caught.value)


def test_an_unknown_number_of_the_command_line_is_one_line() -> None:
    """twistd itself would print a traceback."""
    with pytest.raises(GateError, match="--uid: there is no user with the number 4294967294"):
        become_configured_user({"uid": 4294967294, "gid": None}, epoch())


def test_the_command_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without `user`: twistd finds the group."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    options: dict[str, Any] = {"uid": NOBODY.pw_uid, "gid": None}
    assert become_configured_user(options, epoch()) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert become_configured_user(options, epoch("nobody")) == (NOBODY.pw_uid, NOBODY.pw_gid)
    for nobody_else in (None, {}, {"uid": None, "gid": None}):
        assert become_configured_user(nobody_else, epoch()) == NOBODY_ELSE


def test_others_than_root_can_only_be_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for root and for a service manager that has changed the user already."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    monkeypatch.setattr(os, "getgroups", list)
    options: dict[str, Any] = {"uid": None, "gid": None}
    assert become_configured_user(options, epoch("nobody")) == NOBODY_ELSE
    assert options == {"uid": None, "gid": None}
    assert become_configured_user(None, epoch("nobody")) == NOBODY_ELSE
    for user, group in (("daemon", None), ("nobody", "mail")):
        with pytest.raises(GateError, match='runs as "nobody", and only root can become'):
            become_configured_user(options, epoch(user, group))


def test_a_reload_cannot_name_another_user() -> None:
    """The gate is no longer root by then."""
    follower = UserFollower.of(epoch("nobody"))
    follower.prepare(epoch("nobody")).commit()
    for other in (epoch("daemon"), epoch(), epoch("nobody", "mail")):
        with pytest.raises(GateError, match=r"gate\.hcl:1:1: settings: .*restart it"):
            follower.prepare(other)
