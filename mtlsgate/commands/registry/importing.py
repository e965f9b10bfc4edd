"""
``mtlsgate registry import`` and ``export``: many devices, in memory that does not grow
with them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from attrs import define, frozen

from mtlsgate.admission.devices import Device, DeviceState, KeyKind
from mtlsgate.commands.registry.changing import change_line
from mtlsgate.commands.registry.key_index import KeyIndex, batches
from mtlsgate.commands.registry.naming import RegistryError
from mtlsgate.commands.registry.sources import Source
from mtlsgate.registry.fields import key_problem
from mtlsgate.registry.formats import Fault, Format, head, write
from mtlsgate.registry.store import Store

#: How many devices are written at once.
BATCH = 2000
#: How many are asked for at once.
QUESTIONS = 500
#: An import of more devices has no line for each in the audit log.
MOST_RECORDED = 1000
#: How many faults of a file are told, and how many changes of a dry run.
MOST_TOLD = 20


class Progress(Protocol):
    """Shows how far a long work is."""

    def begin(self, what: str, total: int) -> None:
        """:param total: how much there is to do, perhaps roughly."""

    def advance(self, count: int) -> None:
        """:param count: how much has just been done."""

    def paused(self) -> AbstractContextManager[object]:
        """Show nothing until the block ends, in which a question is asked."""


@define
class Imported:
    """
    What an import did.

    :ivar devices: how many the source has.
    :ivar added: how many of them were not listed.
    :ivar changed: how many were listed, and differ.
    :ivar readmitted: how many of these were denied, and are no more; only of a dry run.
    :ivar removed: how many others were listed, and are no more.
    :ivar written: how many have been written so far, changed or not.
    :ivar is_begun: whether something may have been written or removed.
    :ivar is_complete: whether all was done.
    """

    devices: int = 0
    added: int = 0
    changed: int = 0
    readmitted: int = 0
    removed: int = 0
    written: int = 0
    is_begun: bool = False
    is_complete: bool = False


def checked(source: Source, index: KeyIndex, progress: Progress) -> int:
    """
    Read a source to its end.

    :param index: gets the keys, with their lines.
    :returns: how many devices it has.
    :raises RegistryError: with the faults in it, if there are any.
    """
    faults = _Faults()
    progress.begin("checking", source.size)
    good = _good(source, faults, progress)
    for batch in batches(good, BATCH):
        are_new = index.add([(device.key, line) for line, device in batch])
        if not (are_new or source.repeats):
            for line, device in batch:
                if (first := index.value(device.key)) != line:
                    faults.add(f"{source.place(line)}: key: is that of line {first}, too")
    faults.refuse()
    return len(index)


async def put(source: Source, store: Store, progress: Progress, done: Imported) -> None:
    """
    Write the devices of a source that is `checked`.

    :param done: is kept up to date, so that it is right if this is interrupted.
    :raises RegistryError: if the source has changed meanwhile.
    :raises StoreError: if the store fails.
    """
    progress.begin("writing", done.devices)
    for batch in batches(_again(source), BATCH):
        done.is_begun = True
        # Certificates may name a device twice, which is then the same both times.
        written = await store.put(list({device.key: device for device in batch}.values()))
        done.written += len(batch)
        done.added += written.added
        done.changed += written.changed
        progress.advance(len(batch))


async def compare(source: Source, store: Store, progress: Progress, done: Imported) -> list[str]:
    """
    Like `put`, but nothing is written.

    :returns: the first of the changes that it would make, in a line each.
    """
    progress.begin("comparing", done.devices)
    told: list[str] = []
    seen = 0
    for batch in batches(_again(source), QUESTIONS):
        new = {device.key: device for device in batch}
        old = await store.find(new.keys())
        for key, device in new.items():
            before = old.get(key)
            if before == device:
                continue
            if before is None:
                done.added += 1
            else:
                done.changed += 1
                done.readmitted += (
                    before.state is DeviceState.DENIED and device.state is not DeviceState.DENIED
                )
            if len(told) < MOST_TOLD:
                told.append(change_line(before, device))
            seen += 1
        progress.advance(len(batch))
    return [*told, f"and {seen - MOST_TOLD} more"] if seen > MOST_TOLD else told


async def changes(
    source: Source, others: KeyIndex, store: Store
) -> list[tuple[str, Device | None, Device | None]]:
    """
    For an import of a few.

    :param others: the keys of those that it removes.
    :returns: the key of each device that it changes, what the store has, and what it will have.
    :raises StoreError: if the store fails.
    """
    new: dict[str, Device | None] = {device.key: device for device in _again(source)}
    new.update((key, None) for key, _ in others)
    found: list[tuple[str, Device | None, Device | None]] = []
    for keys in batches(new, QUESTIONS):
        old = await store.find(keys)
        found += [(key, old.get(key), new[key]) for key in keys if old.get(key) != new[key]]
    return found


async def find_others(store: Store, index: KeyIndex, others: KeyIndex, progress: Progress) -> int:
    """
    :param index: the keys of a source.
    :param others: gets the keys of those devices of the store that are not in it.
    :returns: how many these are.
    :raises StoreError: if the store fails.
    """
    progress.begin("looking for others", await store.count())
    async for batch in _batches_of(store):
        strange = [device.key for device in batch if index.value(device.key) is None]
        others.add([(key, None) for key in strange])
        progress.advance(len(batch))
    return len(others)


async def remove(others: KeyIndex, store: Store, progress: Progress, done: Imported) -> None:
    """
    Remove the devices with these keys.

    :raises StoreError: if the store fails.
    """
    progress.begin("removing", len(others))
    for batch in batches((key for key, _ in others), BATCH):
        done.is_begun = True
        done.removed += await store.remove(batch)
        progress.advance(len(batch))


@frozen
class Exported:
    """
    What an export has.

    :ivar devices: how many.
    :ivar problems: of the first of those that no gate finds, or understands: the key and why.
    :ivar problem_count: how many these are.
    """

    devices: int
    problems: tuple[tuple[str, str], ...]
    problem_count: int


async def export(
    store: Store, keys: KeyKind, kind: Format, say: Callable[[str], object], progress: Progress
) -> Exported:
    """
    Write all devices, sorted by their keys, so that two exports can be compared.

    :param keys: what gates find devices by.
    :param say: writes text.
    :raises StoreError: if the store fails; nothing has been said then.
    """
    progress.begin("reading", await store.count())
    problems: list[tuple[str, str]] = []
    count = 0
    with KeyIndex() as rows:
        async for batch in _batches_of(store):
            # A store may say a device twice while others come and go.
            rows.add([(device.key, write(kind, [device])) for device in batch])
            found = [(device.key, why) for device in batch if (why := _problem(keys, device))]
            count += len(found)
            problems += found[: MOST_TOLD - len(problems)]
            progress.advance(len(batch))
        say(head(kind))
        progress.begin("writing", len(rows))
        for some in batches((str(text) for _, text in rows), BATCH):
            say("".join(some))
            progress.advance(len(some))
        return Exported(len(rows), tuple(problems), count)


def _problem(keys: KeyKind, device: Device) -> str:
    if device.problem:
        return "what is listed cannot be understood; here it is denied"
    why = key_problem(keys, device.key)
    return f"no client is found by it: {why}" if why else ""


async def _batches_of(store: Store) -> AsyncIterator[list[Device]]:
    batch: list[Device] = []
    async for device in store.devices():
        batch.append(device)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _again(source: Source) -> Iterator[Device]:
    for line, found in source.rows(_nothing):
        if isinstance(found, Fault):
            place = source.place(line)
            raise RegistryError(f"{place}: {found.text}; it has changed since it was checked")
        yield found


def _nothing(_: int) -> None:
    pass


def _good(source: Source, faults: _Faults, progress: Progress) -> Iterator[tuple[int, Device]]:
    for line, found in source.rows(progress.advance):
        if isinstance(found, Fault):
            faults.add(f"{source.place(line)}: {found.text}")
        else:
            yield line, found


class _Faults:
    """The first faults of a source, and how many more there are."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = 0

    def add(self, line: str) -> None:
        """Add a line."""
        if len(self.lines) < MOST_TOLD:
            self.lines.append(line)
        else:
            self._more += 1

    def refuse(self) -> None:
        """:raises RegistryError: if there is any."""
        if self.lines:
            more = [f"and {self._more} more"] if self._more else []
            raise RegistryError("\n".join([*self.lines, *more, "nothing has been written"]))
