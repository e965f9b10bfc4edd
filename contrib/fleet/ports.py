"""
Ports that belong to a fleet before its programs listen on them.
"""

from __future__ import annotations

import socket

from attrs import define, field


@define(eq=False)
class Ports:
    """
    Ports on loopback that nobody else gets.  Each is bound here and listens to nothing, with
    the options with which a program may bind it again.
    """

    _numbers: dict[str, int] = field(factory=dict)
    _reserved: list[socket.socket] = field(factory=list)

    def __getitem__(self, name: str) -> int:
        """:returns: the port of that name, always the same."""
        if name not in self._numbers:
            self.reserve(name, 0)
        return self._numbers[name]

    def reserve(self, name: str, number: int) -> None:
        """
        :param number: the port; 0 for any that is free.
        :raises OSError: if it is in use.
        """
        reserved = socket.socket()
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            reserved.setsockopt(socket.SOL_SOCKET, option, 1)
        reserved.bind(("127.0.0.1", number))
        self._reserved.append(reserved)
        self._numbers[name] = reserved.getsockname()[1]

    def address(self, name: str) -> str:
        """:returns: the port of that name, with the host in front."""
        return f"127.0.0.1:{self[name]}"
