"""
What a registry keeps in a Redis, and how it is read.

Under the registry's prefix::

    PREFIX:d:KEY    a hash for each device: state, not_before, not_after, note, attributes
    PREFIX:l:KEY    a sorted set for each limit that gates share: holders, by when they end

`mtlsgate.registry.fields` says how the fields are written.  Anyone with rights on the
server can write there: what cannot be understood is a device that is denied.
"""

from __future__ import annotations

from attrs import frozen

from mtlsgate.admission.devices import Device, is_key
from mtlsgate.registry.fields import FIELDS, FieldError, device_of, fields_of
from mtlsgate.registry.store import StoreError

#: The most bytes that a device's fields have together; the attributes as JSON included.
MOST_BYTES = 512 * 1024

_GLOB = str.maketrans({character: f"\\{character}" for character in r"*?[]^\\"})
_KNOWN = frozenset(name.encode() for name in FIELDS if name != "key")


@frozen
class Layout:
    """
    The names of a registry's keys.

    :ivar prefix: what all of them begin with.
    """

    prefix: str

    def __attrs_post_init__(self) -> None:
        if not is_key(self.prefix):
            raise StoreError("the registry's prefix must be printable and not too long")

    @property
    def devices(self) -> bytes:
        """What the key of each device begins with."""
        return f"{self.prefix}:d:".encode()

    @property
    def pattern(self) -> str:
        """A pattern of SCAN that matches the keys of all devices, and no others."""
        return f"{self.prefix}:d:".translate(_GLOB) + "*"

    def device(self, key: str) -> bytes:
        """
        :param key: of a device.
        :returns: the key of its hash.
        """
        # Keys are text, and what a certificate has may be half of a surrogate pair.
        return f"{self.prefix}:d:{key}".encode(errors="surrogatepass")

    def key(self, name: bytes) -> str | None:
        """
        :param name: the key of a hash.
        :returns: the device's key; None if the hash belongs to none.
        """
        if not name.startswith(self.devices):
            return None
        try:
            key = name[len(self.devices) :].decode()
        except UnicodeDecodeError:
            return None
        return key if is_key(key) else None

    def lease(self, key: str) -> bytes:
        """
        :param key: of what has a limit.
        :returns: the key of its sorted set.
        """
        return f"{self.prefix}:l:{key}".encode(errors="surrogatepass")


def flat_fields(device: Device) -> list[str]:
    """:returns: names and values in turns, without empty ones, as HSET takes them."""
    return [
        part
        for name, value in fields_of(device).items()
        if value not in ("", "{}")
        for part in (name, value)
    ]


def read_device(key: str, stored: object) -> Device | None:
    """
    :param key: of the device.
    :param stored: what HGETALL answers, in bytes.
    :returns: the device; denied, with a problem, if what is stored cannot be understood;
        None if nothing is stored.
    """
    if not isinstance(stored, dict):
        return Device.unreadable(key, "is no hash")
    if not stored:
        return None
    if sum(map(len, stored)) + sum(map(len, stored.values())) > MOST_BYTES:
        return Device.unreadable(key, f"has more than {MOST_BYTES} bytes")
    if unknown := stored.keys() - _KNOWN:
        return Device.unreadable(key, f"has {len(unknown)} fields of unknown names")
    try:
        return device_of(key, {name.decode(): text.decode() for name, text in stored.items()})
    except UnicodeDecodeError:
        return Device.unreadable(key, "is not in UTF-8")
    except FieldError as error:
        return Device.unreadable(key, str(error))
