"""
A request to the admin endpoint, as its routes see it.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from attrs import frozen
from twisted.internet.address import UNIXAddress

from mtlsgate.admin.answers import BadRequest, Starting
from mtlsgate.admin.site import AdminRequest
from mtlsgate.interfaces import IGate, IVerifiedPeer
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.peer import address_text
from mtlsgate.text import shown

_MOST_PARAMETERS = 10


@frozen
class AdminCall:
    """
    A request that the guard lets through.

    :ivar query: its parameters; each occurs once.
    :ivar body: its content.
    :ivar who: the caller, for the log.
    :ivar _find_gate: finds the running gate; raises LookupError if there is none.
    """

    query: dict[str, str]
    body: bytes
    who: str
    _find_gate: Callable[[], IGate]

    @property
    def gate(self) -> Any:
        """
        The running gate.

        :raises Starting: if it does not run yet.
        """
        try:
            return self._find_gate()
        except LookupError as error:
            raise Starting from error

    def only(self, *names: str) -> None:
        """
        Refuse unknown parameters: a misspelt one must not be ignored.

        :raises BadRequest: if there are other parameters.
        """
        for name in self.query:
            if name not in names:
                known = ", ".join(names) or "none"
                raise BadRequest(f'unknown parameter "{shown(name)}" (there are: {known})')

    def number(self, name: str, otherwise: int, most: int) -> int:
        """:raises BadRequest: if the parameter is no whole number in that range."""
        text = self.query.get(name, str(otherwise))
        if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) > most:
            raise BadRequest(f"{name} must be a whole number, at most {most}")
        return int(text)

    def flag(self, name: str) -> bool:
        """:raises BadRequest: if the parameter is neither 1 nor 0."""
        text = self.query.get(name, "0")
        if text not in ("0", "1"):
            raise BadRequest(f"{name} must be 1 or 0")
        return text == "1"


def call_of(request: AdminRequest, find_gate: Callable[[], IGate]) -> AdminCall:
    """
    :param find_gate: finds the running gate; raises LookupError if there is none.
    :returns: the request, as a call.
    :raises BadRequest: if its query is not as it should be.
    """
    return AdminCall(_query(request), request.body, _who(request), find_gate)


def text_of(data: bytes) -> str:
    """:returns: a part of a request, as text."""
    return data.decode("ascii", "backslashreplace")


def _query(request: AdminRequest) -> dict[str, str]:
    """:raises BadRequest: if a parameter occurs twice."""
    _, _, text = text_of(request.uri).partition("?")
    # The request's own args leave out parameters without a value, so that
    # "?dry_run" would have no effect.
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise BadRequest("there are too many parameters") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("a parameter is there twice")
    return found


def _who(request: AdminRequest) -> str:
    """:returns: the caller, for the log."""
    transport = request.channel.transport
    peer = IVerifiedPeer(transport, None)
    if peer is not None:
        return f"{subject_of(peer.certificates[0])} at {address_text(peer.address)}"
    address = transport.getPeer()
    if isinstance(address, UNIXAddress):
        return _process(transport)
    return address_text(address)


def _process(transport: Any) -> str:
    """:returns: which process is at the other end of a unix socket."""
    handle = transport.getHandle()
    # Linux: struct ucred.
    size = struct.calcsize("3i")
    known = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _ = struct.unpack("3i", known)
    return f"process {pid} of user {uid}"
