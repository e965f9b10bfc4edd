"""
What a command makes of a device, and how it stands: pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from attrs import evolve, field, frozen

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.registry.fields import instant_text
from mtlsgate.registry.formats import refuse_empty_time
from mtlsgate.text import printable


@frozen
class Keep:
    """To leave a field as it is."""


KEEP = Keep()


@frozen(kw_only=True)
class Edit:
    """
    What a command states of a device.

    :ivar state: the new state.
    :ivar not_before: the new beginning; None for none.
    :ivar not_after: the new end; None for none.
    :ivar note: the new note, or None to keep it.
    :ivar attributes: those to add or replace.
    :ivar without: those to remove.
    """

    state: DeviceState
    not_before: datetime | Keep | None = KEEP
    not_after: datetime | Keep | None = KEEP
    note: str | None = None
    attributes: Mapping[str, str] = field(factory=dict)
    without: frozenset[str] = frozenset()

    def applied(self, key: str, before: Device | None) -> Device:
        """
        :param before: the device as it is listed, or None.
        :returns: what is to be listed.
        :raises FieldError: if there would be no time at which it may come in.
        """
        device = Device(key) if before is None else before
        kept = {name: device.attributes[name] for name in device.attributes.keys() - self.without}
        after = evolve(
            device,
            state=self.state,
            not_before=device.not_before if isinstance(self.not_before, Keep) else self.not_before,
            not_after=device.not_after if isinstance(self.not_after, Keep) else self.not_after,
            note=device.note if self.note is None else self.note,
            attributes={**kept, **self.attributes},
            problem="",
        )
        refuse_empty_time(after)
        return after


def change_line(before: Device | None, after: Device | None) -> str:
    """:returns: the key and everything that differs, in one line, safe for a terminal."""
    key = (before or after or Device("")).key
    states = (
        "not listed" if before is None else before.state.value,
        "not listed" if after is None else after.state.value,
    )
    details = () if after is None else details_of(before, after)
    return f"{printable(key)}: {', '.join((' -> '.join(dict.fromkeys(states)), *details))}"


def details_of(before: Device | None, after: Device) -> Iterator[str]:
    """:returns: for each field that differs, but for the state, its name and both values,
    safe for a terminal."""
    old, new = {} if before is None else described(before), described(after)
    for name in dict.fromkeys((*old, *new)):
        if name == "state" or old.get(name) == new.get(name):
            continue
        if name not in new:
            yield f"no {name}"
        else:
            yield " -> ".join(
                [f"{name} {old[name]}", new[name]] if name in old else [f"{name} {new[name]}"]
            )


def described(device: Device) -> dict[str, str]:
    """:returns: the fields that are stated, but for the key, safe for a terminal."""
    found = {"state": device.state.value}
    if device.problem:
        found["problem"] = printable(device.problem)
    if device.not_before is not None:
        found["not_before"] = instant_text(device.not_before)
    if device.not_after is not None:
        found["not_after"] = instant_text(device.not_after)
    if device.note:
        found["note"] = f'"{printable(device.note)}"'
    for name in sorted(device.attributes):
        found[f"attributes.{name}"] = f'"{printable(device.attributes[name])}"'
    return found
