"""
What a target said last on a connection that is lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
from attrs import define
from twisted.internet.interfaces import IProtocol, ISSLTransport
from zope.interface import directlyProvides
from zope.interface.interface import InterfaceClass

from mtlsgate.protocols.http.last_words import LastWords


@define(slots=False)
class Transport:
    """What has a socket."""

    fileno: Callable[[], int]


def test_what_was_not_read_is_there() -> None:
    """Also when the first descriptor is shut and closed; and it never waits."""
    ours, theirs = socket.socketpair()
    with theirs:
        words = LastWords(Transport(ours.fileno))
        assert words.read() == b""
        theirs.sendall(b"no")
        theirs.shutdown(socket.SHUT_WR)
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        assert words.read() == b"no"
        assert words.read() == b""
        words.close()
        words.close()
        assert words.read() == b""


def test_it_does_not_read_without_end() -> None:
    """A target may go on sending."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        words = LastWords(Transport(ours.fileno))
        sent = 0
        while sent < 2**18:
            try:
                sent += theirs.send(bytes(2**16))
            except BlockingIOError:
                break
        assert 0 < len(words.read()) <= 2**18
        words.close()


@pytest.mark.parametrize("interface", [ISSLTransport, IProtocol])
def test_ciphertext_is_no_last_word(interface: InterfaceClass) -> None:
    """Under TLS the socket holds what nobody can read any more."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = Transport(ours.fileno)
        directlyProvides(transport, interface)
        theirs.sendall(b"secret")
        assert LastWords(transport).read() == b""


def test_without_a_descriptor_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in memory nor when there is none to spare."""
    assert LastWords(object()).read() == b""

    def none_left(descriptor: int) -> int:
        raise OSError("too many")

    monkeypatch.setattr(os, "dup", none_left)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"no")
        assert LastWords(Transport(ours.fileno)).read() == b""
