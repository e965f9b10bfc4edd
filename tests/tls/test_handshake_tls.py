"""
What the gate negotiates: versions, suites, its own certificate, the names in
its CertificateRequest, application protocols.
"""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Version, self_signed
from tests.kits.gate import (
    Log,
    MemoryGate,
    admitted,
    localhost,
    rejected,
    rule,
    server_authority,
    server_credential,
)

ROOT = Authority.create("Root")
ALICE = ROOT.issue("alice")
UNSUPPORTED = rejected(Reason.UNSUPPORTED_TLS, None)


@pytest.fixture
def gate(log: Log) -> MemoryGate:
    return MemoryGate([rule(ca=ROOT)], log)


@pytest.mark.parametrize("old", ["1.0", "1.1"])
def test_old_versions(gate: MemoryGate, old: Version) -> None:
    """TLS 1.2 at least."""
    assert gate.try_in(ALICE, old) == UNSUPPORTED


def test_min_version(log: Log) -> None:
    """TLS 1.3 at least, where the file says so."""
    gate = MemoryGate([rule(ca=ROOT)], log, min_version="1.3")
    assert gate.try_in(ALICE, "1.2") == UNSUPPORTED
    assert gate.try_in(ALICE, "1.3") == admitted()


@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ],
)
def test_good_suites(gate: MemoryGate, suite: str) -> None:
    """TLS 1.2: ephemeral ECDH with AEAD."""
    client = with_suites(gate, suite)
    assert gate.judge(client) == admitted()
    assert client.cipher == suite


@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "AES128-GCM-SHA256",
        "AES128-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-CCM",
        "ECDHE-ECDSA-NULL-SHA",
        "AECDH-AES128-SHA",
    ],
)
def test_other_suites(gate: MemoryGate, suite: str) -> None:
    """And nothing else."""
    assert gate.judge(with_suites(gate, suite)) == UNSUPPORTED


def with_suites(gate: MemoryGate, suite: str) -> Client:
    """A TLS 1.2 client that offers one suite."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    try:
        context.set_cipher_list(f"{suite}:@SECLEVEL=0".encode())
    except SSL.Error:
        pytest.skip(f"this OpenSSL has no {suite}")
    client = gate.connect(ALICE, "1.2")
    client.connection = SSL.Connection(context, None)
    client.connection.set_connect_state()
    client.connection.use_certificate(ALICE.certificate)
    client.connection.use_privatekey(ALICE.private_key)
    return client


def test_no_compression(gate: MemoryGate, version: Version) -> None:
    """CRIME, CVE-2012-4929; no renegotiation and no tickets either."""
    context = gate.server.context._contexts[0]
    options = context.set_options(0)
    for one in (SSL.OP_NO_COMPRESSION, SSL.OP_NO_RENEGOTIATION, SSL.OP_NO_TICKET):
        assert options & one
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF


A, B = server_credential("a.example", "*.w.example"), server_credential("b.example")


@pytest.mark.parametrize(
    ("name", "expected", "swapped"),
    [
        ("a.example", A, False),
        ("a.example", A, True),
        ("A.eXample", A, True),
        ("a.example.", A, True),
        ("x.w.example", A, True),
        ("X.W.EXAMPLE.", A, True),
        ("b.example", B, False),
        ("b.example", B, True),
        ("B.EXAMPLE", B, False),
        # Not named: the first one.
        (None, A, False),
        (None, A, True),
        ("c.example", A, False),
        ("c.example", A, True),
        ("x.y.w.example", A, True),
        ("w.example", A, True),
        ("*.b.example", A, False),
        ("127.0.0.1", A, True),
    ],
)
def test_server_name(
    log: Log, version: Version, name: str | None, expected: ServerCredential, swapped: bool
) -> None:
    """The certificate that bears the name asked for, or else the first; the verdict
    on the client is the same under each."""
    both = [B, A] if swapped else [A, B]
    named = name is not None and name.lower().rstrip(".") in (
        "a.example",
        "x.w.example",
        "b.example",
    )
    gate = MemoryGate([rule(ca=ROOT)], log, credentials=both)
    trust = [server_authority().certificate]
    client = gate.connect(ALICE, version, server_name=name, trust=trust)
    assert gate.judge(client) == admitted()
    shown = expected if named else both[0]
    assert client.server_certificate == shown.chain[0].x509
    peer = gate.recorder.protocols[-1].peer
    assert peer is not None
    assert peer.server_name == name
    assert log.only["sni"] == name


@pytest.mark.parametrize("name", [None, "a.example", "b.example", "c.example"])
def test_verdict_under_each_name(log: Log, version: Version, name: str | None) -> None:
    """Another certificate of the gate's is no way around its rules."""
    other = Authority.create("Root").issue("alice")
    pinned = self_signed("pinned")
    rules = [rule("ca", ca=ROOT, pins=ALICE), rule("pin", pins=pinned)]
    gate = MemoryGate(rules, log, credentials=[A, B])
    for who, expected in [
        (ALICE, admitted("ca")),
        (pinned, admitted("pin")),
        (ROOT.issue("bob"), rejected(Reason.LEAF_MISMATCH)),
        (None, rejected(Reason.NO_CERTIFICATE, None)),
    ]:
        assert gate.try_in(who, version, server_name=name) == expected
    assert gate.try_in(other, version, server_name=name).reason is Reason.UNKNOWN_CA


def test_no_resumption_under_another_name(log: Log, version: Version) -> None:
    gate = MemoryGate([rule(ca=ROOT)], log, credentials=[A, B])
    earlier = gate.connect(ALICE, version, server_name="a.example")
    assert gate.judge(earlier) == admitted()
    for name in ("a.example", "b.example", None):
        client = gate.connect(ALICE, version, server_name=name, session=earlier.session)
        assert gate.judge(client) == admitted()
        assert not client.resumed


def test_server_chain(log: Log, version: Version) -> None:
    """The gate sends its own intermediates along."""
    made = server_authority().intermediate().issue("deep", usages=["server_auth"])
    credential = ServerCredential(made.chain, made.private_key)
    gate = MemoryGate([rule(ca=ROOT)], log, credentials=[credential])
    trust = [server_authority().certificate]
    assert gate.try_in(ALICE, version, trust=trust) == admitted()


def names(log: Log, version: Version, gate: MemoryGate) -> list[x509.Name]:
    client = gate.connect(None, version)
    client.handshake()
    log.events.clear()
    return client.requested_ca_names


def test_requested_names(log: Log, version: Version) -> None:
    """The CertificateRequest names the CAs, and the issuers of pins without a CA, each
    once; under each of the gate's certificates."""
    other, far = Authority.create("Other"), Authority.create("Far", organization="Ü")
    own = self_signed("own")
    lone = [far.issue("1"), far.issue("2"), own, ROOT.issue("3")]
    rules = [rule("1", [ROOT, other], far.issue("x")), rule("2", ROOT), rule("3", pins=lone)]
    expected = [
        ROOT.certificate.subject,
        other.certificate.subject,
        far.certificate.subject,
        own.certificate.subject,
    ]
    assert names(log, version, MemoryGate(rules, log)) == expected
    two = MemoryGate(rules, log, credentials=[A, B])
    assert names(log, version, two) == expected
    client = two.connect(None, version, server_name="b.example")
    client.handshake()
    assert client.requested_ca_names == expected


def test_too_many_names(log: Log, version: Version) -> None:
    """A fleet of self-signed pins would not fit: then none are named, and clients
    choose for themselves."""
    long = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{number:060}")])
        for number in range(500)
    ]
    fleet = [self_signed(None, subject=name, key=ALICE.private_key) for name in long]
    gate = MemoryGate([rule(pins=fleet)], log)
    assert names(log, version, gate) == []
    assert gate.try_in(fleet[-1], version) == admitted()
    few = MemoryGate([rule(pins=fleet[:300])], log)
    assert len(names(log, version, few)) == 300


def test_without_client_authentication_anyone_is_admitted(log: Log, version: Version) -> None:
    """Without client authentication anyone is let in, unasked, and is nobody."""
    gate = MemoryGate(None, log)
    for who in (None, ALICE, self_signed("x")):
        client = gate.connect(who, version)
        assert gate.judge(client) == admitted(None)  # type: ignore[arg-type]
        assert client.requested_ca_names == []
        [protocol] = gate.recorder.protocols
        assert protocol.peer is None
        assert log.only["tls_version"] == f"TLSv{version}"
        log.events.clear()
        gate.recorder.protocols.clear()


def test_anyone_must_speak_tls(log: Log) -> None:
    gate = MemoryGate(None, log)
    assert gate.try_in(None, "1.1") == UNSUPPORTED


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        ((b"h2", b"http/1.1"), ["http/1.1", "h2"], "h2"),
        ((b"h2",), ["http/1.1"], None),
        ((b"h2",), [], None),
        ((), ["h2"], None),
    ],
)
def test_the_first_common_protocol_is_chosen(
    log: Log, version: Version, ours: tuple[bytes, ...], theirs: list[str], chosen: str | None
) -> None:
    """The first of ours that the client offers too; none in common is no error."""
    gate = MemoryGate([rule(ca=ROOT)], log, alpn=ours)
    client = gate.connect(ALICE, version, alpn=theirs)
    assert gate.judge(client) == admitted()
    assert client.negotiated_alpn == chosen
    peer = gate.recorder.protocols[-1].peer
    assert peer is not None
    assert peer.alpn == chosen


def test_facts_of_a_peer(gate: MemoryGate, version: Version) -> None:
    """What the peer says of TLS is what the client has negotiated."""
    client = gate.connect(ALICE, version, server_name="localhost")
    assert gate.judge(client) == admitted()
    peer = gate.recorder.protocols[-1].peer
    assert peer is not None
    assert peer.tls_version == client.tls_version == f"TLSv{version}"
    assert peer.cipher == client.cipher
    assert peer.group
    assert peer.server_name == "localhost"
    assert peer.path == (ALICE.certificate, ROOT.certificate)
    assert client.server_certificate == localhost().chain[0].x509


def test_the_server_certificate_must_be_strong(log: Log) -> None:
    """OpenSSL refuses a weak one when the context is made, not in each handshake."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    weak = self_signed("weak", key=rsa.generate_private_key(65537, 1024))
    credential = ServerCredential(weak.chain, weak.private_key)
    with pytest.raises(SSL.Error):
        MemoryGate([rule(ca=ROOT)], log, credentials=[credential])
