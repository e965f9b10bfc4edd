"""
TLS to a target: who is believed to be it, and what is said before that.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Unpack

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import (
    IProtocol,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mtlsgate.certificates.certificate import view
from mtlsgate.certificates.development_ca import CredentialOptions
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.reasons import Reason
from mtlsgate.testing import (
    Authority,
    Credential,
    RecordingFactory,
    RecordingProtocol,
    Version,
    self_signed,
)
from mtlsgate.tls import client as tls_client
from mtlsgate.tls.client import ClientContext, ServerConnection
from mtlsgate.upstream.tls import TlsClient
from mtlsgate.upstream.verified import HandshakeFailed, NotVerified
from tests.kits.gate import Log
from tests.kits.upstream import MemoryServer, ScriptedEndpoint


@cache
def authority() -> Authority:
    return Authority.create("Backend CA")


@cache
def backend() -> Credential:
    return server("backend.example")


def server(*names: str, **options: Unpack[CredentialOptions]) -> Credential:
    """:returns: a server's certificate of these DNS names."""
    options.setdefault("usages", ["server_auth"])
    return authority().issue("backend.example", **(options | {"dns_names": names}))


class Call:
    """One connection to a server in memory, and what came of it."""

    def __init__(
        self,
        credential: Credential,
        version: Version | None = None,
        name: str = "backend.example",
        client: TlsClient | None = None,
        ask: bool = False,
        preface: bytes = b"",
    ) -> None:
        self.clock = Clock()
        self.server = MemoryServer(credential, self.clock, version, ask, preface=len(preface))
        self.factory = RecordingFactory()
        self.outcome: list[object] = []
        client = client or TlsClient([authority().certificate])
        self.endpoint = client.wrap(self.server, name, preface)
        self.dialling: Deferred[IProtocol] = self.endpoint.connect(self.factory)
        self.dialling.addBoth(self.outcome.append)
        self.server.pump()

    @property
    def error(self) -> BaseException:
        """Why there is no protocol; the application never heard of this server."""
        assert self.factory.protocols == []
        assert self.server.received == b""
        assert self.server.client is None
        assert self.server.transport is not None
        assert not self.server.transport.connected
        [failure] = self.outcome
        return failure.value  # type: ignore[attr-defined, no-any-return]

    @property
    def protocol(self) -> RecordingProtocol:
        [protocol] = self.outcome
        assert isinstance(protocol, RecordingProtocol), protocol
        assert protocol.made
        return protocol


def test_a_verified_server_is_talked_to(version: Version, log: Log) -> None:
    """A server of the right CA and name is talked to, both ways, and asked for by name."""
    call = Call(backend(), version)
    transport = call.protocol.transport
    assert transport is not None
    transport.write(b"question")
    call.server.pump()
    assert call.server.received == b"question"
    call.server.send(b"answer")
    assert call.protocol.received == b"answer"
    assert call.server.asked_for == "backend.example"
    transport.loseConnection()
    call.server.pump()
    assert call.protocol.lost is not None
    assert call.protocol.lost.check(ConnectionDone)


@frozen
class Impostor:
    """
    A server that is not the one meant, or a certificate that is unfit.

    :ivar problem: what is said of it.
    """

    credential: Credential
    problem: str
    name: str = "backend.example"


@cache
def impostors() -> dict[str, Impostor]:
    past = datetime.now(UTC) - timedelta(days=1)
    future = datetime.now(UTC) + timedelta(days=1)
    other_ca = Authority.create("Backend CA")
    no_names = server()
    return {
        "no SAN, though signed by the CA": Impostor(no_names, "neither DNS name nor IP address"),
        "another name": Impostor(server("other.example"), "the certificate is for other.example"),
        "a name below": Impostor(server("a.backend.example"), "for a.backend.example"),
        "a wildcard above": Impostor(server("*.example.com"), r"is for \*.example.com"),
        "an address for a name": Impostor(server(ip_addresses=("127.0.0.1",)), "is for 127.0.0.1"),
        "a name for an address": Impostor(backend(), "is for backend.example", "127.0.0.1"),
        "an address as a DNS name": Impostor(
            server("127.0.0.1"), "names cannot be used", "127.0.0.1"
        ),
        "another address": Impostor(
            server(ip_addresses=("127.0.0.2",)),
            "it is not 127.0.0.1: .* for 127.0.0.2",
            "127.0.0.1",
        ),
        "expired": Impostor(server("backend.example", not_after=past), "its certificate: expired"),
        "not yet valid": Impostor(server("backend.example", not_before=future), "not yet valid"),
        "another CA of the same name": Impostor(
            other_ca.issue(
                "backend.example", dns_names=["backend.example"], usages=["server_auth"]
            ),
            "signature is not the issuer's|issuer is unknown",
        ),
        "another CA": Impostor(
            Authority.create("Elsewhere").issue(
                "backend.example", dns_names=["backend.example"], usages=["server_auth"]
            ),
            "issuer is unknown",
        ),
        "self-signed": Impostor(
            self_signed("x", dns_names=["backend.example"], usages=["server_auth"]), "self-signed"
        ),
        "a client's certificate": Impostor(
            server("backend.example", usages=["client_auth"]), "not meant for TLS servers"
        ),
        "a weak key": Impostor(
            server("backend.example", key=rsa.generate_private_key(65537, 1024)),
            "the key is too weak",
        ),
    }


@pytest.mark.parametrize("case", list(impostors()))
def test_an_impostor_gets_no_byte_and_no_certificate(case: str, version: Version, log: Log) -> None:
    """Whoever does not prove to be the server that was meant is refused, with the reason in
    words; not a byte of the application's was sent, and no client certificate shown."""
    impostor = impostors()[case]
    identity = authority().issue("gate")
    client = TlsClient(
        [authority().certificate], ServerCredential(identity.chain, identity.private_key)
    )
    call = Call(impostor.credential, version, impostor.name, client, ask=True)
    error = call.error
    assert isinstance(error, NotVerified)
    with pytest.raises(NotVerified, match=impostor.problem):
        raise error
    assert str(error).isprintable()


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "2001:db8::1"])
def test_an_address_is_verified_by_the_certificates_addresses(
    name: str, version: Version, log: Log
) -> None:
    """A target that is an IP address is verified by an IP address in the certificate, and
    sent no server name."""
    call = Call(server(ip_addresses=(name,)), version, name)
    assert call.protocol
    assert call.server.asked_for is None


def test_wildcard_and_dot(log: Log) -> None:
    """A wildcard stands for one label, and a final dot of the target's name for nothing."""
    call = Call(server("*.backend.example"), name="db.backend.example.")
    assert call.protocol
    assert call.server.asked_for == "db.backend.example"


def test_server_name_takes_precedence(log: Log) -> None:
    """``server_name`` is what is asked for and verified, whatever the target is called."""
    client = TlsClient([authority().certificate], server_name="backend.example")
    assert Call(backend(), name="127.0.0.1", client=client).protocol
    assert isinstance(Call(server("db"), name="db", client=client).error, NotVerified)


def test_a_name_is_needed() -> None:
    """Where neither the target nor the block says a name there is nothing to verify."""
    client = TlsClient([authority().certificate])
    with pytest.raises(ValueError, match="set server_name"):
        client.wrap(ScriptedEndpoint(), None)


def test_client_certificate(version: Version, log: Log) -> None:
    """The gate shows its own certificate, with the chain as configured, if it is asked."""
    identity = Authority.create("Gates").intermediate("Gates 2").issue("gate")
    client = TlsClient(
        [authority().certificate], ServerCredential(identity.chain, identity.private_key)
    )
    call = Call(backend(), version, client=client, ask=True)
    assert call.protocol
    assert call.server.client == identity.certificate
    assert Call(backend(), version, client=client).server.client is None


def test_intermediate_as_ca(version: Version, log: Log) -> None:
    """An intermediate is a CA to trust like any other; a certificate that is no CA is
    trusted for itself alone."""
    middle = authority().intermediate("Middle")
    issued = middle.issue("x", dns_names=["backend.example"], usages=["server_auth"])
    assert Call(issued, version, client=TlsClient([middle.certificate])).protocol
    pinned = TlsClient([backend().certificate])
    assert Call(backend(), version, client=pinned).protocol
    assert isinstance(Call(server("backend.example"), version, client=pinned).error, NotVerified)


def test_a_pin_says_which_server_it_is(version: Version, log: Log) -> None:
    """A pinned leaf is trusted without a CA and whatever its names are; another leaf of the
    same CA and name is not."""
    pinned = server("elsewhere.example")
    client = TlsClient((), pins=[view(pinned.certificate)])
    call = Call(pinned, version, client=client)
    assert call.protocol
    assert call.server.asked_for == "backend.example"
    failed = Call(server("backend.example"), version, client=client).error
    assert isinstance(failed, NotVerified)
    # It names the attribute that is there, and not that of the CAs.
    assert "server_leaf_certificate" in str(failed)


def test_a_pin_restricts_a_ca(version: Version, log: Log) -> None:
    """With a CA and a pin the path must lead to the CA, and the leaf must be the pin; with a
    server name, the pin must be for that name, too."""
    pins = [view(backend().certificate)]
    client = TlsClient([authority().certificate], pins=pins)
    assert Call(backend(), version, client=client).protocol
    other = Call(server("backend.example"), version, client=client).error
    assert isinstance(other, NotVerified)
    assert other.rejection.reason is Reason.LEAF_MISMATCH
    stranger = TlsClient([Authority.create("Elsewhere").certificate], pins=pins)
    assert isinstance(Call(backend(), version, client=stranger).error, NotVerified)
    named = TlsClient((), server_name="other.example", pins=pins)
    wrong = Call(backend(), version, client=named).error
    assert isinstance(wrong, NotVerified)
    assert wrong.rejection.reason is Reason.WRONG_SERVER_NAME


def test_an_expired_pin_is_refused(version: Version, log: Log) -> None:
    """A pinned leaf counts only inside its validity."""
    past = datetime.now(UTC) - timedelta(days=1)
    old = server("backend.example", not_before=past - timedelta(days=2), not_after=past)
    failed = Call(old, version, client=TlsClient((), pins=[view(old.certificate)])).error
    assert isinstance(failed, NotVerified)
    assert failed.rejection.reason is Reason.EXPIRED


def test_a_preface_goes_out_before_tls(version: Version, log: Log) -> None:
    """A preface goes out before TLS begins."""
    call = Call(backend(), version, preface=b"PROXY UNKNOWN\r\n")
    assert call.protocol
    assert call.server.plain == b"PROXY UNKNOWN\r\n"


@pytest.mark.parametrize(
    "failing", ["name_problem", "path_problem"], ids=["at the name", "at the path"]
)
def test_exceptions_refuse(
    failing: str, version: Version, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception while a certificate is judged refuses it, and ends the handshake in good
    order."""

    def raises(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(tls_client, failing, raises)
    credential = backend() if failing == "name_problem" else impostors()["expired"].credential
    call = Call(credential, version)
    assert str(call.error) == "its certificate could not be judged"
    assert call.server.error is not None
    assert "alert" in call.server.error
    log.expect_failure(ZeroDivisionError)


def test_a_callback_that_never_ran_refuses(
    version: Version, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if OpenSSL completed a handshake without asking, nothing would be built."""
    never = property(lambda _: False, lambda *_: None)
    monkeypatch.setattr(ServerConnection, "verified", never, raising=False)
    call = Call(backend(), version)
    [failure] = call.outcome
    assert failure.check(NotVerified)  # type: ignore[attr-defined]
    assert call.factory.protocols == []
    assert call.server.received == b""
    assert call.server.transport is not None
    assert call.server.transport.is_aborted


def test_not_tls(log: Log) -> None:
    """A server that does not speak TLS is an error in words."""
    clock = Clock()
    target = MemoryServer(backend(), clock)
    outcome: list[object] = []
    client = TlsClient([authority().certificate])
    client.wrap(target, "backend.example").connect(RecordingFactory()).addBoth(outcome.append)
    target.say(b"220 smtp.example ESMTP\r\n")
    clock.advance(0)
    [failure] = outcome
    assert failure.check(HandshakeFailed)  # type: ignore[attr-defined]
    assert "it does not speak TLS: " in str(failure.value)  # type: ignore[attr-defined]


def test_closed_in_the_handshake(log: Log) -> None:
    """A server that hangs up in the handshake is an error in words."""
    clock = Clock()
    target = MemoryServer(backend(), clock)
    outcome: list[object] = []
    client = TlsClient([authority().certificate])
    client.wrap(target, "backend.example").connect(RecordingFactory()).addBoth(outcome.append)
    target.finish()
    [failure] = outcome
    assert failure.check(HandshakeFailed)  # type: ignore[attr-defined]
    assert str(failure.value) == "it closed the connection in the TLS handshake"  # type: ignore[attr-defined]


def test_refused_connection(log: Log) -> None:
    """A connection that never came about fails as its endpoint does."""
    endpoint = ScriptedEndpoint()
    endpoint.outcome = ConnectionRefusedError()
    outcome: list[object] = []
    client = TlsClient([authority().certificate])
    client.wrap(endpoint, "x").connect(RecordingFactory()).addBoth(outcome.append)
    [failure] = outcome
    assert failure.check(ConnectionRefusedError)  # type: ignore[attr-defined]


@pytest.mark.parametrize("when", ["dialling", "shaking hands"])
def test_a_cancelled_connection_leaves_nothing(when: str, log: Log) -> None:
    """Who no longer waits leaves no connection behind, and no protocol is built."""
    clock = Clock()
    server_end, endpoint = MemoryServer(backend(), clock), ScriptedEndpoint()
    endpoint.hangs = True
    below: IStreamClientEndpoint = endpoint if when == "dialling" else server_end
    factory = RecordingFactory()
    outcome: list[object] = []
    client = TlsClient([authority().certificate])
    dialling = client.wrap(below, "backend.example").connect(factory)
    dialling.addBoth(outcome.append)
    dialling.cancel()
    if when == "dialling":
        assert endpoint.cancelled == 1
    else:
        assert server_end.transport is not None
        assert server_end.transport.is_aborted
        clock.advance(0)
    assert len(outcome) == 1
    assert factory.protocols == []


def test_an_application_that_fails(version: Version, log: Log) -> None:
    """A factory that raises costs its own connection, and whoever dials hears of it."""

    class Broken(RecordingFactory):
        def buildProtocol(self, addr: object) -> RecordingProtocol:
            raise ZeroDivisionError

    clock = Clock()
    target = MemoryServer(backend(), clock, version)
    outcome: list[object] = []
    client = TlsClient([authority().certificate])
    client.wrap(target, "backend.example").connect(Broken()).addBoth(outcome.append)
    target.pump()
    [failure] = outcome
    assert failure.check(ZeroDivisionError)  # type: ignore[attr-defined]
    assert target.transport is not None
    assert target.transport.is_aborted


def test_it_provides_what_twisted_asks_for() -> None:
    """What Twisted asks for is provided."""
    client = TlsClient([authority().certificate])
    assert verifyObject(IStreamClientEndpoint, client.wrap(ScriptedEndpoint(), "x"))


def test_system_store_is_consulted_only_if_named(
    tmp_path: Path, version: Version, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of a CA in the system's trust store is believed where that is asked for, and
    nowhere else."""
    store = tmp_path / "store.pem"
    store.write_bytes(authority().pem)
    found = ssl.DefaultVerifyPaths(str(store), "", "", "", "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: found)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    assert Call(backend(), version, client=TlsClient(None)).protocol
    elsewhere = TlsClient([Authority.create("Elsewhere").certificate])
    assert isinstance(Call(backend(), version, client=elsewhere).error, NotVerified)


def test_a_server_of_which_nothing_is_known_is_nobody() -> None:
    """A CA alone does not say which of its servers is meant."""
    with pytest.raises(ValueError, match="neither a name nor a pin"):
        ClientContext([authority().certificate]).connection(None)


def test_cipher_suites() -> None:
    """No cipher suite without forward secrecy and AEAD is offered."""
    connection = ClientContext([authority().certificate]).connection("x")
    suites = connection.get_cipher_list()
    assert suites
    assert all(
        suite.startswith(("TLS_", "ECDHE-")) and ("GCM" in suite or "CHACHA20" in suite)
        for suite in suites
    )
