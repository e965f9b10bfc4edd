"""
What the commands do, in asyncio: from a session to lines for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from attrs import evolve, frozen

from mtlsgate.admission.devices import Device
from mtlsgate.commands.registry import importing
from mtlsgate.commands.registry.audit_trail import AuditTrail, operator
from mtlsgate.commands.registry.changing import Edit, change_line, details_of
from mtlsgate.commands.registry.key_index import KeyIndex
from mtlsgate.commands.registry.naming import Named, RegistryError
from mtlsgate.commands.registry.session import Session
from mtlsgate.commands.registry.sources import Source
from mtlsgate.commands.registry.watching import in_json, in_words, watch
from mtlsgate.gate.events import RegistryChange
from mtlsgate.registry.fields import FieldError
from mtlsgate.registry.store import StoreError, Written
from mtlsgate.text import printable

Say = Callable[[str], object]


@frozen
class HowToImport:
    """
    How an import is done.

    :ivar file: what the user calls the source.
    :ivar is_trial: whether nothing is to be written.
    :ivar replace: whether what the source does not have is to be removed.
    :ivar may_remove: asks whether so many may be removed.
    """

    file: str
    is_trial: bool
    replace: bool
    may_remove: Callable[[int], bool]


@frozen
class Changes:
    """
    The changes of one command.

    :ivar session: the registry that it works on.
    :ivar trail: where its changes are recorded.
    :ivar say: prints a line.
    :ivar now: the clock.
    """

    session: Session
    trail: AuditTrail
    say: Say
    now: Callable[[], datetime]

    async def edit(self, action: str, named: Sequence[Named], edit: Edit) -> None:
        """
        Add or change devices, each by itself.

        :param action: the command's name.
        :raises RegistryError: if the store or the audit log fails; what was said is done.
        """
        async with self.session.store() as store:
            for one in named:
                found = await store.find(one.keys)
                for key in one.keys:
                    before = found.get(key)
                    after = _applied(edit, key, before)
                    change = self._change(action, one, key, before, after)
                    if not await self._record(change, before == after, store.put([after])):
                        self.say(f"{printable(key)}: {after.state.value}, as before{one.suffix}")
                        continue
                    self.say(change_line(before, after) + one.suffix)

    async def remove(self, named: Sequence[Named], note: str) -> None:
        """
        Remove devices.

        :param note: why, for the audit log; may be empty.
        :raises RegistryError: as `edit`.
        """
        async with self.session.store() as store:
            for one in named:
                found = await store.find(one.keys)
                for key in one.keys:
                    before = found.get(key)
                    change = self._change("remove", one, key, before, None)
                    if note:
                        change = evolve(change, details=(f'note "{printable(note)}"',))
                    if not await self._record(change, before is None, store.remove([key])):
                        self.say(f"{printable(key)}: not listed, as before{one.suffix}")
                        continue
                    self.say(change_line(before, None) + one.suffix)

    async def _record(
        self, change: RegistryChange, is_so: bool, making: Awaitable[Written | int]
    ) -> bool:
        """
        Make a change, and write it to the audit log.

        :param is_so: whether the store has it so already.  It is written all the same: a
            failover could lose what is there, if whoever wrote it was told so.
        :returns: whether it has changed anything.
        """
        try:
            done = await making
        except StoreError:
            # Nobody knows whether it was done.
            if not is_so:
                self.trail.write(evolve(change, is_complete=False))
            raise
        if is_so and done in (0, Written()):
            return False
        self.trail.write(change)
        return True

    async def import_(
        self,
        source: Source,
        index: KeyIndex,
        how: HowToImport,
        progress: importing.Progress,
        done: importing.Imported,
    ) -> None:
        """
        Write the devices of a source that is `importing.checked`.

        :param index: their keys.
        :param done: gets what was done, or would be, also if this is interrupted.
        :raises RegistryError: if the user does not want it after all, or if the store or the
            audit log fails.
        """
        async with self.session.store() as store:
            with KeyIndex() as others:
                if how.replace:
                    await importing.find_others(store, index, others, progress)
                if how.is_trial:
                    for line in await importing.compare(source, store, progress, done):
                        self.say(line)
                    done.removed = len(others)
                    return
                if len(others) and not how.may_remove(len(others)):
                    raise RegistryError("nothing has been written")
                each: list[RegistryChange] = []
                if len(index) + len(others) <= importing.MOST_RECORDED:
                    for key, before, after in await importing.changes(source, others, store):
                        change = self._change("import", Named((key,)), key, before, after)
                        each.append(evolve(change, file=how.file))
                try:
                    await importing.put(source, store, progress, done)
                    await importing.remove(others, store, progress, done)
                    done.is_complete = True
                finally:
                    # Also if nobody knows whether anything was written.
                    if done.is_begun or done.is_complete:
                        for change in each:
                            self.trail.write(evolve(change, is_complete=done.is_complete))
                        self.trail.write(self._imported(source, how.file, done))

    def _imported(self, source: Source, file: str, done: importing.Imported) -> RegistryChange:
        return RegistryChange(
            at=self.now(),
            action="import",
            who=operator(),
            registry=self.session.name,
            file=file,
            sha256=source.digest() if done.is_complete else None,
            devices=done.devices,
            added=done.added,
            changed=done.changed,
            removed=done.removed,
            is_complete=done.is_complete,
        )

    def _change(
        self, action: str, one: Named, key: str, before: Device | None, after: Device | None
    ) -> RegistryChange:
        return RegistryChange(
            at=self.now(),
            action=action,
            who=operator(),
            registry=self.session.name,
            key=key,
            subject=one.subject or None,
            before=None if before is None else before.state.value,
            after=None if after is None else after.state.value,
            details=() if after is None else tuple(details_of(before, after)),
            added=int(before is None),
            changed=int(before is not None and after is not None),
            removed=int(after is None),
        )


def _applied(edit: Edit, key: str, before: Device | None) -> Device:
    try:
        return edit.applied(key, before)
    except FieldError as error:
        raise RegistryError(f"{printable(key)}: {error}") from None


def look_up(session: Session, named: Sequence[Named]) -> Mapping[str, Device]:
    """
    :returns: what is listed of them, by keys.
    :raises RegistryError: if the store fails.
    """

    async def find() -> Mapping[str, Device]:
        async with session.store() as store:
            return await store.find(list(dict.fromkeys(key for one in named for key in one.keys)))

    return asyncio.run(find())


async def watched(session: Session, as_json: bool, say: Say) -> None:
    """
    Print what changes, for ever.

    :raises RegistryError: if the store cannot be opened; if it fails later, that is printed.
    """
    # An outage is noticed when a gate notices it.
    async with session.store(patience=0) as store:
        async for event in watch(store):
            say(in_json(event) if as_json else in_words(event, session.registry.place))
