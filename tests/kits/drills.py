"""
A development setup on which things go wrong, and a client of it.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from tests.kits.programs import program

#: Root's right to read what nobody may. Its exec takes away what is not in the bounding set.
_OVERRIDES = "-dac_override,-dac_read_search"


@frozen
class Site:
    """
    :ivar path: the directory of the setup.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.path / "gate.hcl"

    def change(self, before: str, after: str) -> None:
        """Edit the configuration, in one step."""
        text = self.config.read_text()
        assert before in text
        beside = self.path / "gate.new"
        beside.write_text(text.replace(before, after))
        beside.replace(self.config)

    def connect(self, port: int, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        """:returns: a connection of the client that is pinned."""
        return self.over(socket.create_connection(("127.0.0.1", port), timeout=60), version)

    def over(self, plain: socket.socket, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        """:returns: the same, on a connected socket."""
        context = ssl.create_default_context(cafile=str(self.path / "ca.crt"))
        context.load_cert_chain(self.path / "client.crt", self.path / "client.key")
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context.wrap_socket(plain, server_hostname="localhost")

    def is_served(self, port: int) -> bool:
        """:returns: whether the client comes in, and gets an echo."""
        with self.connect(port) as client:
            return echoes(client)


def echoes(connection: ssl.SSLSocket, data: bytes = b"knock") -> bool:
    """:returns: whether it comes back."""
    with suppress(OSError):
        connection.sendall(data)
        return connection.recv(len(data)) == data
    return False


def obeying_modes() -> list[str]:
    """:returns: words in front of a command, with which the modes of files hold for root."""
    if os.getuid() != 0:
        return []
    return [program("setpriv"), f"--bounding-set={_OVERRIDES}", f"--inh-caps={_OVERRIDES}"]
