"""
HTML forms out of request bodies: pure, linear in cost, and bounded.
"""

from __future__ import annotations

import re

from twisted.web.http import parse_qs

from mtlsgate.http.refusal import Refusal

#: Fields or parts of one form.
MAX_FIELDS = 1000
#: In bytes.  Decoding costs a step for each escape, and a form may be nothing else.
MAX_URLENCODED = 128 * 1024
_MAX_PART_HEAD = 8 * 1024
_URLENCODED = b"application/x-www-form-urlencoded"
_MULTIPART = b"multipart/form-data"
_BOUNDARY = re.compile(rb';[ \t]*boundary=(?:"([^"]{1,70})"|([^;," \t]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"content-disposition:[ \t]*form-data[ \t]*(;.*)", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*([^=;" \t]+)=(?:"((?:[^"\\]|\\.)*+)"|([^;" \t]*))[ \t]*')
_ESCAPE = re.compile(rb"\\(.)")

Form = dict[bytes, list[bytes]]


def is_form(content_type: bytes) -> bool:
    """:returns: whether a body of that type is a form."""
    return _kind(content_type) in (_URLENCODED, _MULTIPART)


def longest_form(content_type: bytes, limit: int) -> int:
    """:returns: how many bytes a form of that type may have, if any may have so many."""
    return min(limit, MAX_URLENCODED) if _kind(content_type) == _URLENCODED else limit


def read_form(content_type: bytes, body: bytes) -> Form:
    """
    :param content_type: one that `is_form` knows.
    :param body: no longer than `longest_form` says.
    :returns: the values of each field; of files, their content.
    :raises Refusal: if it is no form, or has too many fields.
    """
    if _kind(content_type) == _MULTIPART:
        return _read_multipart(content_type, body)
    if body.count(b"&") + body.count(b";") >= MAX_FIELDS:
        raise Refusal(413, f"the form has more than {MAX_FIELDS} fields")
    found: Form = parse_qs(body, 1)
    return found


def _kind(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def _read_multipart(content_type: bytes, body: bytes) -> Form:
    """RFC 7578, 4."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Refusal(400, "the form's type names no boundary")
    delimiter = b"\r\n--" + (found[1] or found[2])
    body = b"\r\n" + body
    if body.count(delimiter) > MAX_FIELDS + 1:
        raise Refusal(413, f"the form has more than {MAX_FIELDS} fields")
    # What comes before the first delimiter and after the last means nothing.
    _, *parts = body.split(delimiter)
    form: Form = {}
    for part in parts:
        if part.startswith(b"--"):
            return form
        end = part.find(b"\r\n\r\n", 0, _MAX_PART_HEAD)
        name = _part_name(part[:end]) if end >= 0 else None
        if name is None:
            raise Refusal(400, "a part of the form has no name")
        form.setdefault(name, []).append(part[end + 4 :])
    raise Refusal(400, "the form has no end")


def _part_name(head: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        disposition = _DISPOSITION.fullmatch(line)
        if disposition is not None:
            return _parameter(disposition[1], b"name")
    return None


def _parameter(text: bytes, name: bytes) -> bytes | None:
    """:returns: the value of a parameter; one after the other, because the value of another
    may look like it."""
    found = _PARAMETER.match(text)
    while found is not None:
        if found[1].lower() == name:
            return found[3] if found[2] is None else _ESCAPE.sub(rb"\1", found[2])
        found = _PARAMETER.match(text, found.end())
    return None
