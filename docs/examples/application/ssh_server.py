"""
An SSH server that only known TLS clients reach: python ssh_server.py [127.0.0.1:8443]

    ssh -o "ProxyCommand openssl s_client -quiet -connect %h:%p -cert a.crt -key a.key" \
        -p 8443 alice@gate.example whoami

There is no password and no SSH key: the user name must be the common name of the
certificate by which the gate let the client in.
"""

import sys
from typing import Any

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.avatar import ConchUser
from twisted.conch.interfaces import IConchUser, ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession, wrapProtocol
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python import components, log
from zope.interface import implementer

from mtlsgate import Gate, Rule, VerifiedPeer, verified_peer


class ICertificate(ICredentials):
    """Who the gate says is there, and who the client says it is."""


@implementer(ICertificate)
@frozen
class Certificate:
    peer: VerifiedPeer
    user: str


class ByCertificate(SSHUserAuthServer):
    """SSH's authentication "none": the gate has verified the client."""

    interfaceToMethod = {ICertificate: b"none"}

    def auth_none(self, packet: bytes) -> Any:
        # From the SSH transport to the gate's.
        peer = verified_peer(self.transport)
        assert peer is not None
        return self.portal.login(Certificate(peer, self.user.decode()), None, IConchUser)


@implementer(ICredentialsChecker)
class SameName:
    credentialInterfaces = [ICertificate]

    def requestAvatarId(self, credentials: Certificate) -> VerifiedPeer:
        if credentials.user != credentials.peer.common_name:
            raise UnauthorizedLogin
        return credentials.peer


class User(ConchUser):
    def __init__(self, peer: VerifiedPeer) -> None:
        super().__init__()
        self.peer = peer
        self.channelLookup[b"session"] = SSHSession


@implementer(IRealm)
class Users:
    def requestAvatar(self, peer: VerifiedPeer, mind: object, *interfaces: object) -> Any:
        return IConchUser, User(peer), lambda: None


class Greeting(Protocol):
    """Stands for what your server does."""

    def __init__(self, peer: VerifiedPeer) -> None:
        self.peer = peer

    def connectionMade(self) -> None:
        self.transport.write(f"{self.peer.common_name} by {self.peer.rule}\n".encode())
        self.transport.loseConnection()


@implementer(ISession)
class Session:
    def __init__(self, user: User) -> None:
        self.user = user

    def execCommand(self, channel: Any, command: bytes) -> None:
        greeting = Greeting(self.user.peer)
        greeting.makeConnection(channel)
        channel.makeConnection(wrapProtocol(greeting))

    def openShell(self, channel: Any) -> None:
        self.execCommand(channel, b"")

    def getPty(self, term: bytes, size: object, modes: object) -> None: ...
    def windowChanged(self, size: object) -> None: ...
    def eofReceived(self) -> None: ...
    def closed(self) -> None: ...


components.registerAdapter(Session, User, ISession)


class Server(SSHFactory):
    services = {**SSHFactory.services, b"ssh-userauth": ByCertificate}

    def __init__(self) -> None:
        self.portal = Portal(Users(), [SameName()])
        # For the example; a server keeps its key in a file.
        self.key = Key(Ed25519PrivateKey.generate())

    def getPublicKeys(self) -> dict[bytes, Key]:
        return {b"ssh-ed25519": self.key.public()}

    def getPrivateKeys(self) -> dict[bytes, Key]:
        return {b"ssh-ed25519": self.key}


async def main(reactor: Any, where: str = "*:8443") -> None:
    gate = Gate(
        certificate=("server.crt", "server.key"),
        rules=[Rule("fleet", ca="fleet-ca.crt")],
    )
    await gate.endpoint(reactor, where).listen(Server())
    await Deferred()


if __name__ == "__main__":
    log.startLogging(sys.stdout)
    task.react(main, sys.argv[1:])
