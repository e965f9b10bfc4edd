"""
A TLS 1.3 client that asks for new keys whenever a test wants it to (RFC 8446, 4.6.3).

pyOpenSSL cannot, so its keys are taken from the key log and the records are made here.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

#: A handshake message of type key_update, update_requested, and the type of its record.
_KEY_UPDATE = bytes((24, 0, 0, 1, 1, 22))
_APPLICATION_DATA = 23


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    name = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(SHA384(), length, info).derive(secret)


class KeyUpdates:
    """
    What a client of TLS_AES_256_GCM_SHA384 may send after its handshake, once it
    sends nothing of its own any more.
    """

    def __init__(self, key_log: bytes) -> None:
        """:param key_log: the lines of that connection."""
        lines = (line.split() for line in key_log.splitlines())
        [self._secret] = [
            bytes.fromhex(line[2].decode())
            for line in lines
            if line[0] == b"CLIENT_TRAFFIC_SECRET_0"
        ]
        self._number = 0

    def _record(self, content: bytes) -> bytes:
        key, start = _expand(self._secret, b"key", 32), _expand(self._secret, b"iv", 12)
        nonce = int.from_bytes(start, "big") ^ self._number
        self._number += 1
        header = bytes((_APPLICATION_DATA, 3, 3)) + (len(content) + 16).to_bytes(2, "big")
        return header + AESGCM(key).encrypt(nonce.to_bytes(12, "big"), content, header)

    def key_update(self) -> bytes:
        """:returns: a record that asks for new keys, and brings some."""
        record = self._record(_KEY_UPDATE)
        self._secret, self._number = _expand(self._secret, b"traffic upd", 48), 0
        return record

    def data(self, data: bytes) -> bytes:
        """:returns: a record of application bytes."""
        return self._record(data + bytes([_APPLICATION_DATA]))
