"""
Builds a client gate from its ``client`` block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.clientgate.configuration import ClientConfiguration
from mtlsgate.clientgate.gate import ClientGate
from mtlsgate.config import Located, Misconfigured, model
from mtlsgate.config.decode import Decoder
from mtlsgate.config.material import looks_like_material
from mtlsgate.errors import Position
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.terms import Terms
from mtlsgate.load.address_conflicts import Occupant
from mtlsgate.load.addresses import HostError
from mtlsgate.load.expiry import Expiry, Kind, expiry_of
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import Host
from mtlsgate.load.target_certificates import problems_of
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import quoted
from mtlsgate.upstream.checks import ConnectCheck, HealthChecker
from mtlsgate.upstream.state import TargetStates
from mtlsgate.upstream.targets import parse_target
from mtlsgate.upstream.tls import TlsClient

#: The mode of a unix socket: of one that anybody may open, the system tells the user.
_MODE, _MODE_WITH_UIDS = 0o600, 0o666


@frozen
class LoadedClient:
    """
    One client gate and what was built for it.

    :ivar model: its block.
    :ivar hosts: its addresses.
    :ivar gate: connects programs to its targets.
    """

    model: model.Client
    hosts: tuple[Host, ...]
    gate: ClientGate


@frozen
class ReadClient:
    """
    A ``client`` block that was read.

    :ivar block: the block.
    :ivar configuration: what it says.
    :ivar written: its addresses, in order; None for a wrong one.
    """

    block: model.Client
    configuration: ClientConfiguration
    written: tuple[Host | None, ...]

    @property
    def occupant(self) -> Occupant:
        """The client gate, as far as addresses are concerned."""
        return Occupant(self.block.heading, self.configuration.hosts, is_server=False)


class ClientReader:
    """
    Builds the client gates of one load.

    :ivar report: where problems go.
    """

    def __init__(
        self,
        decoder: Decoder,
        files: CertificateFiles,
        now: Callable[[], datetime],
        states: TargetStates,
        agents: Agents,
    ) -> None:
        """
        :param decoder: reads the blocks.
        :param files: reads the files that they name.
        :param now: returns the time to judge certificates by.
        :param states: what is known of targets.
        :param agents: what SPIFFE agents have delivered.
        """
        self.report = decoder.report
        self._decoder = decoder
        self._files = files
        self._now = now
        self._states = states
        self._agents = agents

    def read(self, block: model.Client, parse: Callable[..., Host]) -> ReadClient | None:
        """
        :param parse: as `parse_host`.
        :returns: what the block says; None if the report says what is wrong.
        """
        errors_before = len(self.report.errors)
        found = self._decoder.decode(ClientConfiguration, block.body, block.at, block.heading)
        if found is None or len(self.report.errors) != errors_before:
            return None
        mode = _MODE if found.allow_uids is None else _MODE_WITH_UIDS
        parse = partial(parse, unix_mode=mode)
        hosts = tuple(self._host(one, block, parse) for one in found.hosts)
        if not found.unsafe_listen:
            for written, host in zip(found.hosts, hosts, strict=True):
                self._refuse_remote(written, host, block)
        return ReadClient(block, found, hosts)

    def _host(
        self, host: Located[str], block: model.Client, parse: Callable[[str], Host]
    ) -> Host | None:
        try:
            return parse(host.value)
        except HostError as error:
            name = "this" if looks_like_material(host.value) else quoted(host.value)
            self.report.error(host.at, block.heading, f"hosts: {name}: {error}")
            return None

    def _refuse_remote(self, written: Located[str], host: Host | None, block: model.Client) -> None:
        if host is not None and not host.is_local:
            self.report.error(
                written.at,
                block.heading,
                f"hosts: {quoted(written.value)}: other machines may connect there, in plaintext: "
                'write a loopback address, as "127.0.0.1:6379", or "unix:/run/client.sock", or '
                "set unsafe_listen = true",
            )

    def build(
        self, client: ReadClient, settings: model.Settings, reactor: Callable[[], object]
    ) -> LoadedClient | None:
        """
        :param settings: used for what the block does not set.
        :param reactor: returns what makes the connections.
        :returns: the client gate; None if the report says what is wrong.
        """
        errors_before, block = len(self.report.errors), client.block
        try:
            gate = self._gate(block, client.configuration, settings, reactor)
        except Misconfigured as error:
            self.report.error(error.at, block.heading, error.text)
            return None
        if len(self.report.errors) != errors_before:
            return None
        self._lint(block, client.configuration, gate.tls)
        return LoadedClient(block, tuple(host for host in client.written if host), gate)

    def _gate(
        self,
        block: model.Client,
        configuration: ClientConfiguration,
        settings: model.Settings,
        reactor: Callable[[], object],
    ) -> ClientGate:
        environment = ProtocolEnvironment(
            block.label,
            self._files.directory,
            reactor,
            read_file=self._files.read_file,
            target_states=self._states,
            agents=self._agents,
        )
        tls, targets = configuration.tls.client(environment), configuration.parsed(parse_target)
        backends, checker = configuration.connector(targets, environment, tls), None
        if configuration.health_check is not None:
            clock = cast(IReactorTime, environment.reactor)
            check = ConnectCheck(backends, clock)
            checker = HealthChecker(backends, check, configuration.health_check, clock)
        return ClientGate(
            block.label,
            tuple(one.target for one in targets),
            backends,
            tls,
            terms_of(configuration, settings),
            configuration.uids(),
            self._now,
            checker,
        )

    def _lint(
        self, block: model.Client, configuration: ClientConfiguration, tls: TlsClient
    ) -> None:
        key = configuration.tls.own_key
        if key is not None:
            self._files.warn_if_exposed(key, block.heading)
        for at, text in _certificates(configuration, tls, self._now()):
            self.report.warn(at, block.heading, text)


def _certificates(
    configuration: ClientConfiguration, tls: TlsClient, now: datetime
) -> Iterator[tuple[Position, str]]:
    """What is wrong, or soon will be, with the certificates of a client gate."""
    block = configuration.tls
    if block.own is None and block.spiffe is None:
        yield block.at, "shows no certificate: set client_certificate, if the target asks for one"
    places = {
        Kind.CLIENT_CERTIFICATE: block.own,
        Kind.TARGET_CA: block.server_ca_certificate,
        Kind.TARGET_PIN: block.server_leaf_certificate,
    }
    for kind, text in problems_of(tls, now):
        material = places[kind]
        assert material is not None
        yield material.at, text


def terms_of(configuration: ClientConfiguration, settings: model.Settings) -> Terms:
    """:returns: the terms.  What the block does not set comes from the settings."""

    def stated(name: str) -> Any:
        value = getattr(configuration, name)
        return getattr(settings, name) if value is None else value

    return Terms(
        limits=Limits(
            max_connections=stated("max_connections"), max_handshakes=stated("max_handshakes")
        ),
        idle_timeout=stated("idle_timeout"),
        judged_on_reload=stated("on_reload") != "keep",
        revoke_grace=stated("revoke_grace") or 0.0,
        log_admitted=stated("log_admitted") is not False,
    )


def expiries_of_client(client: LoadedClient) -> Iterator[Expiry]:
    """:returns: what expires of a client gate."""
    for kind, certificates in certificates_of_client(client):
        if certificates:
            yield expiry_of(kind, client.gate.name, None, certificates)


def certificates_of_client(client: LoadedClient) -> Iterator[tuple[Kind, Sequence[Certificate]]]:
    """:returns: the certificates that a client gate was configured with."""
    tls = client.gate.tls
    yield Kind.CLIENT_CERTIFICATE, () if tls.credential is None else tls.credential.chain
    yield Kind.TARGET_CA, tls.anchors or ()
    yield Kind.TARGET_PIN, tls.pins
