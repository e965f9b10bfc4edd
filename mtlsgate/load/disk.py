"""
Where a load gets its files from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from attrs import frozen

from mtlsgate.certificates.parsing import read_file
from mtlsgate.load.file_state import Opener, Stamp, list_directory, stamp


class FileSource(Protocol):
    """Files and directories.  All paths are absolute."""

    def read(self, path: Path) -> bytes:
        """
        :returns: a file's content.
        :raises CredentialError: if it cannot be read; the text follows its name.
        """

    def stamp(self, path: Path) -> Stamp:
        """:returns: the state of a file or directory now; None if there is none."""

    def list(self, path: Path) -> list[Path]:
        """
        :returns: what a directory has, sorted by name.
        :raises OSError: if it cannot be read.
        """


@frozen
class Disk:
    """
    The file system.

    :ivar opener: opens files, as `os.open` does.
    """

    opener: Opener = os.open

    def read(self, path: Path) -> bytes:
        """:raises CredentialError: if it cannot be read; the text follows its name."""
        return read_file(path, self.opener)

    def stamp(self, path: Path) -> Stamp:
        """:returns: the state of a file or directory now; None if there is none."""
        return stamp(path, self.opener)

    def list(self, path: Path) -> list[Path]:
        """:raises OSError: if it cannot be read."""
        return list_directory(path, self.opener)


#: This machine's file system, with the rights of the process.
DISK = Disk()
