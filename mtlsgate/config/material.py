"""
The bytes of an attribute that is given inline or as a file.

No I/O of its own: the caller passes what reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mtlsgate.config.fields import Material, Misconfigured
from mtlsgate.config.file_names import wrong_file_name, wrong_material
from mtlsgate.config.source import relative_to_file
from mtlsgate.errors import CredentialError, Position
from mtlsgate.text import quoted

_MATERIAL = re.compile(r"-----BEGIN |\A\s*M[A-Za-z0-9+/\s]{50,}=*\s*\Z")


def looks_like_material(name: str) -> bool:
    """:returns: whether what should be a name is PEM or base64 of DER, which no
    message may repeat."""
    return _MATERIAL.search(name) is not None


def material_from(name: str, text: str, at: Position, inline: str, file: str) -> Material:
    """
    :param name: of the attribute that was set: one of the next two.
    :param inline: the attribute that takes what is in a file.
    :param file: the attribute that takes the name of a file.
    :raises ValueError: if the text belongs in the other one, or in neither.
    """
    problem = wrong_file_name(text, inline) if name == file else wrong_material(text, file)
    if problem is not None:
        raise ValueError(problem)
    if name == file:
        return Material(name, at, path=Path(relative_to_file(text, at)))
    return Material(name, at, text=text)


def material_bytes(
    material: Material, directory: Path, read_file: Callable[[Path], bytes]
) -> bytes:
    """
    :param directory: where relative paths start.
    :param read_file: raises `CredentialError` with words that follow the file's name.
    :returns: the inline text, or what the file holds.
    :raises Misconfigured: at the attribute, if the file cannot be read.
    """
    if material.text is not None:
        # From the environment it may be any bytes.
        return material.text.encode(errors="surrogateescape")
    assert material.path is not None
    if looks_like_material(str(material.path)):
        inline = material.attribute.removesuffix("_file")
        text = f"this is not the name of a file, but what is in one: write {inline}"
        raise Misconfigured(material.at, f"{material.attribute}: {text}")
    try:
        return read_file(directory / material.path)
    except CredentialError as error:
        raise unusable(material, error) from error


def unusable(material: Material, error: CredentialError) -> Misconfigured:
    """:returns: what is wrong with the material, at its attribute."""
    name = f" {quoted(str(material.path))}" if material.path is not None else ""
    return Misconfigured(material.at, f"{material.attribute}:{name} {error}")
