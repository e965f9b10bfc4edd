"""
The outline of a configuration.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from mtlsgate.config import model
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.listen_addresses import Host


class Configured(Protocol):
    """What an outline and an epoch have in common."""

    @property
    def path(self) -> str:
        """The file or files, as the user named them."""

    @property
    def settings(self) -> model.Settings:
        """The settings for all servers."""

    @property
    def admin(self) -> AdminEndpoint | None:
        """The admin endpoint, or None."""


@frozen
class Outline:
    """
    What is known of a configuration without its certificates, keys and protocols.

    :ivar path: the file or files, as the user named them.
    :ivar hosts: where its servers listen, in file order; then its client gates.
    :ivar settings: the settings for all servers.
    :ivar admin: the admin endpoint, or None.
    """

    path: str
    hosts: tuple[Host, ...]
    settings: model.Settings
    admin: AdminEndpoint | None
