"""
Finds and reads the files of a configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from mtlsgate.config.assembly import SourceFile
from mtlsgate.errors import START, CredentialError, Position, Report
from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.file_state import is_directory

#: One file or directory, or several.
ConfigPaths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_ENDING = ".hcl"


def names_of(paths: ConfigPaths) -> tuple[str, ...]:
    """:returns: the files and directories, as the user named them."""
    if isinstance(paths, str | os.PathLike):
        return (os.fspath(paths),)
    return tuple(os.fspath(path) for path in paths)


def base_directory(name: str, source: FileSource = DISK) -> Path:
    """:returns: the directory where relative paths in this file or directory start."""
    # Absolute, because a daemon changes its directory before it reloads.
    path = Path(name).absolute()
    return path if is_directory(source.stamp(path)) else path.parent


class SourceReader(Protocol):
    """Reads files and directories, and remembers which."""

    def read_own(self, path: Path) -> bytes:
        """
        :param path: of a file of the configuration, absolute.
        :raises CredentialError: if it cannot be read, in words that follow its name.
        """

    def is_directory(self, path: Path) -> bool:
        """:returns: whether a directory is there."""

    def list_own(self, path: Path) -> Sequence[Path]:
        """
        :param path: of a directory of the configuration, absolute.
        :raises OSError: if it cannot be read.
        """


def read_sources(names: Sequence[str], reader: SourceReader, report: Report) -> list[SourceFile]:
    """
    :param names: files and directories, as the user named them.
    :param reader: reads them.
    :param report: gets the problems.
    :returns: the files with their content, in order; those in a directory sorted by name.
    """
    found: list[SourceFile] = []
    several = len(names) > 1 or reader.is_directory(Path(names[0]).absolute())
    for name in names:
        try:
            for path in _files(name, reader):
                data = reader.read_own(Path(path).absolute())
                found.append(SourceFile(path if several else "", data))
        except CredentialError as error:
            at = Position(START.line, START.column, name) if several else START
            report.error(at, "configuration", str(error))
    return found


def _files(name: str, reader: SourceReader) -> Iterator[str]:
    """:raises CredentialError: if a directory cannot be read, or has no file."""
    if not reader.is_directory(Path(name).absolute()):
        yield name
        return
    try:
        listed = reader.list_own(Path(name).absolute())
    except OSError as error:
        raise CredentialError(f"cannot be read: {error.strerror}") from None
    files = sorted(
        path.name for path in listed if path.suffix == _ENDING and not reader.is_directory(path)
    )
    if not files:
        raise CredentialError(f"has no file in it that ends in {_ENDING}")
    for file in files:
        yield os.path.join(name, file)
