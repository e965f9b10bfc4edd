"""
Commands that say in lines what is wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from mtlsgate.errors import GateError

#: The exit code of a command that could not be carried out.
UNDONE = 2


class CommandGroup(click.Group):
    """Prints errors without a traceback, and exits with `UNDONE`."""

    def invoke(self, ctx: click.Context) -> Any:
        """:returns: as click's own."""
        try:
            return super().invoke(ctx)
        except GateError as error:
            click.echo(str(error), err=True)
            sys.exit(UNDONE)
