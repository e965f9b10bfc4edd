"""
The bodies of the functions that make text of text.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

from mtlsgate.config.source import relative_to_file
from mtlsgate.config.values import (
    LONGEST,
    Data,
    Value,
    as_number,
    failure,
    items_of,
    joined,
    kind_of,
    text_of,
    whole_of,
)
from mtlsgate.errors import CredentialError

ReadFile = Callable[[str], bytes]


def base64_decode(text: Value) -> Data:
    try:
        octets = b64decode("".join(text_of(text).split()), validate=True)
    except ValueError:
        raise failure(
            text.at, "this is not base64; it takes A-Z a-z 0-9 + / and = padding"
        ) from None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise failure(
            text.at, "what this base64 encodes is not UTF-8 text; use a ..._file attribute for it"
        ) from None


def base64_encode(text: Value) -> Data:
    return b64encode(text_of(text).encode(errors="surrogateescape")).decode("ascii")


def _read(read_file: ReadFile, path: Value) -> bytes:
    try:
        return read_file(relative_to_file(text_of(path), path.at))
    except CredentialError as error:
        raise failure(path.at, f"the file {error}; its path is relative to this one") from None


def file(read_file: ReadFile, path: Value) -> Data:
    try:
        return _read(read_file, path).decode()
    except UnicodeDecodeError:
        raise failure(
            path.at, "the file is not UTF-8 text; use filebase64, or a ..._file attribute for it"
        ) from None


def filebase64(read_file: ReadFile, path: Value) -> Data:
    return b64encode(_read(read_file, path)).decode("ascii")


def join(separator: Value, *lists: Value) -> Data:
    items = [item for one in lists for item in items_of(one)]
    return joined(items, "what is joined", text_of(separator))


def split(separator: Value, text: Value) -> Data:
    whole, mark = text_of(text), text_of(separator)
    # As in HCL, an empty separator splits into characters.
    return tuple(Value(piece, text.at) for piece in (whole.split(mark) if mark else whole))


def replace(text: Value, old: Value, new: Value) -> Data:
    whole, before, after = text_of(text), text_of(old), text_of(new)
    if not before:
        raise failure(old.at, "what is replaced must not be empty")
    if len(whole) + whole.count(before) * (len(after) - len(before)) > LONGEST:
        raise failure(text.at, "the text that this makes is too long")
    return whole.replace(before, after)


def substr(text: Value, offset: Value, length: Value) -> Data:
    whole, count = text_of(text), whole_of(length)
    start = whole_of(offset)
    if start < 0:
        start = max(0, start + len(whole))
    if count < -1:
        raise failure(length.at, "a length is 0 or more, or -1 for all that is left")
    return whole[start:] if count == -1 else whole[start : start + count]


def trim(text: Value) -> Data:
    return text_of(text).strip()


def lower(text: Value) -> Data:
    return text_of(text).lower()


def upper(text: Value) -> Data:
    return text_of(text).upper()


def to_number(value: Value) -> Data:
    if value.data is None:
        return None
    number = as_number(value.data)
    if number is None:
        what = " that is not written as a number" if isinstance(value.data, str) else ""
        raise failure(value.at, f"to_number takes a number, not {kind_of(value.data)}{what}")
    return number


# URLs

_URL = re.compile(r"(?:[^:/?#]+:)?(?://[^/?#]*)?([^?#]*)((?:\?[^#]*)?(?:#.*)?)", re.DOTALL)


def relative_url(text: Value) -> Data:
    url = text_of(text).strip()
    found = _URL.fullmatch(url)
    if found is None or not url.startswith(("/", "http://", "https://")):
        raise failure(text.at, "a URL begins with /, http:// or https:// here")
    path = found[1] if found[1].startswith("/") else f"/{found[1]}"
    return path + found[2]


def url_encode(text: Value) -> Data:
    return quote(text_of(text), safe="-_.~", errors="surrogateescape")


def url_decode(text: Value) -> Data:
    encoded = text_of(text)
    if re.search(r"%(?![0-9A-Fa-f]{2})", encoded):
        raise failure(text.at, "a % in a URL is followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(encoded.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise failure(text.at, "what this encodes is not UTF-8 text") from None
