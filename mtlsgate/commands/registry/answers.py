"""
How devices stand: what the gate would say of them, and what is listed of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from attrs import frozen

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.commands.registry.changing import described
from mtlsgate.commands.registry.naming import Named
from mtlsgate.registry.fields import instant_text
from mtlsgate.text import printable

NOT_REGISTERED, DENIED = "not_registered", "registry_denied"


@frozen
class Standing:
    """
    What a rule with ``registry`` makes of a client.

    :ivar named: the client.
    :ivar reason: why it would be rejected; None if not.
    :ivar detail: what the answer follows from, safe for a terminal.
    """

    named: Named
    reason: str | None
    detail: str

    def __str__(self) -> str:
        return f"{self.reason or 'active'}: {self.detail}{self.named.suffix}"

    def to_dict(self) -> dict[str, object]:
        """:returns: the answer, for JSON."""
        return {
            "keys": list(self.named.keys),
            "subject": self.named.subject or None,
            "active": self.reason is None,
            "reason": self.reason,
            "detail": self.detail,
        }


def standing(named: Named, found: Mapping[str, Device], now: datetime) -> Standing:
    """
    :param found: the listed devices by their keys.
    :returns: how a client stands, if it has these keys: one that is denied keeps it out, and
        otherwise one that is active lets it in.
    """
    listed = [found[key] for key in named.keys if key in found]
    for device in listed:
        if device.state is not DeviceState.ACTIVE:
            why = f": {printable(device.problem)}" if device.problem else ""
            return Standing(named, DENIED, f"{printable(device.key)} is denied{why}")
    reasons = []
    for device in listed:
        if device.not_before is not None and now < device.not_before:
            reasons.append(f"{printable(device.key)} from {instant_text(device.not_before)}")
        elif device.not_after is not None and now > device.not_after:
            reasons.append(f"{printable(device.key)} until {instant_text(device.not_after)}")
        else:
            return Standing(named, None, f"{printable(device.key)} is listed")
    if reasons:
        return Standing(named, NOT_REGISTERED, f"is listed only as {', '.join(reasons)}")
    verb = "is" if len(named.keys) == 1 else "are"
    return Standing(
        named, NOT_REGISTERED, f"{', '.join(map(printable, named.keys))} {verb} not listed"
    )


def shown(named: Named, found: Mapping[str, Device]) -> Iterator[str]:
    """:returns: all that is listed of a client, in lines that are safe for a terminal."""
    for key in named.keys:
        device = found.get(key)
        yield f"{printable(key)}{named.suffix}"
        fields = {"state": "not listed"} if device is None else described(device)
        width = max(map(len, fields))
        for name, text in fields.items():
            yield f"  {name:{width}}  {text}"
