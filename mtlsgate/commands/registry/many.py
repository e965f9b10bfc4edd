"""
``mtlsgate registry import`` and ``export``: from files to what `work` does, and back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import click

from mtlsgate.admission.devices import DeviceState
from mtlsgate.clock import utc_now
from mtlsgate.commands.registry import importing, progress
from mtlsgate.commands.registry.key_index import KeyIndex
from mtlsgate.commands.registry.naming import STANDARD, RegistryError
from mtlsgate.commands.registry.options import NEVER
from mtlsgate.commands.registry.session import Session
from mtlsgate.commands.registry.sources import CERTIFICATES, format_of, opened
from mtlsgate.commands.registry.work import Changes, HowToImport
from mtlsgate.errors import GateError
from mtlsgate.registry.formats import Format, Unstated
from mtlsgate.text import printable


def import_file(file: str, given: dict[str, Any], session: Session) -> None:
    """
    ``mtlsgate registry import``.

    :param given: the options.
    :raises RegistryError: if it cannot be done.
    """
    kind = format_of(file, given["kind"])
    done = importing.Imported()
    begun = time.monotonic()
    with (
        session.audited(given["audit_log"]) as trail,
        opened(file, kind, session.kind, _unstated(given)) as source,
        KeyIndex() as index,
        progress.shown() as bars,
    ):
        # Not in asyncio, where Ctrl-C would have to wait.
        done.devices = importing.checked(source, index, bars)

        def may_remove(count: int) -> bool:
            with bars.paused():
                return bool(given["yes"]) or _confirmed(session, count, file)

        how = HowToImport(_absolute(file), given["dry_run"], given["replace"], may_remove)
        changes = Changes(session, trail, click.echo, utc_now)
        try:
            asyncio.run(changes.import_(source, index, how, bars, done))
        except (GateError, KeyboardInterrupt) as error:
            if not done.written or done.is_complete:
                raise
            why = str(error) or "interrupted"
            raise RegistryError(
                f"{why}\nat least {done.written:,} of {done.devices:,} devices are written; "
                "the same import again does the rest"
            ) from None
    click.echo(_summary(session.name, done, given["dry_run"], time.monotonic() - begun))


def _unstated(given: dict[str, Any]) -> Unstated:
    def limit(said: Any) -> Any:
        return None if said == NEVER else said

    return Unstated(
        DeviceState(given["state"]),
        limit(given["not_before"]),
        limit(given["not_after"]),
        given["note"] or "",
        given["attributes"],
    )


def _absolute(file: str) -> str:
    return file if file == STANDARD else str(Path(file).absolute())


def _confirmed(session: Session, count: int, file: str) -> bool:
    """:raises RegistryError: if nobody can be asked."""
    what = f"{_devices(count)} of registry {session.name} not in {printable(file)}"
    if not _is_asked(file):
        raise RegistryError(f"{what}: confirm the removal by --yes")
    return click.confirm(f"{what}: remove?", err=True)


def _is_asked(file: str) -> bool:
    """:returns: whether somebody is there who can be asked."""
    return file != STANDARD and sys.stdin.isatty()


def _summary(name: str, done: importing.Imported, is_trial: bool, seconds: float) -> str:
    same = done.devices - done.added - done.changed
    counts = [f"{done.added:,} added", f"{done.changed:,} changed", f"{same:,} as before"]
    if done.removed:
        counts.append(f"{done.removed:,} removed")
    what = f"{printable(name)}: {_devices(done.devices)}: {', '.join(counts)}"
    if is_trial:
        again = ""
        if done.readmitted:
            again = f"; {done.readmitted:,} of these are denied now and would be active"
        return f"{what}{again} (dry run, nothing is written)"
    return f"{what}, in {seconds:.1f} s"


def _devices(count: int) -> str:
    return f"{count:,} device{'' if count == 1 else 's'}"


def export_file(file: str, given: str | None, session: Session) -> None:
    """
    ``mtlsgate registry export``.

    :param given: the format, or None.
    :raises RegistryError: if it cannot be done.
    """
    kind = format_of(file, given)
    if kind == CERTIFICATES:
        raise RegistryError("an export has no certificates: --format csv or jsonl")

    async def work(stream: TextIO) -> importing.Exported:
        with progress.shown() as bars:
            async with session.store() as store:
                return await importing.export(store, session.kind, Format(kind), stream.write, bars)

    with _written(file) as stream:
        done = asyncio.run(work(stream))
    for key, why in done.problems:
        click.echo(f"{printable(key)}: {why}", err=True)
    more = done.problem_count - len(done.problems)
    if more:
        click.echo(f"and {more:,} more", err=True)
    if file != STANDARD:
        click.echo(f"{printable(session.name)}: {_devices(done.devices)}")


@contextmanager
def _written(file: str) -> Iterator[TextIO]:
    """
    :returns: a file that is there when the block ends, whole, and not before.
    :raises RegistryError: if it cannot be written.
    """
    if file == STANDARD:
        stream = TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        yield stream
        stream.detach()
        return
    path = Path(file)
    try:
        # Readable by its owner alone, as devices and their notes are nobody else's business.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as stream:
                yield stream
            os.replace(name, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
    except OSError as error:
        raise RegistryError(f"{printable(file)}: cannot be written: {error.strerror}") from None
