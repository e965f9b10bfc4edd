"""
The ``mtlsgate`` command: options and output only.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from mtlsgate.errors import GateError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mtlsgate")
def main() -> None:
    """An mTLS gate: lets in known TLS client certificates, and nobody else.

    The gate itself is started with: twistd -n mtlsgate --config gate.hcl
    """


@main.command()
@click.option(
    "-c", "--config", default="gate.hcl", show_default=True, help="The configuration file."
)
@click.option("--strict", is_flag=True, help="Make warnings errors.")
def check(config: str, strict: bool) -> None:
    """Say what a configuration would do, or what is wrong with it.

    Exits 0 if the gate would start, and 1 if not.
    """
    from mtlsgate.context import utc_now
    from mtlsgate.epoch import load
    from mtlsgate.overview import print_overview

    try:
        epoch = load(config)
    except GateError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    print_overview(epoch, utc_now())
    for warning in epoch.warnings:
        click.echo(f"{warning} (warning)", err=True)
    if strict and epoch.warnings:
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
    from mtlsgate.context import utc_now
    from mtlsgate.initialize import commands, is_pinned, write_setup

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
    start = f"twistd -n mtlsgate --config {shlex.quote(f'{directory}/gate.hcl')}"
    click.echo(f"\nStart the gate:\n  {start}")
    for heading, lines in commands(directory, pinned[0] if pinned else admitted[0]):
        click.echo(f"\n{heading}")
        for line in lines:
            click.echo(f"  {line}")
