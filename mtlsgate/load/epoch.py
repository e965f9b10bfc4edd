"""
What a configuration becomes when it is loaded; `mtlsgate.load.loading` loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.config import model
from mtlsgate.errors import Problem
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.expiry import Expiry
from mtlsgate.load.fetches import Fetch
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.reach import Reach, reach_of_registries
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.load.servers import LoadedServer


@frozen
class Shadow:
    """
    A configuration that judges every client, too, and changes nothing.

    :ivar path: its file or directory, absolute.
    :ivar epoch: what was loaded of it, without applications and authorizers; None if
        there is something wrong with it.
    :ivar problems: what is wrong with it, in lines.
    :ivar seen: the files that were read, with their state at that time.
    :ivar barred: what it could ask, but may not: in lines, each with the remedy.
    """

    path: str
    epoch: Epoch | None
    problems: tuple[str, ...] = ()
    seen: Mapping[Path, Stamp] = field(factory=dict, repr=False)
    barred: tuple[str, ...] = ()

    @property
    def reach(self) -> Reach:
        """What is needed to judge by it: to ask its registries."""
        return reach_of_registries(() if self.epoch is None else self.epoch.registries)


@frozen
class Epoch:
    """
    One loaded configuration and all that was built from it.

    :ivar path: the file or files, as the user named them.
    :ivar servers: in file order.
    :ivar settings: the settings for all servers.
    :ivar admin: the admin endpoint, or None.
    :ivar warnings: probable mistakes that do not keep the gate from starting; sorted
        by position.
    :ivar expiries: when certificates, pins and lists expire.
    :ivar clients: the client gates, in file order.
    :ivar fetches: the documents that the gate fetches by itself.
    :ivar reach: what it needs of the machine while the gate runs.
    :ivar delivered: which version of what SPIFFE agents have delivered it has.
    :ivar shadow: the configuration that its settings name to be tried, or None.
    :ivar registries: the stores of devices that its rules ask, in file order.
    :ivar wanted: the certificates of the gate itself that it orders from CAs.
    """

    path: str
    servers: tuple[LoadedServer, ...]
    settings: model.Settings
    admin: AdminEndpoint | None
    warnings: tuple[Problem, ...]
    expiries: tuple[Expiry, ...] = ()
    clients: tuple[LoadedClient, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    reach: Reach = Reach()
    delivered: int = 0
    shadow: Shadow | None = None
    registries: tuple[LoadedRegistry, ...] = ()
    wanted: tuple[WantedCertificate, ...] = ()

    @property
    def reach_with_shadow(self) -> Reach:
        """What it and the configuration in the shadow need."""
        return self.reach if self.shadow is None else self.reach | self.shadow.reach
