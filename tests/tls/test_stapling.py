"""Stapled OCSP responses in handshakes."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any

from attrs import evolve
from OpenSSL import SSL

from mtlsgate.certificates.certificate import view
from mtlsgate.certificates.ocsp import stapling_of
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.clock import utc_now
from mtlsgate.testing import Authority, Version
from mtlsgate.tls.server import GateContext, TlsPolicy
from tests.kits.ocsp import response, with_responder

CA = Authority.create("CA")
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
A, B = (with_responder(CA, "http://ocsp.example/", name) for name in ("a.example", "b.example"))


def credential(made: Any, staple: bytes | None) -> ServerCredential:
    stapling = stapling_of(view(made.certificate), view(CA.certificate))
    if staple is not None:
        stapling = stapling.responded(staple, utc_now())
    return evolve(ServerCredential(made.chain, made.private_key), stapling=stapling)


def stapled(
    context: GateContext, version: Version, name: str = "a.example", *, asks: bool = True
) -> bytes | None:
    """:returns: what a client that asks for a response gets; None if it was not told."""
    told: list[bytes] = []
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client_context.set_min_proto_version(VERSIONS[version])
    client_context.set_max_proto_version(VERSIONS[version])

    def keep(connection: SSL.Connection, data: bytes, _: object) -> bool:
        told.append(data)
        return True

    client_context.set_ocsp_client_callback(keep)
    client = SSL.Connection(client_context, None)
    client.set_connect_state()
    client.set_tlsext_host_name(name.encode())
    if asks:
        client.request_ocsp()
    engine = context.accept()
    for _ in range(6):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            engine.feed(client.bio_read(2**16))
        engine.next()
        client_data = engine.outgoing()
        if client_data:
            client.bio_write(client_data)
    assert engine.is_handshaken
    return told[-1] if told else None


def context(*credentials: ServerCredential, now: Any = utc_now) -> GateContext:
    return GateContext(TlsPolicy(credentials, admission=None), now)


def test_a_client_that_asks_gets_the_response(version: Version) -> None:
    """Each certificate shows its own, and a client that does not ask is not bothered."""
    staples = [response(one, CA, now=utc_now()) for one in (A, B)]
    shared = context(credential(A, staples[0]), credential(B, staples[1]))
    assert stapled(shared, version, "a.example") == staples[0]
    assert stapled(shared, version, "b.example") == staples[1]
    assert not stapled(shared, version, asks=False)


def test_without_a_response_the_handshake_goes_on(version: Version) -> None:
    assert stapled(context(credential(A, None)), version) == b""


def test_an_expired_response_is_not_shown(version: Version) -> None:
    """Clients refuse one; without one they go on."""
    staple = response(A, CA, now=utc_now(), life=timedelta(hours=2))
    later: list[datetime] = [utc_now()]
    gate = context(credential(A, staple), now=lambda: later[0])
    assert stapled(gate, version) == staple
    later[0] += timedelta(hours=2)
    assert stapled(gate, version) == b""
