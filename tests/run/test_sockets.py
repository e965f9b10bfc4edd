from __future__ import annotations

import errno
import socket

import pytest

from mtlsgate.load.addresses import HostError, SocketAddress
from mtlsgate.run.sockets import bind_tcp

# TCP


def test_binding_listens() -> None:
    with bind_tcp(SocketAddress("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_an_address_that_is_taken_is_said() -> None:
    with bind_tcp(SocketAddress("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(HostError) as caught:
            bind_tcp(SocketAddress("127.0.0.1", port))
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: another process listens there (ss -ltnp shows which)"
    )


def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(HostError) as caught:
        bind_tcp(SocketAddress("192.0.2.1", 8443))
    assert str(caught.value) == (
        "cannot listen on 192.0.2.1:8443: it is not an address of this machine"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.EACCES, "Permission denied"),
            "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE",
        ),
        (OSError(errno.ENOBUFS, "No buffer space available"), "No buffer space available"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_failure_to_bind_is_put_in_words(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise error

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(HostError) as caught:
        bind_tcp(SocketAddress("127.0.0.1", 443))
    assert str(caught.value) == f"cannot listen on 127.0.0.1:443: {expected}"


def test_an_ipv6_socket_takes_no_ipv4_connections() -> None:
    """So that IPv4 clients keep IPv4 addresses, and 0.0.0.0 has its own socket."""
    try:
        bound = bind_tcp(SocketAddress("::1", 0))
    except HostError:
        pytest.skip("no IPv6 here")
    with bound:
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
