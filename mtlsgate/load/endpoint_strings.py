"""
Parses endpoint strings in ``hosts``, in Twisted's form: ``unix:/run/gate.sock:mode=660``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from attrs import frozen

from mtlsgate.load.addresses import (
    BACKLOG,
    UNIX_MODE,
    Address,
    HostError,
    SocketAddress,
    SystemdAddress,
    UnixAddress,
)
from mtlsgate.text import quoted

#: The largest backlog that the kernel accepts.
_MOST = 2**31 - 1
_DOMAINS = ("INET", "INET6", "UNIX")


def parse_endpoint(text: str, unix_mode: int = UNIX_MODE) -> Address | None:
    """
    :param unix_mode: the mode of a unix socket, unless the text has one.
    :returns: the address; None if the text does not begin with the name of an
        endpoint.
    :raises HostError: if it is wrong, or if the gate cannot listen on this kind.
    """
    kind = text.partition(":")[0]
    if kind in _REFUSED:
        raise HostError(_REFUSED[kind])
    reader = _READERS.get(kind)
    if reader is None:
        return None
    arguments = _Arguments.of(text, unix_mode)
    address = reader(arguments)
    arguments.end()
    return address


@frozen
class _Arguments:
    """
    The arguments after the kind.

    :ivar positional: values without a name, in order.
    :ivar named: values with a name.
    :ivar unix_mode: the mode of a unix socket, unless there is one.
    """

    positional: list[str]
    named: dict[str, str]
    unix_mode: int

    @classmethod
    def of(cls, text: str, unix_mode: int) -> _Arguments:
        """:raises HostError: if a name is listed twice."""
        positional, named = list[str](), dict[str, str]()
        for name, value in _fields(text.partition(":")[2]):
            if name is None:
                positional.append(value)
            elif name in named:
                raise HostError(f"{name}= is listed twice")
            else:
                named[name] = value
        return cls(positional, named, unix_mode)

    def take(self, name: str, default: str | None = None) -> str:
        """
        :returns: an argument by its name, or the next one without a name.
        :raises HostError: if it is missing and has no default.
        """
        if name in self.named:
            return self.named.pop(name)
        if self.positional:
            return self.positional.pop(0)
        if default is None:
            raise HostError(f"{name}= is missing")
        return default

    def end(self) -> None:
        """:raises HostError: if arguments are left."""
        for name in self.named:
            raise HostError(f"there is no option {quoted(name)}")
        for value in self.positional:
            raise HostError(f"{quoted(value)} is one value too many")


def _fields(text: str) -> Iterator[tuple[str | None, str]]:
    """:returns: pairs of name (or None) and value.  A backslash escapes the next
    character."""
    name: str | None = None
    value, characters = "", iter(text)
    for one in characters:
        if one == "\\":
            value += next(characters, "")
        elif one == "=" and name is None:
            name, value = value, ""
        elif one == ":":
            yield name, value
            name, value = None, ""
        else:
            value += one
    yield name, value


def _number(name: str, text: str, most: int, base: int = 10) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not text or set(text) - set(digits) or len(text) > 10 or int(text, base) > most:
        kind = "an octal number" if base == 8 else "a number"
        largest = f"{most:o}" if base == 8 else f"{most}"
        raise HostError(f"{name}: {quoted(text)} is not {kind} from 0 to {largest}")
    return int(text, base)


def _tcp(arguments: _Arguments) -> SocketAddress:
    port = arguments.take("port")
    interface = arguments.take("interface", "") or "0.0.0.0"  # noqa: S104
    return _socket_address(port, interface, arguments.take("backlog", str(BACKLOG)))


def _tcp6(arguments: _Arguments) -> SocketAddress:
    port, backlog = arguments.take("port"), arguments.take("backlog", str(BACKLOG))
    return _socket_address(port, arguments.take("interface", "") or "::", backlog)


def _socket_address(port: str, interface: str, backlog: str) -> SocketAddress:
    try:
        host = str(ipaddress.ip_address(interface))
    except ValueError:
        raise HostError(f"interface: {quoted(interface)} is not an IP address") from None
    number = _number("port", port, 65535)
    return SocketAddress(host, number, _number("backlog", backlog, _MOST))


def _unix(arguments: _Arguments) -> UnixAddress:
    path = arguments.take("address")
    mode = _number("mode", arguments.take("mode", f"{arguments.unix_mode:o}"), 0o7777, 8)
    backlog = _number("backlog", arguments.take("backlog", str(BACKLOG)), _MOST)
    if arguments.take("lockfile", "0") != "0":
        raise HostError(
            "lockfile: there is no lock file, because a socket that nobody listens on is taken over"
        )
    if not path or "\0" in path:
        raise HostError("unix: needs the path of a socket")
    return UnixAddress(path, mode, backlog)


def _systemd(arguments: _Arguments) -> SystemdAddress:
    alone = arguments.positional[0] if len(arguments.positional) == 1 else ""
    if alone and alone not in _DOMAINS and not arguments.named:
        # Twisted's form repeats what the socket itself tells.
        return SystemdAddress(name=arguments.take("name"))
    domain = arguments.take("domain")
    index, name = arguments.take("index", ""), arguments.take("name", "")
    if domain not in _DOMAINS:
        raise HostError(f"domain: {quoted(domain)} is none of {', '.join(_DOMAINS)}")
    if bool(index) == bool(name):
        raise HostError("systemd: needs either index= or name=")
    return SystemdAddress(domain, _number("index", index, 65535) if index else None, name or None)


_READERS: dict[str, Callable[[_Arguments], Address]] = {
    "tcp": _tcp,
    "tcp6": _tcp6,
    "unix": _unix,
    "systemd": _systemd,
}
_OTHERS = 'write an address such as "*:8443", or a tcp:, tcp6:, unix: or systemd: endpoint'
_REFUSED = {
    "ssl": "an ssl: endpoint does TLS of its own; the gate does that: use tcp:",
    "haproxy": "a haproxy: endpoint believes everybody: set proxy_protocol and trusted_proxies, "
    "and write the endpoint after haproxy: alone",
    "fd": f"the gate cannot listen on an fd: endpoint: {_OTHERS}",
    "stdio": f"the gate cannot listen on a stdio: endpoint: {_OTHERS}",
}
