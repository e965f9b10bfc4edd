"""
The fields of a device as text, which is how stores and files have them.

What somebody wrote by hand is read strictly: what is not clear is an error, never a
device.  Errors do not repeat the text, which may be long or hostile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from mtlsgate.admission.conditions import read_value
from mtlsgate.admission.devices import LONGEST_KEY, Device, DeviceState, KeyKind, is_key
from mtlsgate.certificates.server_names import canonical
from mtlsgate.text import printable

#: In the order in which they are written.
FIELDS = ("key", "state", "not_before", "not_after", "note", "attributes")

#: The longest note, in characters.
LONGEST_NOTE = 4096
#: How many attributes a device may have.
MOST_ATTRIBUTES = 64
#: The longest value of an attribute, in characters.
LONGEST_VALUE = 1024
#: The longest names and values of one device, in characters together.
LONGEST_ATTRIBUTES = 16384
#: The name of an attribute, as in ``peer.attributes.NAME``.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STATES: Mapping[str, DeviceState] = {state.value: state for state in DeviceState}


class FieldError(ValueError):
    """A field that cannot be understood; one line that begins with the field's name."""


def read_key(kind: KeyKind, text: str) -> str:
    """
    :param text: a key as a person writes it: a digest may have colons and capitals.
    :returns: the key as `mtlsgate.admission.devices.keys_of` has it.
    :raises FieldError: if no client could have that key.
    """
    if kind in (KeyKind.IDENTITY, KeyKind.SHA256, KeyKind.SPKI_SHA256):
        if _DIGEST.fullmatch(text):
            return text
        try:
            return str(read_value("spki_sha256" if kind is KeyKind.SPKI_SHA256 else "sha256", text))
        except ValueError:
            raise FieldError(f"key: is no {kind.value}: 64 hex digits") from None
    if not is_key(text):
        if len(text) > LONGEST_KEY:
            raise FieldError(f"key: is longer than {LONGEST_KEY} characters")
        raise FieldError("key: has characters that cannot be printed" if text else "key: is empty")
    if kind is KeyKind.SPIFFE_ID and not text.startswith("spiffe://"):
        raise FieldError("key: is no SPIFFE ID: it begins with spiffe://")
    return _read_dns_name(text) if kind is KeyKind.DNS_NAME else text


def _read_dns_name(text: str) -> str:
    # RFC 4343: DNS names are the same in either case.
    name = canonical(text)
    if not name:
        raise FieldError("key: is no DNS name")
    if not name.isascii():
        raise FieldError(
            "key: is not ASCII: write an internationalized name with its A-labels, xn--…"
        )
    return name


def key_problem(kind: KeyKind, key: str) -> str:
    """:returns: why no client can be found by a key that is in a store, in one line; or ""."""
    try:
        right = read_key(kind, key)
    except FieldError as error:
        return str(error)
    return "" if right == key else f"key: write it as {printable(right)}"


def read_state(text: str) -> DeviceState:
    """:raises FieldError: if it is no state."""
    try:
        return _STATES[text]
    except KeyError:
        raise FieldError('state: must be "active" or "denied"') from None


def instant_text(at: datetime) -> str:
    """
    :param at: aware.
    :returns: RFC 3339, in UTC; with a fraction of a second only if it has one.
    """
    return at.astimezone(UTC).isoformat()[:-6] + "Z"


def read_instant(name: str, text: str) -> datetime:
    """
    :param name: of the field, for the error.
    :param text: RFC 3339.
    :raises FieldError: if it is none.
    """
    if _INSTANT.fullmatch(text):
        try:
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise FieldError(f"{name}: is no instant: write it as 2027-01-31T12:00:00Z")


def read_note(text: str) -> str:
    """:raises FieldError: if no store could keep it."""
    if len(text) > LONGEST_NOTE:
        raise FieldError(f"note: is longer than {LONGEST_NOTE} characters")
    if not _is_storable(text):
        raise FieldError(f"note: {_UNSTORABLE}")
    return text


def attributes_text(attributes: Mapping[str, str]) -> str:
    """:returns: a JSON object, with its names sorted; equal for equal attributes."""
    return _encode(dict(attributes)) if attributes else "{}"


def parse_attributes(text: str) -> dict[str, str]:
    """
    :param text: a JSON object with strings.
    :raises FieldError: if it is anything else.
    """
    if text == "{}":
        return {}
    try:
        found = _decode(text)
    except (ValueError, RecursionError) as error:
        raise FieldError(f"attributes: is no JSON object: {error}") from None
    return read_attributes(found)


def read_attributes(found: object) -> dict[str, str]:
    """:raises FieldError: if these are not names with texts, or are too many or too long."""
    if not isinstance(found, dict):
        raise FieldError('attributes: must be an object, as {"tenant": "north"}')
    if len(found) > MOST_ATTRIBUTES:
        raise FieldError(f"attributes: are more than {MOST_ATTRIBUTES}")
    for name, value in found.items():
        if not _NAME.fullmatch(name):
            raise FieldError(
                "attributes: a name has letters, digits, _ and -, begins with a letter or _, "
                "and has at most 64 characters"
            )
        if not isinstance(value, str):
            raise FieldError(f"attributes: {name}: must be a text, in quotes")
        if len(value) > LONGEST_VALUE:
            raise FieldError(f"attributes: {name}: is longer than {LONGEST_VALUE} characters")
        if not _is_storable(value):
            raise FieldError(f"attributes: {name}: {_UNSTORABLE}")
    if sum(len(name) + len(value) for name, value in found.items()) > LONGEST_ATTRIBUTES:
        raise FieldError(f"attributes: are longer than {LONGEST_ATTRIBUTES} characters together")
    return found


def device_of(key: str, fields: Mapping[str, str]) -> Device:
    """
    :param fields: the others, as a store has them; "" or missing is as if not stated, but
        for the state.
    :returns: the device.
    :raises FieldError: if a field cannot be understood.
    """
    not_before, not_after = fields.get("not_before"), fields.get("not_after")
    return Device(
        key,
        read_state(fields.get("state", "")),
        read_instant("not_before", not_before) if not_before else None,
        read_instant("not_after", not_after) if not_after else None,
        read_note(fields.get("note", "")),
        parse_attributes(fields.get("attributes") or "{}"),
    )


def fields_of(device: Device) -> dict[str, str]:
    """:returns: all fields but the key, as text; what is not stated is ""."""
    return {
        "state": device.state.value,
        "not_before": "" if device.not_before is None else instant_text(device.not_before),
        "not_after": "" if device.not_after is None else instant_text(device.not_after),
        "note": device.note,
        "attributes": attributes_text(device.attributes),
    }


def unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """
    For ``json.loads``, which lets the last of several equal names win.

    :raises ValueError: if a name is there twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


_decode = json.JSONDecoder(object_pairs_hook=unique_pairs).decode
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_UNSTORABLE = "has a NUL character, or half of a surrogate pair"


def _is_storable(text: str) -> bool:
    """:returns: whether UTF-8 has it, and PostgreSQL's text."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
