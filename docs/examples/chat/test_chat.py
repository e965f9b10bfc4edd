"""
The chat behind its own gate, in memory: no socket, no sleep, no reactor.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mtlsgate.testing import Authority, Client, Credential, gate

Connect = Callable[[Credential], Client]


@pytest.fixture
def authority() -> Authority:
    """The CA that issues the members' certificates."""
    return Authority.create("Chat CA")


@pytest.fixture
def connect(authority: Authority, tmp_path: Path) -> Connect:
    """Connects clients to the gate of gate.hcl, with fresh certificates."""
    server = authority.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "server.crt").write_bytes(server.pem)
    (tmp_path / "server.key").write_bytes(server.key_pem)
    shutil.copy(Path(__file__).with_name("gate.hcl"), tmp_path)

    clock = Clock()
    chat = gate(tmp_path / "gate.hcl", clock)

    def connect(credential: Credential) -> Client:
        client = Client(chat, credential, clock=clock)
        client.handshake()
        return client

    return connect


def test_members_are_greeted_by_the_name_in_their_certificate(
    authority: Authority, connect: Connect
) -> None:
    """Whoever comes in is told the name that the others will see."""
    assert connect(authority.issue("Alice")).receive() == b"Welcome, Alice!\n"


def test_lines_reach_the_others(authority: Authority, connect: Connect) -> None:
    """A line goes to everyone but its author, under the author's name."""
    alice, bob = connect(authority.issue("Alice")), connect(authority.issue("Bob"))
    assert alice.receive().endswith(b"* Bob is here\n")
    assert bob.receive() == b"Welcome, Bob!\n"

    alice.send(b"hi there\r\n")
    assert bob.receive() == b"Alice: hi there\n"
    assert alice.receive() == b""


def test_quitting_ends_the_connection(authority: Authority, connect: Connect) -> None:
    """/quit is answered with an end in good order, and the others hear of it."""
    alice, bob = connect(authority.issue("Alice")), connect(authority.issue("Bob"))
    bob.send(b"/quit\n")
    assert bob.close_notified
    assert alice.receive().endswith(b"* Bob has left\n")


def test_strangers_do_not_even_reach_the_chat(authority: Authority, connect: Connect) -> None:
    """A CA of the same name is another CA: no greeting, and nobody hears of it."""
    alice = connect(authority.issue("Alice"))
    alice.receive()
    stranger = connect(Authority.create("Chat CA").issue("Mallory"))
    assert not stranger.established
    assert "unknown ca" in (stranger.alert or "")
    assert stranger.receive() == b""
    assert alice.receive() == b""


def test_names_cannot_play_tricks(authority: Authority, connect: Connect) -> None:
    """A name is text that somebody else chose: it stays on its line."""
    eve = connect(authority.issue("Eve\n* Alice is here"))
    assert eve.receive() == b"Welcome, Eve?* Alice is here!\n"
