"""
The ``mtlsgate`` command: options and output only.
"""

from __future__ import annotations

import gc
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import click

from mtlsgate.commands.registry.cli import registry
from mtlsgate.ctl.commands import ctl
from mtlsgate.errors import GateError

_FILE = click.Path(path_type=Path)
_CONFIG = click.option(
    "-c",
    "--config",
    multiple=True,
    default=["gate.hcl"],
    show_default=True,
    help="The configuration: a file, or a directory of .hcl files; may be given several times.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mtlsgate")
@click.pass_context
def main(context: click.Context) -> None:
    """An mTLS gate: lets in known TLS client certificates, and nobody else.

    `mtlsgate run` starts the gate itself, and so does: twistd mtlsgate
    """
    # A command is too short to need garbage collection, which would take a tenth of its
    # time.
    gc.disable()
    context.call_on_close(gc.enable)


main.add_command(ctl)
main.add_command(registry)


@main.command()
@_CONFIG
@click.option("--strict", is_flag=True, help="Make warnings errors.")
def check(config: tuple[str, ...], strict: bool) -> None:
    """Say what a configuration would do, or what is wrong with it.

    Exits 0 if the gate would start, and 1 if not.
    """
    from mtlsgate.clock import utc_now
    from mtlsgate.load.loading import load
    from mtlsgate.load.overview import overview
    from mtlsgate.load.shadow import with_shadow
    from mtlsgate.load.surroundings import Surroundings

    try:
        epoch = load(config, say=partial(click.echo, err=True))
        epoch = with_shadow(epoch, config[0], Surroundings())
    except GateError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    for line in overview(epoch, utc_now()):
        click.echo(line)
    for warning in epoch.warnings:
        click.echo(f"{warning} (warning)", err=True)
    if strict and epoch.warnings:
        sys.exit(1)


@main.command()
@_CONFIG
@click.option("--uid", metavar="USER", help="When started as root, become this user.")
@click.option("--gid", metavar="GROUP", help="And this group; by default the user's.")
@click.option("--reactor", metavar="NAME", help="Use another of Twisted's reactors.")
def run(config: tuple[str, ...], uid: str | None, gid: str | None, reactor: str | None) -> None:
    """Run the gate in the foreground, and log to standard error.

    It is the gate of twistd -n mtlsgate, without a pid file. To run it in the
    background, or with others of twistd's options, use twistd.
    """
    from mtlsgate.commands.run import RunError, run

    given = {"uid": uid, "gid": gid, "reactor": reactor}
    # This command lasts.
    gc.enable()
    try:
        run(config, [f"--{name}={value}" for name, value in given.items() if value is not None])
    except RunError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@main.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True)
@click.option("--host", "hosts", multiple=True, help="A further name or IP address of the server.")
@click.option("--client", "clients", multiple=True, help="The name of an admitted client.")
def init(directory: Path, days: int, hosts: tuple[str, ...], clients: tuple[str, ...]) -> None:
    """Write a development setup: gate.hcl, a CA, and clients to try it with.

    Nothing that is there is overwritten.
    """
    from mtlsgate.clock import utc_now
    from mtlsgate.commands.init import commands, is_pinned, write_setup

    admitted = tuple(dict.fromkeys(clients)) or ("client",)
    try:
        setup = write_setup(directory, days=days, hosts=hosts, clients=admitted, now=utc_now())
        pinned = [client for client in admitted if is_pinned(directory, client)]
    except (OSError, ValueError) as error:
        click.echo(f"mtlsgate init: {error}", err=True)
        sys.exit(1)
    for path in setup.kept:
        click.echo(f"kept     {path} (it was there)")
    for path in setup.written:
        click.echo(f"wrote    {path}")
    for client in sorted(set(admitted) - set(pinned)):
        click.echo(
            f"{directory}/admitted.crt was there and does not pin {client}: append its certificate"
        )
    start = f"mtlsgate run --config {shlex.quote(f'{directory}/gate.hcl')}"
    click.echo(f"\nStart the gate:\n  {start}")
    for heading, lines in commands(directory, pinned[0] if pinned else admitted[0]):
        click.echo(f"\n{heading}")
        for line in lines:
            click.echo(f"  {line}")


@main.command()
@_CONFIG
@click.option("--server", help="The server to ask; needed if there are several.")
@click.option("--at", help="The time to judge by, as 2027-01-31T12:00:00Z; by default now.")
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
@click.argument("certificates", nargs=-1, required=True, metavar="CERT...")
def explain(
    config: tuple[str, ...],
    server: str | None,
    at: str | None,
    as_json: bool,
    certificates: tuple[str, ...],
) -> None:
    """Say why a client would be let in, or not.

    CERT is the client's certificate, followed by what it sends along; PEM or
    DER, one file or several. Nothing is connected to.

    Exits 0 if it would be let in, 1 if not, and 2 if that cannot be told.
    """
    from mtlsgate.clock import utc_now
    from mtlsgate.commands.explain import choose_server, read_chain, unknown_here
    from mtlsgate.config.fields import parse_instant
    from mtlsgate.observe.explanation import explain

    try:
        now = utc_now() if at is None else parse_instant(at)
        loaded = choose_server(config, server)
        explanation = explain(loaded, read_chain(certificates), now)
    except (GateError, ValueError) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(explanation.to_dict(), indent=2))
    else:
        for line in explanation.lines():
            click.echo(line)
    why = unknown_here(explanation)
    if why is not None:
        click.echo(why, err=True)
        sys.exit(2)
    sys.exit(0 if explanation.admitted else 1)


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    from mtlsgate.config.fields import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if seconds > 3600:
        # A socket takes no more than some weeks.
        raise click.BadParameter("longer than an hour")
    return seconds


@main.command()
@click.argument("target", metavar="HOST:PORT")
@click.option(
    "--cert",
    type=_FILE,
    help="The client's certificate, with its chain after it; or a PKCS#12 file, with its key.",
)
@click.option("--key", type=_FILE, help="Its private key.")
@click.option(
    "--passphrase-file",
    type=click.File("rb"),
    help="Its first line decrypts the key or the PKCS#12 file; - reads standard input.",
)
@click.option("--ca", type=_FILE, help="The CAs to verify the server's certificate with.")
@click.option("--server-name", help="The name the server must have; by default HOST.")
@click.option(
    "--timeout",
    default="10s",
    metavar="TIME",
    show_default=True,
    callback=_seconds,
    help="How long to wait for the connection, and again for the handshake.",
)
@click.option(
    "--wait",
    default="1s",
    metavar="TIME",
    show_default=True,
    callback=_seconds,
    help="How long to wait for an objection after the handshake.",
)
@click.option("--tls", type=click.Choice(["1.2", "1.3"]), help="The only TLS version to offer.")
@click.option("--json", "as_json", is_flag=True, help="Say it in JSON.")
def probe(
    target: str,
    cert: Path | None,
    key: Path | None,
    passphrase_file: BinaryIO | None,
    ca: Path | None,
    server_name: str | None,
    timeout: float,
    wait: float,
    tls: Literal["1.2", "1.3"] | None,
    as_json: bool,
) -> None:
    """Connect to a gate as a client, and say what it makes of that.

    No application data is sent.

    Exits 0 if the client is let in, 1 if not, or if --ca is given and the
    server is not the one it should be, and 2 if that cannot be told.
    """
    from mtlsgate import probe as client

    try:
        outcome = client.probe(
            client.parse_target(target, server_name),
            identity=client.load_identity(cert, key, client.read_passphrase(passphrase_file)),
            trust=client.load_trust(ca),
            version=tls,
            timeout=timeout,
            wait=wait,
        )
    except client.ProbeError as error:
        click.echo(f"mtlsgate probe: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(client.to_dict(outcome), indent=2))
    else:
        for line in client.describe(outcome):
            click.echo(line)
    sys.exit(outcome.exit_status)
