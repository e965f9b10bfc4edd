"""
Servers of every sort for the probe to knock at.

They run in threads.  Where a test waits for an objection that comes, it waits
`LONG`, and where for one that does not come, `SHORT`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from click.testing import CliRunner
from OpenSSL import SSL
from OpenSSL.crypto import X509

from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.commands.cli import main
from mtlsgate.probe import Outcome, ProbeTarget, parse_target, probe
from mtlsgate.testing import Authority, Credential

Tls: TypeAlias = Literal["1.2", "1.3"]
VERSIONS: list[Tls] = ["1.2", "1.3"]
#: Seconds: long enough for what comes, and short for what does not.
LONG, SHORT = 60.0, 0.2

both_versions = pytest.mark.parametrize("tls", VERSIONS)


def write_demo(directory: Path) -> Path:
    """
    Write what ``mtlsgate init`` does, on a port of the system's choice.

    :returns: the directory.
    """
    done = CliRunner().invoke(main, ["init", str(directory)])
    assert done.exit_code == 0, done.output
    config = directory / "gate.hcl"
    config.write_text(config.read_text().replace("localhost:8443", "127.0.0.1:0"))
    return directory


@cache
def authority() -> Authority:
    return Authority.create("Server CA")


@cache
def client_authority() -> Authority:
    return Authority.create("Client CA")


def server(**options: Any) -> Credential:
    names: dict[str, Any] = {"dns_names": ["localhost"], "usages": ["server_auth"]}
    return authority().issue("server", **(names | options))


def past(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def drain(accepted: socket.socket) -> None:
    """Wait until the client leaves."""
    with suppress(ConnectionError):
        while accepted.recv(2**16):
            pass


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[ProbeTarget]:
    """Serve one connection, in a thread."""

    def serve() -> None:
        with listener.accept()[0] as accepted:
            handle(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield parse_target(f"127.0.0.1:{listener.getsockname()[1]}", "localhost")
        thread.join(LONG)
        assert not thread.is_alive()


def server_context(
    shown: Credential, clients: Authority | None = None, tls: Tls | None = None
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_mode(0x8)  # no automatic chain
    context.use_certificate(shown.certificate)
    context.use_privatekey(shown.private_key)
    for intermediate in shown.intermediates:
        context.add_extra_chain_cert(intermediate)
    if tls is not None:
        bound = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[tls]
        context.set_min_proto_version(bound)
        context.set_max_proto_version(bound)
    if clients is not None:
        demand = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(demand, lambda _connection, _certificate, _error, _depth, ok: bool(ok))
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(clients.certificate))
    return context


def tls_server(
    context: SSL.Context,
    then: Callable[[SSL.Connection, socket.socket], object] = lambda _connection, _socket: None,
    before: Callable[[SSL.Connection], object] = lambda _connection: None,
) -> Callable[[socket.socket], None]:
    """
    :param then: what to do after the handshake; by default, and after it,
        stay silent until the client leaves.
    """

    def handle(accepted: socket.socket) -> None:
        connection = SSL.Connection(context, accepted)
        connection.set_accept_state()
        before(connection)
        with suppress(SSL.Error):
            connection.do_handshake()
            then(connection, accepted)
        if accepted.fileno() >= 0:
            drain(accepted)

    return handle


def identity(credential: Credential) -> ServerCredential:
    return ServerCredential(credential.chain, credential.private_key)


def knock(
    handle: Callable[[socket.socket], None],
    credential: Credential | None = None,
    *,
    ca: Authority | Credential | None = None,
    tls: Tls | None = None,
    timeout: float = LONG,
    wait: float = LONG,
    server_name: str = "localhost",
) -> Outcome:
    with serving(handle) as target:
        return probe(
            ProbeTarget(target.host, target.port, server_name),
            identity=None if credential is None else identity(credential),
            trust=None if ca is None else (ca.certificate,),
            version=tls,
            timeout=timeout,
            wait=wait,
        )


def raw(reply: bytes) -> Callable[[socket.socket], None]:
    """A server that reads something, says something, and waits."""

    def handle(accepted: socket.socket) -> None:
        accepted.recv(2**16)
        accepted.sendall(reply)
        drain(accepted)

    return handle
