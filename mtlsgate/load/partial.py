"""
Reads some blocks of a configuration for programs that are not the gate.

The rest of it may be wrong, and its keys and certificates need not be readable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Generic, TypeVar

from attrs import frozen

from mtlsgate.config.assembly import assemble
from mtlsgate.config.decode import Decoder
from mtlsgate.config.scope import Scope
from mtlsgate.errors import START, CredentialError, Report
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.sources import ConfigPaths, base_directory, names_of, read_sources

T = TypeVar("T")


@frozen
class Partial(Generic[T]):
    """
    Some blocks of a configuration.

    :ivar decoded: the blocks; None if the report says what is wrong with them.
    :ivar files: reads the files that they name.
    :ivar report: where problems go.
    """

    decoded: T | None
    files: CertificateFiles
    report: Report


def read_partial(
    cls: type[T], paths: ConfigPaths, environ: Mapping[str, str] = os.environ
) -> Partial[T]:
    """
    :param cls: has the blocks that matter, and a `mtlsgate.config.Remainder` for the rest.
    :param paths: as for `mtlsgate.load.loading.load`.
    :param environ: the values of ``env.NAME``.
    :raises CredentialError: if a file of the configuration cannot be read; it names the file.
    """
    names = names_of(paths)
    report = Report(", ".join(names))
    files = CertificateFiles(base_directory(names[0]), report, {})
    sources = read_sources(names, files, report)
    if report.errors:
        raise CredentialError("; ".join(f"{one.path}: {one.text}" for one in report.errors))
    scope = Scope(environ, lambda name: files.read_file(files.directory / name))
    assembled = assemble(sources, scope, report)
    decoded = None
    if assembled is not None:
        # The gate itself reports what is wrong elsewhere.
        report.errors.clear()
        decoder = Decoder(assembled.scope, report)
        decoded = decoder.decode(cls, assembled.body, START, "configuration")
    return Partial(decoded, files, report)
