"""
The answers of the admin endpoint, as values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus

from attrs import frozen

from mtlsgate.observe.status_value import StatusValue

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@frozen
class Answer:
    """
    :ivar status: the HTTP status.
    :ivar body: the content.
    :ivar content_type: its media type.
    :ivar headers: further headers.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class BadRequest(Exception):
    """A request with a mistake; the text names it in one line."""


class Starting(Exception):
    """The gate does not run yet."""


def in_json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """:returns: the value, for people to read."""
    return Answer(status, json.dumps(value, indent=2).encode() + b"\n")


def listed(name: str, values: Iterable[StatusValue], **rest: object) -> Answer:
    """:returns: an object with a list. One line an item is quicker than indenting."""
    lines = ",\n".join(json.dumps(one.to_dict()) for one in values)
    others = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in rest.items())
    return Answer(HTTPStatus.OK, f'{{"{name}": [\n{lines}\n]{others}}}\n'.encode())


def error(status: HTTPStatus, text: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """:returns: what is wrong, in one line."""
    body = json.dumps({"error": text}, indent=2).encode() + b"\n"
    return Answer(status, body, headers=tuple(headers))
