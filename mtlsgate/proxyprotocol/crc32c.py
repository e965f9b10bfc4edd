"""
CRC32c, the checksum that a version 2 header may carry (RFC 4960, appendix B).
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, its bits reversed.


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """:returns: the checksum, 0 to 2**32 - 1."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
