"""
The commands of ``mtlsgate ctl``: options and output only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from mtlsgate.ctl.command_group import CommandGroup
from mtlsgate.ctl.gate_address import NotFound
from mtlsgate.text import printable

if TYPE_CHECKING:
    from mtlsgate.ctl.client import Remote

_FILE = click.Path(path_type=Path)
_GATE_OPTIONS = (
    click.option(
        "-c",
        "--config",
        type=_FILE,
        multiple=True,
        help="The configuration, as the gate was given it.  [default: gate.hcl]",
    ),
    click.option("--socket", type=_FILE, help="The gate's admin socket."),
    click.option(
        "--url", help="Its admin endpoint, as http://127.0.0.1:9090 or https://host:port."
    ),
    click.option("--token-file", type=_FILE, help="The token to present."),
    click.option("--cert", type=_FILE, help="For https: the client's certificate."),
    click.option("--key", type=_FILE, help="For https: its private key."),
    click.option("--ca", type=_FILE, help="For https: the CAs to verify the gate with."),
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_WIDE = click.option("--wide", is_flag=True, help="Show everything, in lines as long as it takes.")

#: The exit code if the gate refuses.
_REFUSED = 1
#: Seconds between two checks whether the gate has ended.
_POLL = 0.2


def _names_gate(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name the gate."""
    for option in reversed(_GATE_OPTIONS):
        command = option(command)
    return command


def _remote(said: dict[str, Any]) -> Remote:
    from mtlsgate.ctl.client import Remote
    from mtlsgate.ctl.gate_address import CtlOptions, find

    # These options may also stand before the command's name.
    before = click.get_current_context().obj or {}
    given = {name: said[name] or before.get(name) or said[name] for name in said}
    return Remote(find(CtlOptions(**given)))


def _json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2))


@click.group(cls=CommandGroup)
@_names_gate
@click.pass_context
def ctl(context: click.Context, /, **said: Any) -> None:
    """Look at a running gate, and control it.

    Name the gate by its configuration, of which only the admin block is read, or
    by its socket or URL.

    Exits 0 on success, 1 if the gate refused, and 2 if it could not be asked.
    """
    context.obj = said


@ctl.command()
@_names_gate
@_WIDE
@_JSON
def status(wide: bool, as_json: bool, **said: Any) -> None:
    """Show the state of the gate."""
    facts = _remote(said).get("/status")
    if as_json:
        _json(facts)
        return
    from mtlsgate.ctl import printing, tables

    printing.say(tables.status(facts), wide=wide)


def _probe(path: str, well: str, said: dict[str, Any]) -> None:
    objection = _remote(said).objection(path)
    click.echo(objection or well)
    if objection is not None:
        sys.exit(_REFUSED)


@ctl.command()
@_names_gate
def health(**said: Any) -> None:
    """Exit 0 if the gate answers: a probe for containers.

    A gate that drains or waits for its targets is healthy; ctl ready tells the
    difference. Exits 2 if it does not answer within three seconds.
    """
    _probe("/healthz", "alive", said)


@ctl.command()
@_names_gate
def ready(**said: Any) -> None:
    """Exit 0 if the gate accepts connections, 1 if not, and say why not.

    Exits 2 if it does not answer within three seconds.
    """
    _probe("/readyz", "ready", said)


@ctl.command()
@_names_gate
@click.option("--server", help="Those of one server.")
@_WIDE
@_JSON
def connections(server: str | None, wide: bool, as_json: bool, **said: Any) -> None:
    """List the connections."""
    found = _remote(said).connections(server)
    if as_json:
        _json({"connections": found})
        return
    from mtlsgate.ctl import printing, tables

    printing.say(tables.connections(found, wide=wide), wide=wide)


@ctl.command()
@_names_gate
@click.option("--pins", is_flag=True, help="Print HCL that pins the rejected clients.")
@_WIDE
@_JSON
def rejections(pins: bool, wide: bool, as_json: bool, **said: Any) -> None:
    """List the rejected clients, the latest first."""
    found = _remote(said).get("/rejections")
    if as_json:
        _json(found)
        return
    from mtlsgate.ctl import printing, tables

    if pins:
        for line in tables.pins(found["rejections"]):
            click.echo(line)
    else:
        printing.say(tables.rejections(found["rejections"], wide=wide), wide=wide)


@ctl.command()
@_names_gate
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only print what would change, and which clients would be disconnected.",
)
@_JSON
def reload(dry_run: bool, as_json: bool, **said: Any) -> None:
    """Reload the configuration.

    If anything in it is wrong, nothing changes and this exits 1.
    """
    from mtlsgate.ctl.client import LONG_TIMEOUT
    from mtlsgate.ctl.words import changes

    facts = _remote(said).post("/reload", LONG_TIMEOUT, dry_run=int(dry_run))
    if as_json:
        _json(facts)
    else:
        for problem in facts["problems"]:
            click.echo(printable(problem), err=True)
        for line in changes(facts):
            click.echo(line)
    if not facts["succeeded"]:
        sys.exit(_REFUSED)


@ctl.command()
@_names_gate
@click.argument("what", default="", metavar="[FILE|off|report]")
@_WIDE
@_JSON
def shadow(what: str, wide: bool, as_json: bool, **said: Any) -> None:
    """Let another configuration judge every client, too, and change nothing.

    FILE is a configuration on the gate's machine. Every client is judged by it, and
    nobody notices. report shows who would be out or in if that file were put in place;
    off ends it; without an argument this shows what is in the shadow.

    If anything in FILE is wrong, nothing changes and this exits 1.
    """
    from mtlsgate.ctl import shadow as trying
    from mtlsgate.ctl.client import LONG_TIMEOUT

    remote = _remote(said)
    if what in ("", "report"):
        facts = remote.get("/shadow")["shadow"]
        lines = trying.report(facts, wide=wide) if what else trying.status(facts)
    elif what == "off":
        facts = remote.post("/shadow/end")
        lines = trying.ended(facts)
    else:
        facts = remote.post("/shadow/put", LONG_TIMEOUT, file=os.path.abspath(what))
        for line in (*facts["problems"], *facts["warnings"]):
            click.echo(printable(line), err=True)
        lines = trying.put(facts)
    if as_json:
        _json(facts)
    else:
        from mtlsgate.ctl import printing

        printing.say(lines, wide=wide)
    if what not in ("", "report", "off") and not facts["succeeded"]:
        sys.exit(_REFUSED)


@ctl.command()
@_names_gate
@click.option("--wait", is_flag=True, help="Wait until the gate has ended.")
@_JSON
def drain(wait: bool, as_json: bool, **said: Any) -> None:
    """Accept no more connections, wait for the others, and end the gate.

    Connections have the configured drain_timeout to end.
    """
    from mtlsgate.ctl.client import Gone, Rejected
    from mtlsgate.ctl.words import counted

    remote = _remote(said)
    facts = remote.post("/drain")
    if as_json:
        _json(facts)
    else:
        click.echo(f"draining: {counted(facts['admitted'], 'client')} still connected")
    # A gate that is ending may look like that.
    with suppress(Gone, Rejected):
        while wait:
            remote.get("/status")
            sleep(_POLL)


@ctl.command()
@_names_gate
@click.argument("number", type=click.IntRange(1), metavar="NUMBER")
@_JSON
def close(number: int, as_json: bool, **said: Any) -> None:
    """Close a connection at once; ctl connections shows its NUMBER."""
    try:
        facts = _remote(said).post(f"/connections/{number}/close")
    except NotFound as error:
        click.echo(str(error), err=True)
        sys.exit(_REFUSED)
    if as_json:
        _json(facts)
    else:
        click.echo(f"connection {number} is closed")


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    from mtlsgate.config.fields import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@ctl.command()
@_names_gate
@click.option(
    "--every", default="2s", metavar="TIME", show_default=True, callback=_seconds,
    help="Time between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Look once.")
def top(every: float, once: bool, **said: Any) -> None:
    """Show the gate on one screen, updated until Ctrl-C."""
    from mtlsgate.ctl import printing
    from mtlsgate.ctl import top as view

    with suppress(KeyboardInterrupt):
        view.show(_remote(said), printing.console(), every, once=once)
