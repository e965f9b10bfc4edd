"""
A gate in a process of its own whose only client must be listed in a registry.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from attrs import frozen

from mtlsgate.certificates.parsing import parse_certificates
from tests.kits.drills import Site, echoes
from tests.kits.programs import RunningGate, gate

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
#: The time limit of each answer.  A machine that is busy for a moment is no outage.
ANY_TIME = "10s"
#: The same where something does not answer.
SHORT = "1s"


@frozen
class Door:
    """
    A gate that asks a registry, and its client.

    :ivar site: where its files are.
    :ivar gate: the gate.
    """

    site: Site
    gate: RunningGate

    def connect(self, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        """:returns: a connection of the client that is handed over."""
        connection = self.site.connect(self.gate.port("demo"), version)
        assert echoes(connection)
        return connection

    def refuses(self, reason: str) -> None:
        """The client is refused, for a reason, whatever TLS it speaks."""
        for version in VERSIONS:
            with (
                suppress(OSError),
                self.site.connect(self.gate.port("demo"), version) as connection,
            ):
                assert not echoes(connection)
            assert f": {reason}: " in self.gate.read_until(": rejected ")

    def follows(self) -> None:
        """Wait until it follows the registry (again)."""
        self.gate.read_until("registry devices: following ")


def identity_of_client(site: Site) -> str:
    """:returns: what the registry finds the client by."""
    (leaf,) = parse_certificates((site.path / "client.crt").read_bytes())
    return leaf.identity.hex()


def add_registry(site: Site, url: str, **block: str) -> None:
    """Have the configuration ask a registry about the client, which is not pinned any more."""
    attributes = {"url": url, "timeout": ANY_TIME, **block}
    lines = "".join(f'  {name} = "{value}"\n' for name, value in attributes.items())
    site.change('server "demo" {', f'registry "devices" {{\n{lines}}}\n\nserver "demo" {{')
    site.change('leaf_certificate_file = "admitted.crt"', 'registry = "devices"')


@contextmanager
def door(site: Site, url: str, **block: str) -> Iterator[Door]:
    """Run a gate until the block ends; it follows the registry when the block begins."""
    add_registry(site, url, **block)
    with gate(site.config) as running:
        found = Door(site, running)
        found.follows()
        yield found


def ends(connection: ssl.SSLSocket) -> None:
    """Wait until the gate ends a connection."""
    with connection:
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            return
