"""
The messages of the Workload API: protobuf to credentials and bundles.

The messages have few fields, and all of them are strings of bytes
(``workload.proto``, and https://protobuf.dev/programming-guides/encoding/).
Each message says everything: what it does not have has been taken away (SPIFFE Workload
API, 4.4).  One that lacks what it must have is refused (4.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import frozen

from mtlsgate.certificates import der
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.certificates.parsing import (
    ServerCredential,
    pair,
    parse_certificates,
    parse_private_key,
)
from mtlsgate.certificates.svid import SpiffeId, parse_trust_domain, spiffe_id_of
from mtlsgate.errors import CredentialError
from mtlsgate.spiffe.subscription import Stream
from mtlsgate.text import quoted

# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
#: A number has at most ten bytes.
_MAX_VARINT = 10

#: The trust domains' names, and their CAs.
Bundles = Mapping[str, tuple[Certificate, ...]]


@frozen
class Svid:
    """
    An X.509-SVID.

    :ivar spiffe_id: whom it names.
    :ivar credential: the certificates and the key.
    """

    spiffe_id: SpiffeId
    credential: ServerCredential


def read_svids(message: bytes) -> tuple[Svid, ...]:
    """
    :param message: an ``X509SVIDResponse``.
    :returns: the X.509-SVIDs, at least one; the first is the default.
    :raises CredentialError: if anything is wrong with it; the text never holds a key.
    """
    found = tuple(_svid(one) for number, one in _fields(message) if number == 1)
    if not found:
        raise CredentialError("has no X.509-SVID")
    return found


def _svid(message: bytes) -> Svid:
    fields = dict(_fields(message))
    name = quoted(_text(fields.get(1, b"")))
    try:
        chain = _certificates(fields.get(2, b""))
        if not chain:
            raise CredentialError("has no certificate")
        spiffe_id = spiffe_id_of(chain[0])
        if name != quoted(str(spiffe_id)):
            raise CredentialError(f"is for {spiffe_id} by its certificate")
        return Svid(spiffe_id, pair(chain, parse_private_key(fields.get(3, b""))))
    except CredentialError as error:
        raise CredentialError(f"has an X.509-SVID {name} that {error}") from None


def read_bundles(message: bytes) -> Bundles:
    """
    :param message: an ``X509BundlesResponse``.
    :returns: the CAs of each trust domain; a trust domain may have none.
    :raises CredentialError: if anything is wrong with it.
    """
    found = dict(_bundle(one) for number, one in _fields(message) if number == 2)
    if not found:
        raise CredentialError("has no bundle of any trust domain")
    return found


def has_lists(message: bytes, stream: Stream) -> bool:
    """:returns: whether a message that was read has revocation lists, which are not used."""
    field = 2 if stream is Stream.SVIDS else 1
    return any(number == field for number, _ in _fields(message))


def _bundle(entry: bytes) -> tuple[str, tuple[Certificate, ...]]:
    fields = dict(_fields(entry))
    key = _text(fields.get(1, b""))
    try:
        name = parse_trust_domain(key)
    except ValueError as error:
        raise CredentialError(f"has a bundle of {quoted(key)}, which {error}") from None
    try:
        authorities = _certificates(fields.get(2, b""))
        if not all(one.is_ca for one in authorities):
            raise CredentialError("has a certificate that is no CA")
    except CredentialError as error:
        raise CredentialError(f"has a bundle of {name} that {error}") from None
    return name, authorities


def _certificates(encoded: bytes) -> tuple[Certificate, ...]:
    """:param encoded: DER, one certificate after the other."""
    found: list[Certificate] = []
    place = 0
    while place < len(encoded):
        try:
            one = der.read(encoded, place, len(encoded))
        except UNPARSABLE:
            raise CredentialError("is not in DER") from None
        found += parse_certificates(one.encoded)
        place = one.end
    return tuple(found)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise CredentialError("is no message of the Workload API: a name is not in UTF-8") from None


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """
    :returns: the fields that hold bytes, by their numbers; others are skipped, as new ones
        may be added.
    :raises CredentialError: if it is no protobuf message.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
            continue
        size = _SIZES.get(kind, 0)
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif not size:
            raise _broken()
        value, place = message[place : place + size], place + size
        if place > len(message):
            raise _broken()
        if kind == _BYTES:
            yield key >> 3, value


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """:returns: a number, and the place after it."""
    value = 0
    for count, octet in enumerate(message[place : place + _MAX_VARINT]):
        value |= (octet & 0x7F) << 7 * count
        if octet < 0x80:
            return value, place + count + 1
    raise _broken()


def _broken() -> CredentialError:
    return CredentialError("is no message of the Workload API")
