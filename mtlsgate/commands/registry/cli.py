"""
The commands of ``mtlsgate registry``: options and output only.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import click

from mtlsgate.commands.registry.options import (
    AUDITED,
    DEVICES,
    FIELDS,
    FORMAT,
    JSON,
    NEVER,
    REGISTRY,
    REMARK,
    WITHOUT,
    instant,
)
from mtlsgate.ctl.command_group import CommandGroup
from mtlsgate.text import printable

if TYPE_CHECKING:
    from mtlsgate.commands.registry.changing import Edit
    from mtlsgate.commands.registry.naming import Named
    from mtlsgate.commands.registry.session import Session

#: The exit code if the answer is no.
_NO = 1


@click.group(cls=CommandGroup)
def registry() -> None:
    """Look at the devices of a registry, and change them.

    The registry is one of the configuration's. CERT is a device's certificate,
    PEM or DER, maybe with its chain or its key after it; - is standard input.
    What the registry finds devices by is read from it.

    Exits 0 on success, 1 if the answer is no, and 2 if it could not be done.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # Show a name even if the terminal lacks its letters.
        sys.stdout.reconfigure(errors="backslashreplace")


def _session(config: tuple[str, ...], name: str | None) -> Session:
    from mtlsgate.commands.registry.session import choose

    return choose(config, name)


def _named(session: Session, certificates: Iterable[str], keys: Iterable[str]) -> tuple[Named, ...]:
    from mtlsgate.commands.registry.naming import named_by_certificates, named_by_keys

    found = (
        *named_by_certificates(certificates, session.kind),
        *named_by_keys(keys, session.kind),
    )
    if not found:
        raise click.UsageError("name a device by its certificate, or by --key")
    return found


def _run(work: Coroutine[Any, Any, None]) -> None:
    import asyncio

    asyncio.run(work)


# Changes.


@registry.command()
@DEVICES
@FIELDS
@WITHOUT
@AUDITED
def allow(**given: Any) -> None:
    """List devices as active.

    A device that is listed already keeps what is not given here: its note, its
    attributes and its times. One that was denied is denied no more.
    """
    _edit("allow", given)


@registry.command()
@DEVICES
@FIELDS
@WITHOUT
@AUDITED
def deny(**given: Any) -> None:
    """List devices as denied, whether or not they were listed.

    Their live connections end on all gates at once.
    """
    _edit("deny", given)


def _edit(action: Literal["allow", "deny"], given: dict[str, Any]) -> None:
    from mtlsgate.clock import utc_now
    from mtlsgate.commands.registry.work import Changes

    session = _session(given["config"], given["name"])
    named = _named(session, given["certificates"], given["keys"])
    edit = _edit_of(action, given)
    with session.audited(given["audit_log"]) as trail:
        _run(Changes(session, trail, click.echo, utc_now).edit(action, named, edit))


def _edit_of(action: Literal["allow", "deny"], given: dict[str, Any]) -> Edit:
    from mtlsgate.admission.devices import DeviceState
    from mtlsgate.commands.registry.changing import KEEP, Edit

    def limit(said: Any) -> Any:
        return KEEP if said is None else None if said == NEVER else said

    return Edit(
        state=DeviceState.ACTIVE if action == "allow" else DeviceState.DENIED,
        not_before=limit(given["not_before"]),
        not_after=limit(given["not_after"]),
        note=given["note"],
        attributes=given["attributes"],
        without=frozenset(given["without"]),
    )


@registry.command()
@DEVICES
@REMARK
@AUDITED
def remove(
    config: tuple[str, ...],
    name: str | None,
    keys: tuple[str, ...],
    certificates: tuple[str, ...],
    note: str | None,
    audit_log: str | None,
) -> None:
    """List devices no more.

    Rules that ask for the registry reject them as not registered. To keep out
    who may have other keys, deny them instead.
    """
    from mtlsgate.clock import utc_now
    from mtlsgate.commands.registry.work import Changes

    session = _session(config, name)
    named = _named(session, certificates, keys)
    with session.audited(audit_log) as trail:
        _run(Changes(session, trail, click.echo, utc_now).remove(named, note or ""))


# Answers.


@registry.command()
@DEVICES
@JSON
def show(
    config: tuple[str, ...],
    name: str | None,
    keys: tuple[str, ...],
    certificates: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show all that is listed of devices.

    Exits 1 if one is not listed.
    """
    from mtlsgate.commands.registry.answers import shown
    from mtlsgate.commands.registry.work import look_up
    from mtlsgate.registry.formats import object_of

    session = _session(config, name)
    named = _named(session, certificates, keys)
    found = look_up(session, named)
    for one in named:
        if as_json:
            for device in (found[key] for key in one.keys if key in found):
                click.echo(json.dumps(object_of(device)))
        else:
            for line in shown(one, found):
                click.echo(line)
    if not all(key in found for one in named for key in one.keys):
        sys.exit(_NO)


@registry.command()
@DEVICES
@click.option(
    "--at",
    metavar="TIME",
    callback=instant,
    help="The time to judge by, as 2027-01-31T12:00:00Z; by default now.",
)
@JSON
def check(
    config: tuple[str, ...],
    name: str | None,
    keys: tuple[str, ...],
    certificates: tuple[str, ...],
    at: Any,
    as_json: bool,
) -> None:
    """Say whether the registry would let devices in.

    It is what a rule with this registry makes of them; the rest of the rule is
    for mtlsgate explain. Exits 0 if all would come in, and 1 if not.
    """
    from mtlsgate.clock import utc_now
    from mtlsgate.commands.registry.answers import standing
    from mtlsgate.commands.registry.work import look_up

    if at == NEVER:
        raise click.BadParameter("write it as 2027-01-31T12:00:00Z", param_hint="--at")
    session = _session(config, name)
    named = _named(session, certificates, keys)
    found = look_up(session, named)
    answers = [standing(one, found, utc_now() if at is None else at) for one in named]
    for answer in answers:
        click.echo(json.dumps(answer.to_dict()) if as_json else str(answer))
    if any(answer.reason for answer in answers):
        sys.exit(_NO)


@registry.command()
@REGISTRY
@JSON
def watch(config: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Print changes as they come, until Ctrl-C."""
    from mtlsgate.commands.registry.work import watched

    # This command lasts.
    gc.enable()
    session = _session(config, name)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        _run(watched(session, as_json, click.echo))


# Many devices.


@registry.command("import")
@REGISTRY
@FORMAT
@click.option(
    "--state",
    type=click.Choice(["active", "denied"]),
    default="active",
    show_default=True,
    help="The state of devices for which the file has none.",
)
@FIELDS
@click.option("--replace", is_flag=True, help="Remove devices that the file does not have.")
@click.option("--yes", is_flag=True, help="With --replace, do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@AUDITED
@click.argument("file", metavar="FILE")
def import_(file: str, **given: Any) -> None:
    """List the devices of a file, or of a directory of certificates.

    FILE is CSV with a header, JSON lines, or certificates; - is standard input.
    Fields: key, state, not_before, not_after, note, attributes. A device that is
    listed already is replaced. If anything in the file is wrong, nothing is
    written, and this exits 2. What --state and the like say counts where the
    file does not say it.
    """
    from mtlsgate.commands.registry import many

    gc.enable()
    many.import_file(file, given, _session(given["config"], given["name"]))


@registry.command()
@REGISTRY
@FORMAT
@click.argument("file", metavar="FILE")
def export(file: str, kind: str | None, config: tuple[str, ...], name: str | None) -> None:
    """Write all devices to a file, sorted by their keys.

    FILE is CSV or JSON lines; - is standard output. Import takes it as it is.
    """
    from mtlsgate.commands.registry import many

    gc.enable()
    many.export_file(file, kind, _session(config, name))


@registry.command()
@REGISTRY
@click.option("--apply", "is_applied", is_flag=True, help="Run it in the database.")
@AUDITED
def schema(
    config: tuple[str, ...], name: str | None, is_applied: bool, audit_log: str | None
) -> None:
    """Print the SQL that makes a registry in PostgreSQL.

    It can be run again, and brings what is there up to date.
    """
    from mtlsgate.commands.registry.making import apply, sql_of

    session = _session(config, name)
    sql = sql_of(session)
    if not sql:
        click.echo(f"registry {printable(session.name)} is in Redis, which needs none", err=True)
    elif not is_applied:
        click.echo(sql, nl=False)
    else:
        with session.audited(audit_log) as trail:
            _run(apply(session, trail, click.echo))
