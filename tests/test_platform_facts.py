"""
What the gate takes for granted of OpenSSL, pyOpenSSL and Twisted.

None of this is ours.  If one of these fails after an upgrade, the code that
leans on it has to be thought through again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from mtlsgate.certificates.token import TokenKey
from mtlsgate.testing import Authority, Client, Credential, RecordingFactory, Version, self_signed
from tests.kits.gate import Log, localhost

ROOT = Authority.create("Root")
LOWER = ROOT.intermediate("Lower")
ALICE = LOWER.issue("alice")
STRANGER = Authority.create("Other").issue("stranger")

Verify = Callable[[SSL.Connection, X509, int, int, int], Any]


def as_openssl_says(_: object, __: object, ___: int, ____: int, ok: int) -> bool:
    return bool(ok)


def context(
    verify: Verify = as_openssl_says,
    trust: Sequence[x509.Certificate] = (ROOT.certificate,),
    partial: bool = True,
    session_id: bytes | None = b"x",
) -> SSL.Context:
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.use_certificate(localhost().chain[0].x509)
    key = localhost().private_key
    assert not isinstance(key, TokenKey)
    made.use_privatekey(key)
    made.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    if session_id is not None:
        made.set_session_id(session_id)
    store = made.get_cert_store()
    assert store is not None
    if partial:
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    for one in trust:
        store.add_cert(X509.from_cryptography(one))
    return made


@implementer(IOpenSSLServerConnectionCreator)
class Server:
    """
    A bare Twisted TLS server.

    :ivar connections: OpenSSL's, in order.
    """

    def __init__(self, context: SSL.Context) -> None:
        self.context = context
        self.connections: list[SSL.Connection] = []
        self.clock = Clock()
        self.application = RecordingFactory(echo=True)
        self.factory = TLSMemoryBIOFactory(self, False, self.application, clock=self.clock)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self.connections.append(SSL.Connection(self.context, None))
        return self.connections[-1]

    def client(self, who: Credential | None, version: Version, **options: Any) -> Client:
        """:returns: a client that has talked to the server."""
        client = Client(
            self.factory,
            who,
            clock=self.clock,
            min_version=version,
            max_version=version,
            **options,
        )
        client.send(b"x")
        client.receive()
        return client


Call = tuple[int, int, int]


def calls(
    who: Credential, version: Version, answer: bool | None = None, **options: Any
) -> list[Call]:
    """:returns: (depth, error, ok) of each call of a verify callback."""
    seen: list[Call] = []

    def verify(_: object, __: object, error: int, depth: int, ok: int) -> bool:
        seen.append((depth, error, ok))
        return bool(ok) if answer is None else answer

    Server(context(verify, **options)).client(who, version)
    return seen


def test_from_the_root_down(version: Version) -> None:
    """The verify callback is called for each certificate, depth 0 last."""
    assert calls(ALICE, version) == [(2, 0, 1), (1, 0, 1), (0, 0, 1)]


def test_an_error_comes_first(version: Version) -> None:
    """An error is reported with ok 0, and overriding it leads on as if it had not been:
    never override one."""
    assert calls(STRANGER, version) == [(0, 20, 0)]
    overridden = calls(STRANGER, version, True)
    assert overridden[0] == (0, 20, 0)
    assert overridden[-1] == (0, 0, 1) or all(ok == 0 for _, _, ok in overridden)
    assert Server(context(lambda *_: True)).client(STRANGER, version).established


def test_nothing_to_ask_the_connection_for(version: Version) -> None:
    """In the callback there are no peer certificates but the callback's own."""
    seen: list[object] = []

    def verify(connection: SSL.Connection, *_: object) -> bool:
        seen.append(connection.get_peer_certificate())
        seen.append(connection.get_peer_cert_chain())
        return True

    Server(context(verify)).client(ALICE, version)
    assert set(seen) == {None}


def test_partial_chain(version: Version) -> None:
    """With it an intermediate is an anchor, and OpenSSL goes no further."""
    assert calls(ALICE, version, trust=[LOWER.certificate]) == [(1, 0, 1), (0, 0, 1)]
    assert calls(ALICE, version, trust=[LOWER.certificate, ROOT.certificate])[0] == (1, 0, 1)
    without = calls(ALICE, version, trust=[LOWER.certificate], partial=False)
    assert without[0][1:] == (2, 0)


def test_above_a_trusted_leaf(version: Version) -> None:
    """A leaf is an anchor, too; but the path goes on through whatever was sent along,
    which must be fit and is not trusted."""
    assert calls(ALICE, version, trust=[ALICE.certificate]) == [(1, 0, 1), (0, 0, 1)]
    server = Server(context(trust=[ALICE.certificate]))
    assert server.client(ALICE, version, chain=[]).established
    assert server.client(ALICE, version).established
    chains = [one.get_verified_chain(as_cryptography=True) for one in server.connections]
    assert chains == [[ALICE.certificate], [ALICE.certificate, LOWER.certificate]]


def test_a_leaf_is_no_anchor_for_others(version: Version) -> None:
    """What a trusted certificate issued is refused where that is not a CA (79)."""
    pin = self_signed("pin")
    child = Authority(pin.certificate, pin.private_key).issue("child")
    assert calls(child, version, trust=[pin.certificate])[0] == (1, 79, 0)


def test_a_trusted_ca_is_a_client(version: Version) -> None:
    """OpenSSL itself takes an anchor for a client: CA:TRUE at depth 0 is ours to refuse."""
    ca = self_signed("ca", is_ca=True)
    assert Server(context(trust=[ca.certificate])).client(ca, version).established


def test_truthy_admits(version: Version) -> None:
    """Any truthy answer does."""
    assert Server(context(lambda *_: "no")).client(STRANGER, version).established


def test_a_refusal_is_an_alert(version: Version) -> None:
    """Refused while OpenSSL has no objection: the client reads internal_error, and the
    server's error is no different from any other."""
    server = Server(context(lambda *_: False))
    client = server.client(ALICE, version)
    assert client.alert is not None
    assert "internal error" in client.alert
    assert server.application.protocols[0].lost is not None


def test_an_exception_in_the_callback(version: Version, log: Log) -> None:
    """Surfaces out of do_handshake as itself, which Twisted does not expect."""

    def fail(*_: object) -> bool:
        raise LookupError

    client = Server(context(fail)).client(ALICE, version)
    assert client.alert is None
    log.expect_failure(LookupError)


def test_zero_return_in_the_handshake(log: Log) -> None:
    """close_notify in the middle of a handshake: an error without a queue, which
    Twisted does not expect either."""
    server = Server(context())
    client = Client(server.factory, ALICE, clock=server.clock, max_version="1.2")
    client.step()
    client.raw_send(bytes.fromhex("15030300020100"))
    log.expect_failure(IndexError)


def test_the_chain_is_without_the_leaf(version: Version) -> None:
    """On the server's side: its first is whatever the client appended."""
    server = Server(context())
    chain = [STRANGER.certificate, *ALICE.intermediates]
    server.client(ALICE, version, chain=chain)
    [connection] = server.connections
    assert connection.get_peer_cert_chain(as_cryptography=True) == chain
    assert connection.get_peer_certificate(as_cryptography=True) == ALICE.certificate
    verified = connection.get_verified_chain(as_cryptography=True)
    assert verified == [ALICE.certificate, LOWER.certificate, ROOT.certificate]


def test_a_verified_chain_is_no_proof(version: Version) -> None:
    """It is there after a failed verification, too."""
    server = Server(context())
    server.client(STRANGER, version)
    assert server.connections[0].get_verified_chain(as_cryptography=True) == [STRANGER.certificate]


def test_app_data_is_twisteds(version: Version) -> None:
    """Twisted keeps its protocol there, or nothing: not a place for ours."""
    seen: list[object] = []

    def verify(connection: SSL.Connection, *_: object) -> bool:
        seen.append(connection.get_app_data())
        return True

    Server(context(verify)).client(ALICE, version)
    assert all(one is None or isinstance(one, TLSMemoryBIOProtocol) for one in seen)


def test_a_subclass_of_connection(version: Version) -> None:
    """Callbacks get the very connection that was made, so that it can carry things."""
    seen: list[SSL.Connection] = []

    def verify(connection: SSL.Connection, *_: object) -> bool:
        seen.append(connection)
        return True

    server = Server(context(verify))
    server.client(ALICE, version)
    assert {id(one) for one in seen} == {id(server.connections[0])}


@pytest.mark.parametrize(
    ("no_ticket", "no_cache", "resumes"),
    [(False, False, True), (True, False, True), (False, True, True), (True, True, False)],
)
def test_two_settings_together_stop_resumption(
    version: Version, no_ticket: bool, no_cache: bool, resumes: bool
) -> None:
    """It takes OP_NO_TICKET and SESS_CACHE_OFF to stop it, and meets no callback."""
    seen: list[int] = []

    def verify(_: object, __: object, ___: int, depth: int, ____: int) -> bool:
        seen.append(depth)
        return True

    made = context(verify)
    if no_ticket:
        made.set_options(SSL.OP_NO_TICKET)
    if no_cache:
        made.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    server = Server(made)
    first = server.client(ALICE, version)
    assert first.session is not None
    seen.clear()
    second = server.client(ALICE, version, session=first.session)
    assert second.established
    assert second.resumed is resumes
    assert seen == ([] if resumes else [2, 1, 0])


def test_without_a_session_id_context(version: Version) -> None:
    """An attempt to resume would be an error, and not a full handshake."""
    server = Server(context(session_id=None))
    first = server.client(ALICE, version)
    if first.session is None:
        pytest.skip("no session to offer")
    assert not server.client(ALICE, version, session=first.session).established


def test_another_context_has_other_ticket_keys(version: Version) -> None:
    first = Server(context()).client(ALICE, version)
    second = Server(context()).client(ALICE, version, session=first.session)
    assert second.established
    assert not second.resumed


def test_set_context_keeps_the_verify_callback(version: Version) -> None:
    """After SNI switched contexts, mode and callback are still the first one's; the
    store is the second one's."""
    seen: list[str] = []

    def of(name: str) -> Verify:
        def verify(_: object, __: object, ___: int, ____: int, ok: int) -> bool:
            seen.append(name)
            return bool(ok)

        return verify

    first = context(of("first"))
    second = context(of("second"), trust=[STRANGER.certificate])
    first.set_tlsext_servername_callback(lambda connection: connection.set_context(second))
    server = Server(first)
    assert server.client(STRANGER, version, server_name="x").established
    assert not server.client(ALICE, version, server_name="x").established
    assert set(seen) == {"first"}


def test_declining_alpn(version: Version) -> None:
    """NO_OVERLAPPING_PROTOCOLS leaves the extension out, and nothing breaks."""
    made = context()
    made.set_alpn_select_callback(lambda *_: SSL.NO_OVERLAPPING_PROTOCOLS)
    client = Server(made).client(ALICE, version, alpn=["x"])
    assert client.established
    assert client.negotiated_alpn is None


def test_the_application_is_built_before_the_handshake(version: Version) -> None:
    """Twisted's TLS makes the wrapped protocol at once: hence the doorkeeper."""
    server = Server(context())
    client = Client(server.factory, STRANGER, clock=server.clock)
    assert server.application.protocols[0].made
    client.handshake()
    assert not client.established


def test_no_certificate_after_the_end(version: Version) -> None:
    """getPeerCertificate fails once the connection is lost: hence VerifiedPeer."""
    server = Server(context())
    client = server.client(ALICE, version)
    client.reset()
    transport = server.application.protocols[0].transport
    assert isinstance(transport, TLSMemoryBIOProtocol)
    with pytest.raises(AttributeError):
        transport.getPeerCertificate()


def test_no_handshake_timeout() -> None:
    """Twisted has none."""
    server = Server(context())
    client = Client(server.factory, ALICE, clock=server.clock)
    client.step()
    server.clock.advance(10**6)
    assert not client.disconnected


def test_x509_is_compared_by_identity() -> None:
    """Compare DER, or cryptography's certificates."""
    one, other = (X509.from_cryptography(ROOT.certificate) for _ in range(2))
    assert one != other
    assert one.to_cryptography() == other.to_cryptography()
