"""
What ``mtlsgate registry import`` reads: a file with devices, or certificates.

Each is read twice: to find every fault in it, and to write its devices.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from attrs import frozen

from mtlsgate.admission.devices import Device, KeyKind
from mtlsgate.certificates.parsing import read_file
from mtlsgate.commands.registry.naming import (
    STANDARD,
    RegistryError,
    leaves_in,
    of_certificate,
    shown_name,
)
from mtlsgate.errors import CredentialError
from mtlsgate.load.files import CERTIFICATE_ENDINGS
from mtlsgate.registry.formats import LONGEST_LINE, Fault, Format, Row, Unstated, read
from mtlsgate.text import printable

#: The format that is no `Format`: a certificate for each device.
CERTIFICATES = "certificates"
FORMATS = (*(one.value for one in Format), CERTIFICATES)

_ENDINGS = {
    ".csv": Format.CSV.value,
    ".jsonl": Format.JSON_LINES.value,
    ".ndjson": Format.JSON_LINES.value,
    ".json": Format.JSON_LINES.value,
    **dict.fromkeys(CERTIFICATE_ENDINGS, CERTIFICATES),
}


class Source(Protocol):
    """Where devices come from."""

    @property
    def repeats(self) -> bool:
        """Whether a device may be there several times."""

    @property
    def size(self) -> int:
        """How much there is to read, in a unit of its own."""

    def rows(self, done: Callable[[int], object]) -> Iterator[Row]:
        """
        :param done: is told how much has just been read.
        :returns: the rows; anew for each call.
        :raises RegistryError: if it cannot be read.
        """

    def place(self, line: int) -> str:
        """:returns: what a message about a row begins with."""

    def digest(self) -> str | None:
        """:returns: the SHA-256 of the bytes that were read last, in hex; None if there
        are several files."""


def format_of(name: str, given: str | None) -> str:
    """
    :param name: of a file.
    :param given: what the user says, or None.
    :returns: one of `FORMATS`.
    :raises RegistryError: if nobody says, nor the name.
    """
    if given is not None:
        return given
    if name == STANDARD:
        return Format.JSON_LINES.value
    if Path(name).is_dir():
        return CERTIFICATES
    try:
        return _ENDINGS[Path(name).suffix.lower()]
    except KeyError:
        raise RegistryError(
            f"{printable(name)}: name the format: --format {', '.join(FORMATS[:-1])} or "
            f"{FORMATS[-1]}"
        ) from None


@contextmanager
def opened(name: str, kind: str, key: KeyKind, unstated: Unstated) -> Iterator[Source]:
    """
    :param name: of a file or a directory; ``-`` is standard input.
    :param kind: one of `FORMATS`.
    :param key: what the registry finds its devices by.
    :param unstated: what counts for a device where the source does not say it.
    :raises RegistryError: if it cannot be read.
    """
    if kind == CERTIFICATES:
        given = sys.stdin.buffer.read() if name == STANDARD else None
        yield _Certificates(_certificate_files(name), key, unstated, given)
        return
    try:
        # What comes by a pipe is there once.
        with tempfile.TemporaryFile() if name == STANDARD else open(name, "rb") as stream:
            if name == STANDARD:
                shutil.copyfileobj(sys.stdin.buffer, stream)
            yield _File(shown_name(name), stream, Format(kind), key, unstated)
    except OSError as error:
        raise RegistryError(f"{shown_name(name)}: cannot be read: {error.strerror}") from None


class _File:
    """A file with a row for each device."""

    def __init__(
        self, name: str, stream: IO[bytes], kind: Format, key: KeyKind, unstated: Unstated
    ) -> None:
        self._name, self._stream = name, stream
        self._kind, self._key, self._unstated = kind, key, unstated
        self._digest = hashlib.sha256()
        self.size = os.fstat(stream.fileno()).st_size
        self.repeats = False

    def rows(self, done: Callable[[int], object]) -> Iterator[Row]:
        self._stream.seek(0)
        self._digest = hashlib.sha256()
        return read(self._kind, self._lines(done), self._key, self._unstated)

    def _lines(self, done: Callable[[int], object]) -> Iterator[bytes]:
        while line := self._stream.readline(LONGEST_LINE + 2):
            self._digest.update(line)
            done(len(line))
            yield line

    def place(self, line: int) -> str:
        return f"{self._name}:{line}"

    def digest(self) -> str | None:
        return self._digest.hexdigest()


@frozen
class _Certificates:
    """
    Files with certificates, one for each device; a row's line is the file's number.

    :ivar given: what the only file holds, if it was read already.
    """

    files: tuple[str, ...]
    key: KeyKind
    unstated: Unstated
    given: bytes | None

    @property
    def size(self) -> int:
        return len(self.files)

    @property
    def repeats(self) -> bool:
        return True

    def rows(self, done: Callable[[int], object]) -> Iterator[Row]:
        for number, name in enumerate(self.files):
            try:
                data = read_file(Path(name)) if self.given is None else self.given
                for leaf in leaves_in(data):
                    for key in of_certificate(leaf, self.key).keys:
                        yield Row(number, self._device(key))
            except CredentialError as error:
                yield Row(number, Fault(str(error)))
            done(1)

    def _device(self, key: str) -> Device:
        said = self.unstated
        return Device(key, said.state, said.not_before, said.not_after, said.note, said.attributes)

    def place(self, line: int) -> str:
        return shown_name(self.files[line])

    def digest(self) -> str | None:
        return None


def _certificate_files(name: str) -> tuple[str, ...]:
    """:raises RegistryError: if there is none."""
    if name == STANDARD or not Path(name).is_dir():
        return (name,)
    try:
        entries = sorted(Path(name).iterdir())
    except OSError as error:
        raise RegistryError(f"{printable(name)}: cannot be read: {error.strerror}") from None
    found = tuple(str(one) for one in entries if one.suffix.lower() in CERTIFICATE_ENDINGS)
    if not found:
        endings = ", ".join(CERTIFICATE_ENDINGS)
        raise RegistryError(f"{printable(name)}: holds no file that ends in {endings}")
    return found
