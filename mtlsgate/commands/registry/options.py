"""
The options of ``mtlsgate registry``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

#: The word for no limit in time.
NEVER = "never"

Command = Callable[..., None]


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


REGISTRY = _options(
    click.option(
        "-c",
        "--config",
        multiple=True,
        default=["gate.hcl"],
        show_default=True,
        help="The configuration, of which only the registries and the audit log are read.",
    ),
    click.option("--registry", "name", metavar="NAME", help="The registry, if there are several."),
)
DEVICES = _options(
    REGISTRY,
    click.option(
        "--key", "keys", multiple=True, metavar="KEY",
        help="A device by its key, where there is no certificate.",
    ),
    click.argument("certificates", nargs=-1, metavar="[CERT]..."),
)  # fmt: skip
AUDITED = click.option(
    "--audit-log",
    metavar="FILE",
    help="Append to this audit log instead of the configuration's.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def instant(_context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """:returns: None if it is not given, `NEVER`, or an instant."""
    from mtlsgate.registry.fields import FieldError, read_instant

    if text is None or text == NEVER:
        return text
    try:
        return read_instant(parameter.human_readable_name, text)
    except FieldError:
        raise click.BadParameter("write it as 2027-01-31T12:00:00Z") from None


def _note(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    from mtlsgate.registry.fields import FieldError, read_note

    try:
        return None if text is None else read_note(text)
    except FieldError as error:
        raise click.BadParameter(str(error)) from None


def _attributes(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    from mtlsgate.registry.fields import FieldError, read_attributes

    pairs = [text.partition("=") for text in given]
    if not all(equals for _, equals, _ in pairs):
        raise click.BadParameter("write it as KEY=VALUE")
    found = {name: value for name, _, value in pairs}
    if len(found) != len(pairs):
        raise click.BadParameter("one is given twice")
    try:
        return read_attributes(found)
    except FieldError as error:
        raise click.BadParameter(str(error)) from None


def _note_option(text: str) -> Callable[[Command], Command]:
    return click.option("--note", metavar="TEXT", callback=_note, help=text)


REMARK = _note_option("Why, for the audit log.")
FIELDS = _options(
    click.option(
        "--attribute", "attributes", multiple=True, metavar="KEY=VALUE", callback=_attributes,
        help="An attribute for the application; may be given several times.",
    ),
    _note_option("A note for people."),
    click.option(
        "--not-before", metavar="TIME", callback=instant,
        help=f"When it may come in first, as 2027-01-31T12:00:00Z, or {NEVER} for no limit.",
    ),
    click.option(
        "--not-after", metavar="TIME", callback=instant,
        help=f"When it may come in last, or {NEVER} for no limit.",
    ),
)  # fmt: skip
WITHOUT = click.option(
    "--without-attribute", "without", multiple=True, metavar="KEY", help="Remove an attribute."
)

FORMAT = click.option(
    "--format", "kind",
    type=click.Choice(["csv", "jsonl", "certificates"]),
    help="By default as the name's ending says; of -, JSON lines.",
)  # fmt: skip
