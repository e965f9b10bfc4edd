"""
From what Python gives for a certificate, a key or a revocation list to `Material`.
"""

from __future__ import annotations

import os
from pathlib import Path

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from mtlsgate.certificates.parsing import PrivateKey
from mtlsgate.config import Material
from mtlsgate.config.material import looks_like_material
from mtlsgate.errors import NOWHERE


def material_of(name: str, given: object) -> Material | None:
    """
    :param name: of the parameter, for messages.
    :param given: a path, PEM or DER, an object of `cryptography`, a list of these,
        or None.
    :raises ValueError: if it is anything else; its text follows the name.
    """
    if given is None:
        return None
    if not isinstance(given, list | tuple):
        return _one(name, given)
    if not given:
        raise ValueError("is an empty list")
    return evolve(_one(name, given[0]), parts=tuple(_one(name, one) for one in given))


def _one(name: str, given: object) -> Material:
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    if not isinstance(given, str):
        # Bytes of any kind, there and back again.
        text = _encoded(given).decode(errors="surrogateescape")
        return Material(name, NOWHERE, text=text)
    if not given.strip():
        raise ValueError("is empty: name a file")
    if looks_like_material(given):
        return Material(name, NOWHERE, text=given)
    return Material(name, NOWHERE, path=Path(given))


def _encoded(given: object) -> bytes:
    match given:
        case bytes():
            return given
        case x509.Certificate() | x509.CertificateRevocationList():
            return given.public_bytes(Encoding.DER)
        case key if isinstance(key, PrivateKey):
            return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    raise ValueError(
        f"cannot be of type {type(given).__name__}: pass a path, PEM or DER bytes, or an object "
        "of cryptography"
    )
