"""
The registries of a configuration, for a program that is not the gate.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import frozen

from mtlsgate.config import Remainder, model
from mtlsgate.load.partial import Partial, read_partial
from mtlsgate.load.registries import LoadedRegistry, RegistryReader
from mtlsgate.load.sources import ConfigPaths


@frozen
class _AuditAlone:
    """Settings of which only the ``audit`` block matters."""

    rest: Remainder
    audit: model.Audit | None = None


@frozen
class _RegistriesAlone:
    """A configuration of which only the ``registry`` blocks matter, and the audit log."""

    rest: Remainder
    registry: tuple[model.Registry, ...] = ()
    settings: _AuditAlone | None = None


@frozen
class RegistryBlocks:
    """
    The registries of a configuration for a program that is not the gate.

    :ivar path: the file or files, as the user named them.
    :ivar audit: the ``audit`` block of its settings, or None.
    :ivar _blocks: in file order.
    :ivar _partial: what was read.
    """

    path: str
    audit: model.Audit | None
    _blocks: tuple[model.Registry, ...]
    _partial: Partial[_RegistriesAlone]

    @property
    def labels(self) -> tuple[str, ...]:
        """The registries' labels, in file order."""
        return tuple(block.label for block in self._blocks)

    def read(self, label: str) -> LoadedRegistry:
        """
        Read one of the blocks, and the files that it names.

        :raises ConfigError: if it is wrong.
        """
        reader = RegistryReader(self._partial.files, self._partial.report)
        reader.read(block for block in self._blocks if block.label == label)
        self._partial.report.raise_errors()
        return reader.found[label]


def registry_blocks(paths: ConfigPaths, environ: Mapping[str, str] = os.environ) -> RegistryBlocks:
    """
    Read only the ``registry`` blocks of a configuration, and where its audit log is.  The
    rest may be wrong, and its keys and certificates need not be readable.

    :param paths: as for `mtlsgate.load.loading.load`.
    :param environ: the values of ``env.NAME``.
    :raises CredentialError: if a configuration file cannot be read; it names the file.
    :raises ConfigError: if one of the blocks is wrong.
    """
    found = read_partial(_RegistriesAlone, paths, environ)
    found.report.raise_errors()
    decoded = found.decoded
    assert decoded is not None
    audit = None if decoded.settings is None else decoded.settings.audit
    return RegistryBlocks(found.report.path, audit, decoded.registry, found)
