"""
What a configuration needs of the machine while the gate runs: files, ports, and whether
code that is not mtlsgate's runs in the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.certificates.token import is_token_uri
from mtlsgate.config import model
from mtlsgate.config.urls import parse_url
from mtlsgate.load.addresses import UnixAddress
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.applications import ReadProtocol
from mtlsgate.load.clients import ReadClient
from mtlsgate.load.fetches import Fetch
from mtlsgate.load.listen_addresses import Host
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.registry.opening import ports_of as ports_of_store
from mtlsgate.tls.client import system_store
from mtlsgate.upstream.targets import parse_target, ports_of


@frozen
class Reach:
    """
    What is needed, beyond the files that are read to load the configuration.

    :ivar reads: files and directories that are read.
    :ivar writes: files and sockets that are made, written to, renamed or removed.
    :ivar ports: TCP ports that are connected to.
    :ivar any_port: whether it turns out later which ports these are.
    :ivar user_code: what runs code that is not mtlsgate's, for people.
    """

    reads: frozenset[Path] = frozenset()
    writes: frozenset[Path] = frozenset()
    ports: frozenset[int] = frozenset()
    user_code: tuple[str, ...] = ()
    any_port: bool = False

    def __or__(self, other: Reach) -> Reach:
        return Reach(
            self.reads | other.reads,
            self.writes | other.writes,
            self.ports | other.ports,
            (*self.user_code, *other.user_code),
            self.any_port or other.any_port,
        )


def reach_of_server(server: model.Server, protocol: ReadProtocol, directory: Path) -> Reach:
    """
    :param protocol: its ``protocol`` block.
    :param directory: where relative paths start.
    """
    code = [f"{server.heading}: authorize"] if server.authorize is not None else []
    for block in server.tls.server_certificate:
        key = block.private_key
        if key is not None and key.text is not None and is_token_uri(key.text):
            # It reads its own files, and connects to its device.
            code.append(f"{server.heading}: the module of private_key's token")
    if protocol.runs_user_code:
        code.append(f"{server.heading}: {protocol.where}")
    return Reach(
        reads=frozenset(directory / name for name in protocol.reads),
        ports=frozenset(protocol.connects_to),
        user_code=tuple(code),
    )


def reach_of_client(client: ReadClient) -> Reach:
    """:returns: what a client gate needs: its targets."""
    targets = [one.target for one in client.configuration.parsed(parse_target)]
    foreign = any(one.is_foreign for one in targets)
    return Reach(
        ports=frozenset(ports_of(targets)),
        user_code=(f"{client.block.heading}: target",) if foreign else (),
    )


def reach_of_fetches(fetches: Iterable[Fetch]) -> Reach:
    """:returns: what is needed to fetch documents and to keep them."""
    found = tuple(fetches)
    trusted = system_store() if any(one.url.is_https for one in found) else ()
    return Reach(
        reads=frozenset((*(one.path for one in found), *(Path(one) for one in trusted if one))),
        writes=frozenset(one.path for one in found),
        ports=frozenset(one.url.port for one in found),
    )


def reach_of_registries(registries: Iterable[LoadedRegistry]) -> Reach:
    """:returns: what is needed to ask the stores."""
    ports: set[int] = set()
    any_port = False
    for registry in registries:
        found = ports_of_store(registry.options.url)
        any_port |= found is None
        ports |= found or set()
    return Reach(ports=frozenset(ports), any_port=any_port)


def reach_of_acme(wanted: Iterable[WantedCertificate]) -> Reach:
    """:returns: what is needed to order certificates and to keep them."""
    found = tuple(wanted)
    trusted = {Path(one) for one in system_store() if one} if found else set()
    files = {one.storage.certificate_path(one.file_name) for one in found}
    return Reach(
        reads=frozenset(trusted | files),
        writes=frozenset(files),
        ports=frozenset(parse_url(one.directory).port for one in found),
    )


def reach_of_gate(
    settings: model.Settings,
    hosts: Iterable[Host],
    admin: AdminEndpoint | None,
    directory: Path,
) -> Reach:
    """
    :param hosts: of all servers and client gates.
    :param directory: where relative paths start.
    :returns: what is needed for the logs and for unix sockets.
    """
    return Reach(writes=frozenset(_written(settings, hosts, admin, directory)))


def _written(
    settings: model.Settings,
    hosts: Iterable[Host],
    admin: AdminEndpoint | None,
    directory: Path,
) -> Iterator[Path]:
    for block in (settings.audit, settings.log):
        if block is not None and block.file is not None:
            yield directory / block.file.value
    for host in hosts:
        for address in host.addresses:
            if isinstance(address, UnixAddress):
                yield Path(address.path)
    if admin is not None:
        yield from (place for place in admin.places if isinstance(place, Path))
