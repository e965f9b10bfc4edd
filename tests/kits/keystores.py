"""PKCS#12 files that cryptography does not make: with several keys, or cut short."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    NoEncryption,
    pkcs12,
)

from mtlsgate.testing import Credential

#: contentType data (RFC 5652, 4).
_DATA = bytes.fromhex("06092a864886f70d010701")


def keystore(made: Credential, passphrase: str | None = "secret", *more: object) -> bytes:
    """:returns: a keystore of a certificate with its chain, and further certificates."""
    encryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase.encode())
    )
    others = [*made.intermediates, *more]
    return pkcs12.serialize_key_and_certificates(
        b"gate",
        made.private_key,
        made.certificate,
        others,  # type: ignore[arg-type]
        encryption,
    )


def joined(*keystores: bytes) -> bytes:
    """:returns: one keystore without a MAC that has all that unencrypted ones have."""
    content = b"".join(map(_safe_contents, keystores))
    safe = _tlv(0x30, _DATA + _tlv(0xA0, _tlv(0x04, _tlv(0x30, content))))
    return _tlv(0x30, b"\x02\x01\x03" + safe)


def _safe_contents(data: bytes) -> bytes:
    """:returns: what is in the AuthenticatedSafe (RFC 7292, 4.1)."""
    pfx, _ = _read(data, 0)
    _, after = _read(pfx, 0)
    info, _ = _read(pfx, after)
    _, after = _read(info, 0)
    explicit, _ = _read(info, after)
    octets, _ = _read(explicit, 0)
    safe, _ = _read(octets, 0)
    return safe


def _read(data: bytes, at: int) -> tuple[bytes, int]:
    """:returns: the content of an element, and where the next begins."""
    length, at = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    return data[at : at + length], at + length


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content
