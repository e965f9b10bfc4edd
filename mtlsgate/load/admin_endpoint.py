"""
Reads the ``admin`` block: where the endpoint is, and which token it requires.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen

from mtlsgate.config import Misconfigured, Remainder, model
from mtlsgate.config.material import looks_like_material, material_bytes
from mtlsgate.errors import Report
from mtlsgate.load.addresses import Address, HostError, SocketAddress
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import parse_host
from mtlsgate.load.partial import read_partial
from mtlsgate.load.sources import ConfigPaths
from mtlsgate.text import quoted

#: The shortest allowed token, in characters.
SHORTEST_TOKEN = 16
#: The form of a token after "Bearer" (RFC 6750, 2.1).
_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
#: The longest path in a socket's address on Linux, in bytes.
_LONGEST_PATH = 107
_FORMS = 'write "unix:/run/mtlsgate.sock" or "127.0.0.1:9090"'


@frozen
class AdminEndpoint:
    """
    The endpoint for looking at the gate and controlling it.

    :ivar text: ``listen``, as written.
    :ivar path: the absolute path of the unix socket, or None.
    :ivar addresses: loopback addresses; empty if there is a unix socket.
    :ivar token: the token that a client must present, or None.
    :ivar takeover: whether another gate's endpoint may be there as well.
    """

    text: str
    path: Path | None = None
    addresses: tuple[SocketAddress, ...] = ()
    token: bytes | None = field(default=None, repr=False)
    takeover: bool = field(default=False, eq=False)

    def __str__(self) -> str:
        return f"{self.text}, with a token" if self.token else self.text

    @property
    def places(self) -> tuple[Path | SocketAddress, ...]:
        """The places to listen on."""
        return self.addresses if self.path is None else (self.path,)


def read_admin(
    block: model.Admin,
    files: CertificateFiles,
    report: Report,
    taken: Iterable[Address] = (),
    *,
    offline: bool = False,
    takeover: bool = False,
) -> AdminEndpoint | None:
    """
    :param takeover: whether another gate's endpoint may be there as well.
    :param files: reads the token.
    :param report: where problems go.
    :param taken: the addresses of servers.
    :param offline: whether to look up no host names.
    :returns: the endpoint, or None if the report says what is wrong with it.
    """
    errors_before = len(report.errors)
    path: Path | None = None
    addresses: tuple[SocketAddress, ...] = ()
    try:
        if block.listen.value.startswith("unix:"):
            path = _socket_path(block.listen.value, files.directory)
        else:
            addresses = _loopback(block.listen.value, offline, takeover)
            _refuse_overlaps(addresses, taken)
            if block.token is None:
                report.error(
                    block.at,
                    "admin",
                    "over TCP a token is needed, because every user of this machine can connect: "
                    'set token_file, or listen = "unix:/run/mtlsgate.sock"',
                )
    except ValueError as error:
        name = "this" if looks_like_material(block.listen.value) else quoted(block.listen.value)
        report.error(block.listen.at, "admin", f"listen: {name}: {error}")
    token = None
    if block.token is not None:
        try:
            token = _token(block, files)
        except Misconfigured as error:
            report.error(error.at, "admin", error.text)
    if len(report.errors) != errors_before:
        return None
    return AdminEndpoint(block.listen.value, path, addresses, token, takeover)


@frozen
class _AdminAlone:
    """A configuration of which only the ``admin`` block matters."""

    rest: Remainder
    admin: model.Admin | None = None


def endpoint_of(paths: ConfigPaths) -> AdminEndpoint | None:
    """
    Read only the ``admin`` block of a configuration.  The rest may be wrong, and its
    keys and certificates need not be readable.

    :param paths: as for `mtlsgate.load.loading.load`.
    :returns: the endpoint, or None if there is no such block.
    :raises CredentialError: if a file cannot be read; it names the file.
    :raises ConfigError: if the block is wrong.
    """
    found = read_partial(_AdminAlone, paths)
    endpoint = None
    if found.decoded is not None and found.decoded.admin is not None:
        endpoint = read_admin(found.decoded.admin, found.files, found.report)
    found.report.raise_errors()
    return endpoint


def _socket_path(text: str, directory: Path) -> Path:
    """:raises ValueError: if this cannot be a unix socket's path."""
    name = text.removeprefix("unix:")
    if ":" in name:
        raise ValueError("takes no options: the socket's mode is 0600, always")
    if not name or name.startswith("@") or "\0" in name:
        raise ValueError(f"a socket without a file is open to every user: {_FORMS}")
    path = directory / name
    if len(str(path).encode(errors="surrogateescape")) > _LONGEST_PATH:
        raise ValueError(f"the path is too long for a socket: {_LONGEST_PATH} bytes at most")
    return path


def _loopback(text: str, offline: bool, takeover: bool) -> tuple[SocketAddress, ...]:
    """:raises ValueError: if it is not a loopback address."""
    try:
        host = parse_host(text, offline=offline, takeover=takeover)
    except HostError as error:
        raise ValueError(f"not a place for the admin endpoint ({error}): {_FORMS}") from None
    if offline and not host.addresses:
        return ()
    addresses = tuple(one for one in host.addresses if isinstance(one, SocketAddress))
    if addresses != host.addresses or not host.is_local:
        raise ValueError(
            "only a unix socket or a loopback address is safe without TLS: "
            f'{_FORMS}; for others, put protocol "admin" into a server of its own'
        )
    return addresses


def _refuse_overlaps(addresses: Iterable[SocketAddress], taken: Iterable[Address]) -> None:
    """:raises ValueError: if a server listens there."""
    others = [one for one in taken if isinstance(one, SocketAddress)]
    for address in addresses:
        if any(address.overlaps(other) for other in others):
            raise ValueError("a server listens there")


def _token(block: model.Admin, files: CertificateFiles) -> bytes:
    """:raises Misconfigured: if the file has no usable token."""
    material = block.token
    assert material is not None
    token = material_bytes(material, files.directory, files.read_file).strip()
    files.warn_if_exposed(material, "admin")
    name = material.attribute
    if len(token) < SHORTEST_TOKEN:
        raise Misconfigured(
            material.at,
            f"{name}: {len(token)} characters are too few: {SHORTEST_TOKEN} at least, as "
            "openssl rand -hex 32 makes them",
        )
    if _TOKEN.fullmatch(token) is None:
        raise Misconfigured(
            material.at,
            f"{name}: letters, digits and -._~+/ only, as openssl rand -hex 32 makes them",
        )
    return token
