"""
A line chat in which everyone goes by the name in their certificate.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mtlsgate.interfaces import IVerifiedPeer


class Chatter(LineOnlyReceiver):
    """One connection."""

    delimiter = b"\n"
    MAX_LENGTH = 1000

    def __init__(self, room: ChatFactory) -> None:
        self.room = room
        self.name = ""

    def connectionMade(self) -> None:
        """The client is verified by now: this is the name that its CA gave it."""
        peer = IVerifiedPeer(self.transport)
        self.name = printable(peer.common_name or peer.sha256[:12])
        self.say(f"{self.room.greeting}, {self.name}!")
        self.room.join(self)

    def lineReceived(self, line: bytes) -> None:
        """Pass a line on to the others, or leave."""
        text = printable(line.decode("utf-8", "replace").rstrip("\r"))
        if text == "/quit":
            assert self.transport is not None
            self.transport.loseConnection()
        else:
            self.room.tell_others(self, f"{self.name}: {text}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say goodbye to the others."""
        self.room.leave(self)

    def say(self, text: str) -> None:
        """Send this client a line."""
        self.sendLine(text.encode())


class ChatFactory(Factory):
    """
    The room.

    :ivar greeting: what newcomers are greeted with.
    :ivar chatters: who is there.
    """

    noisy = False

    def __init__(self, greeting: str = "Hello") -> None:
        self.greeting = greeting
        self.chatters: list[Chatter] = []

    def buildProtocol(self, addr: IAddress | None) -> Chatter:
        """Called for verified clients only."""
        return Chatter(self)

    def join(self, newcomer: Chatter) -> None:
        """Let someone in, and the others know."""
        self.chatters.append(newcomer)
        self.tell_others(newcomer, f"* {newcomer.name} is here")

    def leave(self, leaver: Chatter) -> None:
        """Let someone out, and the others know."""
        self.chatters.remove(leaver)
        self.tell_others(leaver, f"* {leaver.name} has left")

    def tell_others(self, who: Chatter, text: str) -> None:
        """Send a line to everyone else."""
        for chatter in self.chatters:
            if chatter is not who:
                chatter.say(text)


def printable(text: str) -> str:
    """:returns: the text without characters that could upset a terminal."""
    return "".join(one if one.isprintable() else "?" for one in text)
