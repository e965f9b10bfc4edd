"""
The files of one load, kept as they were read.

With several workers each of them loads the configuration by itself.  They must all
see the same, also one that starts later, when the files may have changed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from io import BytesIO
from pathlib import Path

from attrs import field, frozen

from mtlsgate.errors import CredentialError
from mtlsgate.load.disk import FileSource
from mtlsgate.load.file_state import Stamp

_LENGTH = struct.Struct("!Q")


@frozen
class Recording:
    """
    Reads files from another source, and remembers what it read.

    :ivar source: has the files.
    """

    source: FileSource
    _contents: dict[str, bytes] = field(factory=dict, repr=False)
    _refused: dict[str, str] = field(factory=dict, repr=False)
    _stamps: dict[str, Stamp] = field(factory=dict, repr=False)
    _listings: dict[str, list[str]] = field(factory=dict, repr=False)

    def read(self, path: Path) -> bytes:
        """:raises CredentialError: if it cannot be read; the text follows its name."""
        if str(path) not in self._contents:
            try:
                self._contents[str(path)] = self.source.read(path)
            except CredentialError as error:
                # Of a file in the shadow that is only a warning, which all must give.
                self._refused[str(path)] = str(error)
                raise
        return self._contents[str(path)]

    def stamp(self, path: Path) -> Stamp:
        """:returns: the state of a file or directory at the first look."""
        if str(path) not in self._stamps:
            self._stamps[str(path)] = self.source.stamp(path)
        return self._stamps[str(path)]

    def list(self, path: Path) -> list[Path]:
        """:raises OSError: if it cannot be read."""
        if str(path) not in self._listings:
            self._listings[str(path)] = [one.name for one in self.source.list(path)]
        return [path / name for name in self._listings[str(path)]]

    def save(self) -> int:
        """
        :returns: a descriptor of a file in memory with all of it, which nobody can
            change any more.
        """
        head = json.dumps(
            {
                "sizes": {path: len(data) for path, data in self._contents.items()},
                "refused": self._refused,
                "stamps": self._stamps,
                "listings": self._listings,
            }
        ).encode()
        descriptor = os.memfd_create("mtlsgate-files", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(_LENGTH.pack(len(head)) + head)
            for data in self._contents.values():
                file.write(data)
        _seal(descriptor)
        return descriptor


class Snapshot:
    """
    What a `Recording` saved, as a source of files.  It keeps no descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        """
        :param descriptor: of the file in memory; the caller may close it afterwards.
        """
        file = BytesIO(_whole(descriptor))
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        head = json.loads(file.read(length))
        self._contents = {path: file.read(size) for path, size in head["sizes"].items()}
        self._refused: dict[str, str] = head["refused"]
        self._stamps: dict[str, list[int] | None] = head["stamps"]
        self._listings: dict[str, list[str]] = head["listings"]

    def read(self, path: Path) -> bytes:
        """:raises CredentialError: if the recorded load did not read it."""
        data = self._contents.get(str(path))
        if data is None:
            otherwise = "is not among the files of this configuration"
            raise CredentialError(self._refused.get(str(path), otherwise))
        return data

    def stamp(self, path: Path) -> Stamp:
        """:returns: its state then; None if the recorded load did not look."""
        found = self._stamps.get(str(path))
        return None if found is None else tuple(found)

    def list(self, path: Path) -> list[Path]:
        """:raises OSError: if the recorded load did not list it."""
        names = self._listings.get(str(path))
        if names is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return [path / name for name in names]


def _whole(descriptor: int) -> bytes:
    """:returns: everything in a file.  Other processes read the same open file at the same
    time, and share its position: this neither uses nor moves it."""
    size = os.fstat(descriptor).st_size
    found = bytearray()
    while len(found) < size:
        piece = os.pread(descriptor, size - len(found), len(found))
        if not piece:
            break
        found += piece
    return bytes(found)


def _seal(descriptor: int) -> None:
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
