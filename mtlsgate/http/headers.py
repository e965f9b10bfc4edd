"""
Request headers for twisted.web that are forgotten with their request.

Twisted's own `Headers` remembers each name that it sees, of any length, for as long as the
process runs; and it writes names in a case of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from twisted.web.http_headers import Headers

from mtlsgate.http.fields import Line


class RequestHeaders(Headers):
    """
    The fields of one request, by name.

    :ivar _values: the name as it came and the values, by the name in lower case.
    """

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        super().__init__()
        self._values: dict[bytes, tuple[bytes, list[bytes]]] = {}
        for name, value in lines:
            self._values.setdefault(name.lower(), (name, []))[1].append(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._values.values())!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RequestHeaders):
            return self._all() == other._all()
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self)

    def _all(self) -> dict[bytes, list[bytes]]:
        return {lower: values for lower, (_, values) in self._values.items()}

    def copy(self) -> RequestHeaders:
        """:returns: the same fields, to be changed on their own."""
        return RequestHeaders(
            (name, value) for name, values in self._values.values() for value in values
        )

    def hasHeader(self, name: str | bytes) -> bool:
        """:returns: whether there is a field of that name."""
        return _octets(name).lower() in self._values

    def removeHeader(self, name: str | bytes) -> None:
        """Remove all fields of that name."""
        self._values.pop(_octets(name).lower(), None)

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        """Replace the fields of that name."""
        octets = _octets(name)
        self._values[octets.lower()] = octets, [_octets(one, "utf-8") for one in values]

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Add a field."""
        octets = _octets(name)
        self._values.setdefault(octets.lower(), (octets, []))[1].append(_octets(value, "utf-8"))

    def getRawHeaders(self, name: Any, default: Any = None) -> Any:
        """:returns: the values of the fields of that name, in the type that it has."""
        _, values = self._values.get(_octets(name).lower(), (b"", []))
        if not values:
            return default
        return [one.decode("utf-8") for one in values] if isinstance(name, str) else values

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """:returns: each name, as it first came, with its values."""
        return iter(list(self._values.values()))


def _octets(text: str | bytes, encoding: str = "iso-8859-1") -> bytes:
    return text.encode(encoding) if isinstance(text, str) else text
