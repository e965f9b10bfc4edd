"""
Parses the ``target`` attribute, and makes the endpoint that dials it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar, cast

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.plugin import getPlugins

from mtlsgate.certificates.server_identity import as_address, is_loopback
from mtlsgate.errors import did_you_mean
from mtlsgate.text import quoted
from mtlsgate.upstream.dialling import endpoint_of
from mtlsgate.upstream.dialling_reactor import dialling

T = TypeVar("T")

_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*):(?P<port>[0-9]+)")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
#: The longest path that fits ``sun_path`` on Linux, without its final NUL (unix(7)).
_MAX_PATH = 107
#: One character of an endpoint string; a backslash escapes it.
_CHARACTER = re.compile(r"\\(.)|(.)", re.DOTALL)
#: What an object in a ``target`` attribute may have.
_KEYS = ("address", "weight", "backup")
_MOST_WEIGHT = 100


@frozen
class Target:
    """
    A place to connect to.

    :ivar text: the target as written.
    :ivar is_local: whether data for it stays on this machine: a loopback address,
        ``localhost`` or a unix socket.
    :ivar host: a host name or an IP address, or None.
    :ivar port: the TCP port, or None.
    :ivar path: the unix socket's path, or None.
    :ivar description: the Twisted endpoint string, if it was written as one.
    """

    text: str
    is_local: bool
    host: str | None = None
    port: int | None = None
    path: str | None = None
    description: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def is_foreign(self) -> bool:
        """Whether a plugin of somebody else's connects to it."""
        return self.port is None and self.path is None

    def endpoint(self, reactor: object, timeout: float) -> IStreamClientEndpoint:
        """
        :param reactor: makes the connections.
        :param timeout: seconds for one attempt; a Twisted endpoint string has its own.
        :returns: the endpoint.  It looks up a host name when it connects.
        :raises ValueError: in one line, if the endpoint string is wrong.
        """
        if self.description is not None:
            return _from_string(dialling(reactor), self.description)
        if self.path is not None:
            return endpoint_of(reactor, self.path, timeout)
        assert self.host is not None
        assert self.port is not None
        if as_address(self.host) is None:
            return HostnameEndpoint(dialling(reactor), self.host, self.port, timeout)
        return endpoint_of(reactor, (self.host, self.port), timeout)


@frozen
class Listed(Generic[T]):
    """
    An entry of a ``target`` attribute.

    :ivar target: the target.
    :ivar weight: its share of the connections, in proportion to the others' weights.
    :ivar is_backup: whether it is used only while no other target is up.
    """

    target: T
    weight: int = 1
    is_backup: bool = False


def parse_targets(written: object, parse: Callable[[str], T]) -> list[Listed[T]]:
    """
    :param written: the value of a ``target`` attribute: a string, an object with
        ``address``, ``weight`` and ``backup``, or a list of these.
    :param parse: parses one target; raises ValueError if it is wrong.
    :returns: at least one target, without duplicates.
    :raises ValueError: with the problem, in one line.
    """
    entries: list[object] = list(written) if isinstance(written, list | tuple) else [written]
    texts = [entry.get("address") if isinstance(entry, dict) else entry for entry in entries]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            "must be a string, or a list of strings that is not empty; "
            'an object with an "address" may stand for a string'
        )
    listed = [
        _listed(parse(text), text, entry if isinstance(entry, dict) else {})
        for text, entry in zip(cast(list[str], texts), entries, strict=True)
    ]
    targets = [one.target for one in listed]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise ValueError(f"{quoted(str(texts[number]))} is listed twice")
    if all(one.is_backup for one in listed):
        raise ValueError("all are backups: at least one must not be")
    return listed


def _listed(target: T, text: str, written: Mapping[str, object]) -> Listed[T]:
    for name in written:
        if name not in _KEYS:
            known = ", ".join(_KEYS)
            hint = did_you_mean(name, _KEYS)
            raise ValueError(f"{quoted(text)}: unknown {quoted(name)}{hint} (there are: {known})")
    weight, backup = written.get("weight"), written.get("backup")
    if weight is None:
        weight = 1
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= _MOST_WEIGHT:
        raise ValueError(f"{quoted(text)}: weight must be a whole number from 1 to {_MOST_WEIGHT}")
    if not isinstance(backup, bool | None):
        raise ValueError(f"{quoted(text)}: backup must be true or false")
    return Listed(target, weight, backup is True)


def ports_of(targets: Iterable[Target]) -> tuple[int, ...]:
    """:returns: the TCP ports of targets."""
    return tuple(one.port for one in targets if one.port is not None)


def refuse_plaintext(target: Target) -> None:
    """
    :raises ValueError: if the target is not on this machine.
    """
    if not target.is_local:
        raise ValueError(
            f"{quoted(target.text)} is not on this machine, and would be spoken to in "
            "plaintext: add a tls block, or set unsafe_target = true"
        )


def parse_target(text: str) -> Target:
    """
    :param text: ``host:port``, ``[IPv6]:port``, ``unix:/path`` or a Twisted
        client endpoint string.  Nothing is looked up.
    :raises ValueError: with what is wrong, in one line.
    """
    found = _HOST_PORT.fullmatch(text)
    if found is not None:
        host = _host(found["host"])
        return Target(text, is_loopback(host), host=host, port=_port(found["port"]))
    kind, colon, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/") and not re.search(r"[:=\\]", rest):
        return Target(text, is_local=True, path=_path(rest))
    if not colon:
        raise ValueError(f"{quoted(text)}: {_FORMS}")
    return _described(text, kind)


_FORMS = (
    'write "host:port", "[::1]:port" for IPv6, "unix:/path" or a Twisted client endpoint string'
)


def _host(text: str) -> str:
    if text.startswith("["):
        inside = text[1:-1]
        address = as_address(inside)
        if address is None or ":" not in address:
            raise ValueError(f"{quoted(text)} is not an IPv6 address")
        return inside
    if as_address(text) is not None:
        return text
    labels = text.removesuffix(".").split(".")
    if not all(map(_LABEL.fullmatch, labels)) or len(text) > 253:
        raise ValueError(
            f"{quoted(text)} is not a host name"
            + ("" if text.isascii() else ": write its A-labels")
        )
    if labels[-1].isdecimal():
        raise ValueError(f"{quoted(text)} is neither an IPv4 address nor a host name")
    return text


def _port(text: str) -> int:
    port = int(text) if len(text) <= 5 else 0
    if not 0 < port < 2**16:
        raise ValueError(f"the port is {text[:12]}: it must be from 1 to 65535")
    return port


def _path(text: str) -> str:
    if "\0" in text:
        raise ValueError("the path of the unix socket holds a NUL character")
    length = len(text.encode(errors="surrogateescape"))
    if length > _MAX_PATH:
        raise ValueError(
            f"the path of the unix socket is {length} bytes long; the system takes {_MAX_PATH}"
        )
    return text


def _described(text: str, kind: str) -> Target:
    match kind.lower():
        case "tls" | "ssl":
            # These endpoints have their own trust settings, such as the system's store.
            raise ValueError(
                f'{quoted(text)}: write "host:port" and a tls block that says which CA to trust'
            )
        case "tcp":
            host, port = _arguments(text, "host", "port")
            if host is None or port is None or not port.isdecimal():
                raise ValueError(f"{quoted(text)}: a tcp endpoint needs a host and a port")
            checked = _host(f"[{host}]" if ":" in host else host)
            local = is_loopback(checked)
            return Target(text, local, host=checked, port=_port(port), description=text)
        case "unix":
            (path,) = _arguments(text, "path")
            if path is None or not path.startswith("/"):
                raise ValueError(f"{quoted(text)}: a unix socket's path must begin with /")
            return Target(text, is_local=True, path=_path(path), description=text)
    known = {one.prefix for one in getPlugins(IStreamClientEndpointStringParserWithReactor)}
    if kind.lower() not in {one.lower() for one in known}:
        raise ValueError(f"{quoted(text)}: {_FORMS}")
    return Target(text, is_local=False, description=text)


def _arguments(text: str, *names: str) -> tuple[str | None, ...]:
    """:returns: an endpoint string's arguments by these names, or by their position."""
    given: dict[str, str] = {}
    in_order: list[str] = []
    for name, value in _fields(text):
        if name is None:
            in_order.append(value)
        else:
            given[name] = value
    places = iter(in_order[1:])
    return tuple(given[name] if name in given else next(places, None) for name in names)


def _fields(text: str) -> Iterator[tuple[str | None, str]]:
    """Yield (name or None, value) as `clientFromString` splits them."""
    name, value = None, ""
    for found in _CHARACTER.finditer(text):
        escaped, plain = found.groups()
        if plain == ":":
            yield name, value
            name, value = None, ""
        elif plain == "=" and name is None:
            name, value = value, ""
        else:
            value += escaped or plain
    yield name, value


def _from_string(reactor: object, description: str) -> IStreamClientEndpoint:
    try:
        return clientFromString(reactor, description)  # type: ignore[no-any-return]
    except (ValueError, TypeError, KeyError, StopIteration, RuntimeError) as error:
        raise ValueError(
            f"{quoted(description)} is no endpoint that Twisted understands: "
            f"{type(error).__name__}: {error}"
        ) from None
