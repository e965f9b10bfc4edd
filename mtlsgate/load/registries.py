"""
Reads ``registry`` blocks: where the stores of devices are, and what an outage means.

Nothing connects to a store here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from attrs import frozen

from mtlsgate.admission.key_kinds import KeyKind, RegistryName
from mtlsgate.config import FileName, Located, Material, model
from mtlsgate.errors import CredentialError, Report, did_you_mean
from mtlsgate.load.files import CertificateFiles
from mtlsgate.registry.opening import address_of, exposure_of, open_store
from mtlsgate.registry.schema import Table
from mtlsgate.registry.store import StoreError, StoreOptions
from mtlsgate.text import quoted


@frozen
class LoadedRegistry:
    """
    A registry, as its block describes it.

    :ivar name: the label.
    :ivar key: what a client is found by.
    :ivar options: how to reach the store.
    :ivar place: where the store is, for people: without secrets.
    :ivar on_outage: what counts while the store or its push channel is away.
    :ivar max_staleness: how long live connections stay without the store, in seconds.
    :ivar cache_entries: how many answers are kept.
    :ivar cache_time: how long one is kept, in seconds.
    """

    name: str
    key: KeyKind
    options: StoreOptions
    place: str
    on_outage: Literal["reject", "last_known"] = "reject"
    max_staleness: float = 300.0
    cache_entries: int = 100_000
    cache_time: float = 300.0

    def __repr__(self) -> str:
        """Without secrets."""
        return f"<LoadedRegistry {self.name} {self.place}>"


class RegistryReader:
    """
    Reads the registries of one load.

    :ivar found: the registries that are not in error, by label.
    """

    def __init__(self, files: CertificateFiles, report: Report) -> None:
        """
        :param files: reads the files that the blocks name.
        :param report: where problems go.
        """
        self._files = files
        self._report = report
        self._labels: list[str] | None = None
        self._named: set[str] = set()
        self.found: dict[str, LoadedRegistry] = {}

    def read(self, blocks: Iterable[model.Registry]) -> None:
        """Read all blocks; the report says what is wrong with one."""
        self._labels = []
        defaults = set[str]()
        for block in blocks:
            self._labels.append(block.label)
            errors_before = len(self._report.errors)
            registry = self._registry(block)
            if registry is not None and len(self._report.errors) == errors_before:
                self._refuse_mixed(block, registry, defaults)
                self.found[block.label] = registry
                if block.prefix is None and block.table is None:
                    defaults.add(block.label)

    def named(
        self, name: Located[str], where: str, attribute: str = "registry"
    ) -> RegistryName | None:
        """
        :param name: the attribute's value.
        :returns: what to ask; None if it is in error, or there is no such block, and the
            report says so.
        """
        self._named.add(name.value)
        if self._labels is None or name.value in self._labels:
            found = self.found.get(name.value)
            return None if found is None else RegistryName(found.name, found.key)
        text = f"{attribute}: no registry block is called {quoted(name.value)}"
        if not self._labels:
            text += f': add registry "{name.value}" {{ url = "redis://…" }}'
        self._report.error(name.at, where, text + did_you_mean(name.value, self._labels))
        return None

    def warn_of_unused(self, blocks: Iterable[model.Registry]) -> None:
        """Warn of blocks that nothing names."""
        for block in blocks:
            if block.label not in self._named:
                text = "nothing names it: no rule, deny block or count_in asks this registry"
                self._report.warn(block.at, block.heading, text)

    def _refuse_mixed(
        self, block: model.Registry, registry: LoadedRegistry, defaults: Collection[str]
    ) -> None:
        """
        Refuse a registry that would list devices of another one.

        :param defaults: the labels of the others that state neither prefix nor table.
        """
        states_none = block.prefix is None and block.table is None
        for other in self.found.values():
            if other.place != registry.place:
                continue
            mine, its = registry.options.prefix, other.options.prefix
            # Whoever states the same twice means the same devices.
            is_same = mine == its and states_none and other.name in defaults
            is_redis = registry.place.startswith("redis")
            if is_same or (is_redis and (is_inside(mine, its) or is_inside(its, mine))):
                at = block.prefix.at if block.prefix is not None else block.at
                text = f"{quoted(mine)} would mix its devices with those of registry "
                text += f"{quoted(other.name)}, in {quoted(its)}: state another "
                name = "prefix" if is_redis else "table"
                self._report.error(at, block.heading, text + name)

    def _registry(self, block: model.Registry) -> LoadedRegistry | None:
        url = block.url.value
        errors_before = len(self._report.errors)
        try:
            place = address_of(url)
        except StoreError as error:
            self._report.error(block.url.at, block.heading, f"url: {error}")
            return None
        is_redis = "redis" in url.partition("://")[0] or url.startswith("unix:")
        prefix = self._prefix(block, is_redis)
        files = (block.ca_file, block.certificate_file, block.private_key_file)
        read = [self._read(one, name, block) for one, name in zip(files, _FILES, strict=True)]
        ca_file, certificate_file, key_file = (path for path, _ in read)
        if (key := block.private_key_file) is not None:
            material = Material("private_key_file", key.at, path=Path(key.value))
            self._files.warn_if_exposed(material, block.heading)
        options = StoreOptions(
            url=url,
            prefix=prefix,
            timeout=block.timeout,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
            password=self._password(block),
            contents=tuple((path, data) for path, data in read if path is not None),
        )
        if len(self._report.errors) == errors_before:
            try:
                # Whatever can be wrong without a connection is an error now.
                open_store(options)
                exposure = exposure_of(options)
            except StoreError as error:
                self._report.error(block.url.at, block.heading, str(error))
            else:
                if exposure is not None:
                    self._report.warn(block.url.at, block.heading, f"url: {exposure}")
        return LoadedRegistry(
            name=block.label,
            key=KeyKind(block.key),
            options=options,
            place=place,
            on_outage=block.on_outage,
            max_staleness=block.max_staleness,
            cache_entries=block.cache_entries,
            cache_time=block.cache_time,
        )

    def _prefix(self, block: model.Registry, is_redis: bool) -> str:
        wrong, kind, right = (
            (block.table, "PostgreSQL", "prefix") if is_redis else (block.prefix, "Redis", "table")
        )
        if wrong is not None:
            name = "table" if is_redis else "prefix"
            text = f"{name} is for a registry in {kind}: this one has a {right}"
            self._report.error(wrong.at, block.heading, text)
        given = block.prefix if is_redis else block.table
        if given is not None:
            if not given.value.isprintable() or not given.value.strip():
                self._report.error(given.at, block.heading, f"{right}: write a name")
            elif not is_redis:
                try:
                    Table.parse(given.value)
                except StoreError as error:
                    self._report.error(given.at, block.heading, str(error))
            return given.value
        return default_prefix(block.label) if is_redis else default_table(block.label)

    def _read(
        self, name: Located[FileName] | None, attribute: str, block: model.Registry
    ) -> tuple[str | None, bytes]:
        """:returns: the absolute path of a file, and its content."""
        if name is None:
            return None, b""
        path = self._files.directory / name.value
        try:
            return str(path), self._files.read_file(path)
        except CredentialError as error:
            text = f"{attribute}: {quoted(name.value)} {error}"
            self._report.error(name.at, block.heading, text)
            return None, b""

    def _password(self, block: model.Registry) -> str | None:
        if block.password is None:
            return None
        found = self._files.read(block.password, block.heading)
        if found is None:
            return None
        self._files.warn_if_exposed(block.password, block.heading)
        try:
            password = found.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            password = ""
        if not password:
            at, name = block.password.at, block.password.attribute
            self._report.error(at, block.heading, f"{name}: has no password in UTF-8")
        return password


def is_inside(prefix: str, other: str) -> bool:
    """:returns: whether in Redis keys with the one prefix are those of the other's devices."""
    return f"{prefix}:".startswith(f"{other}:d:")


_FILES = ("ca_file", "certificate_file", "private_key_file")


def default_prefix(label: str) -> str:
    """:returns: what the keys in Redis begin with, if the block does not say."""
    return f"mtlsgate:{label}"


def default_table(label: str) -> str:
    """:returns: the table in PostgreSQL, if the block does not say: a name that needs no
    quotes."""
    safe = "".join(one if one.isascii() and one.isalnum() else "_" for one in label.lower())
    return f"mtlsgate_{safe}"[:48]
