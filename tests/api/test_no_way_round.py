"""
Nothing that a gate in Python gives away, or holds, lets a connection reach an
application without the gate.
"""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)

import mtlsgate
from mtlsgate import Gate, Rule
from tests.kits.application import VERSIONS, Certificates, Greeters, Loop

_TLS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
#: Through these one gets to everything there is.
_ANYWHERE = (types.ModuleType, type, types.FunctionType, types.FrameType)


def reachable(*roots: object) -> Iterator[Any]:
    """:returns: all that can be got at from some objects, private names and all."""
    seen: set[int] = set()
    found = list(roots)
    while found:
        one = found.pop()
        # By its type: asked for its class, somebody's lazy object may do anything.
        if id(one) in seen or issubclass(type(one), _ANYWHERE):
            continue
        seen.add(id(one))
        yield one
        if type(one) is types.MethodType:
            found.append(one.__self__)
        found += gc.get_referents(one)


def shake_hands(server: SSL.Connection, client: SSL.Connection) -> bool:
    """:returns: whether the server's side of a handshake in memory completes."""
    done = False
    for _ in range(16):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
                done = done or one is server
            except SSL.WantReadError:
                pass
            except Exception:  # noqa: BLE001 -- whatever a callback raises, it is over
                return False
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(1 << 20))
    return done


def client(here: Certificates, name: str | None, version: str) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(_TLS[version])
    context.set_max_proto_version(_TLS[version])
    if name is not None:
        context.use_certificate_file(str(here.directory / f"{name}.crt"))
        context.use_privatekey_file(str(here.directory / f"{name}.key"))
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(b"localhost")
    connection.set_connect_state()
    return connection


def gates() -> list[Gate]:
    own: Any = ("server.crt", "server.key")
    fleet = [Rule("fleet", ca="fleet-ca.crt")]
    return [
        Gate(certificate=own, rules=fleet),
        Gate(certificate=own, rules=fleet, session_resumption=True),
        Gate(certificate=[own, ("other.crt", "other.key")], rules=fleet),
        Gate(certificate=own, client_authentication="none"),
        Gate(
            certificate=own, rules=fleet, proxy_protocol="required", trusted_proxies=["192.0.2.1"]
        ),
        Gate(certificate=own, rules=fleet, server_names=["another.example"]),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_no_context_of_a_gate_serves_anybody_else(
    here: Certificates, running: Loop, version: str
) -> None:
    """
    Every OpenSSL context that can be got at from a gate, its endpoint and its port, used
    without the gate: no handshake completes, not even that of a client whom a rule admits.
    """
    for gate in gates():
        endpoint = gate.endpoint(running.reactor, "127.0.0.1:0")
        port = running.listen(endpoint, Greeters())
        contexts = [
            one for one in reachable(gate, endpoint, port) if issubclass(type(one), SSL.Context)
        ]
        assert contexts
        for context in contexts:
            for name in ("alice", "mallory", None):
                connection = SSL.Connection(context, None)
                connection.set_accept_state()
                assert not shake_hands(connection, client(here, name, version))


def test_nothing_of_a_gate_makes_connections_for_twisteds_tls(
    here: Certificates, running: Loop
) -> None:
    """`twisted.protocols.tls` takes what provides one of these interfaces."""
    for gate in gates():
        port = running.listen(gate.endpoint(running.reactor, "127.0.0.1:0"), Greeters())
        for one in reachable(gate, port):
            if not type(one).__module__.startswith("mtlsgate"):
                continue
            assert not IOpenSSLServerConnectionCreator.providedBy(one)
            assert not IOpenSSLClientConnectionCreator.providedBy(one)


def test_what_is_public_cannot_build_a_server_of_parts() -> None:
    """The list in docs/api.md names no context, no loader of one and no factory."""
    assert {name for name in mtlsgate.__all__ if "Factory" in name or "load" in name} == set()
