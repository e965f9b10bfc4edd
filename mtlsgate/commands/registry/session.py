"""
The registry that a command works on: found in the configuration, and its store opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

from attrs import evolve, frozen

from mtlsgate.admission.devices import KeyKind
from mtlsgate.commands.registry.audit_trail import AuditTrail, opened
from mtlsgate.commands.registry.naming import RegistryError
from mtlsgate.config import model
from mtlsgate.errors import CredentialError, did_you_mean
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.load.registry_blocks import registry_blocks
from mtlsgate.load.sources import ConfigPaths
from mtlsgate.registry.opening import open_store
from mtlsgate.registry.store import Store, StoreError
from mtlsgate.text import first_line, printable, quoted

#: Seconds that a store may take for an answer, or longer if the registry's ``timeout`` is: a
#: person waits longer than a client of the gate.
PATIENCE = 10.0


@frozen
class Session:
    """
    The registry that a command works on.

    :ivar registry: where it is.
    :ivar config: the configuration, as the user named it.
    :ivar audit: its ``audit`` block, or None.
    """

    registry: LoadedRegistry
    config: str
    audit: model.Audit | None

    @property
    def name(self) -> str:
        """Its label."""
        return self.registry.name

    @property
    def kind(self) -> KeyKind:
        """What it finds its devices by."""
        return self.registry.key

    def audited(self, given: str | None) -> AbstractContextManager[AuditTrail]:
        """
        :param given: another file for its lines, or None.
        :returns: the audit log, until the block ends.
        :raises RegistryError: if it cannot be opened.
        """
        return opened(self.config, self.audit, given)

    @asynccontextmanager
    async def store(self, patience: float = PATIENCE) -> AsyncIterator[Store]:
        """
        :param patience: how many seconds an answer may take at least.
        :returns: its store, until the block ends.
        :raises RegistryError: if the store fails within the block; it names the store.
        """
        options = self.registry.options
        try:
            store = open_store(evolve(options, timeout=max(options.timeout, patience)))
            try:
                yield store
            finally:
                await store.close()
        except StoreError as error:
            place = f"registry {quoted(self.name)}, {self.registry.place}"
            raise RegistryError(f"{place}: {printable(first_line(error))}") from error


def choose(paths: ConfigPaths, name: str | None) -> Session:
    """
    :param paths: the configuration, as for `mtlsgate.load.loading.load`.
    :param name: the registry's; None means the only one.
    :raises ConfigError: if its registries are wrong.
    :raises RegistryError: if it cannot be read, or there is no such registry.
    """
    try:
        blocks = registry_blocks(paths)
    except CredentialError as error:
        raise RegistryError(f"{error}; name the configuration by --config") from None
    path, labels = blocks.path, blocks.labels
    names = ", ".join(map(quoted, labels))
    if not labels:
        raise RegistryError(f'{path}: has no registry: add registry "devices" {{ url = "…" }}')
    if name is None and len(labels) > 1:
        raise RegistryError(f"{path}: has several registries: name one by --registry: {names}")
    chosen = labels[0] if name is None else name
    if chosen not in labels:
        hint = did_you_mean(chosen, labels)
        raise RegistryError(f"{path}: has no registry {quoted(chosen)}{hint}: {names}")
    return Session(blocks.read(chosen), path, blocks.audit)
