"""
From a URL to a store.

A store's client library is an extra, and imported only when a store of its kind is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from attrs import frozen

from mtlsgate.registry.postgresql_address import POSTGRESQL_SCHEMES, parse_postgresql
from mtlsgate.registry.redis_address import REDIS_SCHEMES, parse_redis
from mtlsgate.registry.store import Store, StoreError, StoreOptions


class _Address(Protocol):
    """Prints without secrets."""

    @property
    def ports(self) -> frozenset[int] | None:
        """The TCP ports to connect to; None if nobody knows beforehand."""

    def exposure(self, options: StoreOptions) -> str | None:
        """:returns: who can listen and what to do about it, in one line; or None."""


class _StoreModule(Protocol):
    def open_store(self, options: StoreOptions) -> Store: ...


@frozen
class _Kind:
    """
    A kind of store.

    :ivar schemes: of its URLs.
    :ivar parse: reads a URL.
    :ivar module: has ``open_store``, and imports the client library.
    :ivar extra: what to install.
    """

    schemes: frozenset[str]
    parse: Callable[[str], _Address]
    module: str
    extra: str


_KINDS = (
    _Kind(REDIS_SCHEMES, parse_redis, "mtlsgate.registry.redis_store", "redis"),
    _Kind(POSTGRESQL_SCHEMES, parse_postgresql, "mtlsgate.registry.postgresql_store", "postgresql"),
)


def address_of(url: str) -> str:
    """
    :param url: of a store.
    :returns: scheme, hosts and database, for people; never a user or password.
    :raises StoreError: if the URL is none; the text does not repeat it.
    """
    return str(_kind(url).parse(url))


def module_of(url: str) -> str | None:
    """
    :param url: of a store.
    :returns: the module that its store needs, by name; None if the URL is none.
    """
    return next((one.module for one in _KINDS if url.partition("://")[0] in one.schemes), None)


def ports_of(url: str) -> frozenset[int] | None:
    """
    :param url: of a store.
    :returns: the TCP ports that are connected to; None if that turns out later, as with
        Sentinel.
    :raises StoreError: if the URL is none; the text does not repeat it.
    """
    return _kind(url).parse(url).ports


def exposure_of(options: StoreOptions) -> str | None:
    """
    :returns: who can listen on the way to a store and what to do about it, in one line;
        None if nobody can, as far as the options tell.
    :raises StoreError: if the URL is none; the text does not repeat it.
    """
    return _kind(options.url).parse(options.url).exposure(options)


def open_store(options: StoreOptions) -> Store:
    """
    :returns: the store, not connected yet.  Files for TLS are read now.
    :raises StoreError: if the URL or a file is wrong, or the client library is missing.
    """
    kind = _kind(options.url)
    kind.parse(options.url)
    try:
        module = cast(_StoreModule, import_module(kind.module))
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise StoreError(
            f"this registry needs the Python package {package!r}:"
            f" pip install 'mtlsgate[{kind.extra}]'"
        ) from None
    return module.open_store(options)


def _kind(url: str) -> _Kind:
    scheme = url.partition("://")[0]
    for kind in _KINDS:
        if scheme in kind.schemes:
            return kind
    raise StoreError(
        "the URL of a registry begins with redis://, rediss:// or postgresql://;"
        " Sentinel and Cluster have redis+sentinel:// and redis+cluster://"
    )
