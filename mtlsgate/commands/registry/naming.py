"""
Which devices a command is about: certificates, or keys as text.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from mtlsgate.admission.devices import KeyKind, keys_of
from mtlsgate.certificates import pem
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.parsing import parse_certificates, read_file
from mtlsgate.errors import CredentialError, GateError
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.registry.fields import FieldError, read_key
from mtlsgate.text import printable

#: The name that means standard input or output.
STANDARD = "-"

_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE")


class RegistryError(GateError):
    """A command cannot be carried out; lines with places and remedies."""


@frozen
class Named:
    """
    A device that a command names.

    :ivar keys: at least one; several if its certificate has several such names.
    :ivar subject: of its certificate, for people; empty if it was named by a key.
    """

    keys: tuple[str, ...]
    subject: str = ""

    @property
    def suffix(self) -> str:
        """What a line about it ends with."""
        return f"  ({self.subject})" if self.subject else ""


def named_by_certificates(files: Iterable[str], kind: KeyKind) -> Iterator[Named]:
    """
    :param files: each has one device's certificate, maybe with its chain and its key after
        it; ``-`` is standard input.
    :raises RegistryError: if one cannot be read, or has no such key.
    """
    for name in files:
        try:
            leaf, *others = leaves_in(_content(name))
            if others:
                raise CredentialError(
                    f"holds the certificates of {1 + len(others)} devices: import it, or name a "
                    "file for each"
                )
            yield of_certificate(leaf, kind)
        except CredentialError as error:
            raise RegistryError(f"{shown_name(name)}: {error}") from None


def shown_name(file: str) -> str:
    """:returns: a file's name, for a message."""
    return "standard input" if file == STANDARD else printable(file)


def named_by_keys(keys: Iterable[str], kind: KeyKind) -> Iterator[Named]:
    """:raises RegistryError: if one is no key of that kind."""
    for text in keys:
        try:
            yield Named((read_key(kind, text),))
        except FieldError as error:
            raise RegistryError(f"--{error}") from None


def of_certificate(leaf: Certificate, kind: KeyKind) -> Named:
    """:raises CredentialError: if it has no such key."""
    keys = keys_of(leaf, kind)
    if not keys:
        raise CredentialError(
            f"the certificate has no {kind.value}, which this registry finds devices by"
        )
    return Named(keys, subject_of(leaf))


def leaves_in(data: bytes) -> Sequence[Certificate]:
    """
    :param data: PEM, in which keys are left alone, or DER.
    :returns: the devices' certificates, at least one: all but those of CAs after the first,
        which are its chain.
    :raises CredentialError: if there is none, or one does not parse.
    """
    if pem.is_pem(data):
        found = [block for block in pem.whole_blocks(data) if block.label in _CERTIFICATES]
        if found:
            data = b"\n".join(data[block.begin : block.end] for block in found)
    first, *others = parse_certificates(data)
    return (first, *(one for one in others if not one.is_ca))


def _content(name: str) -> bytes:
    """:raises CredentialError: if it cannot be read."""
    if name != STANDARD:
        return read_file(Path(name))
    data = sys.stdin.buffer.read()
    if not data.strip():
        raise CredentialError("is empty")
    return data
