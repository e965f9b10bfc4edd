"""
An asyncio protocol behind the gate finds the transport that asyncio promises.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from mtlsgate import VerifiedPeer, verified_peer
from mtlsgate.certificates.certificate import Certificate, views
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.aio.connection import CLOSE_TIMEOUT, FLUSH_SIZE, HIGH_WATER
from mtlsgate.protocols.aio.facts import peer_certificate, socket_name
from mtlsgate.protocols.aio.transport import GateTransport
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.aio import Loop, Recorder

#: More than the gate, a socket pair and the limits hold together.
MUCH = bytes(2**22)


class Pair:
    """A client, and the protocol at the other end."""

    def __init__(self, loop: Loop, version: Version | None = None, **options: Any) -> None:
        self.loop = loop
        self.protocol = Recorder()
        self.client: Client = loop.connect(loop.gate(lambda _: self.protocol, **options), version)

    @property
    def transport(self) -> GateTransport:
        return self.protocol.transport

    def do(self, function: Any) -> Any:
        return self.loop.run(function, self.client)


# Bytes


def test_bytes_go_both_ways(loop: Loop, version: Version) -> None:
    pair = Pair(loop, version)
    assert loop.say(pair.client, b"hello") == b""
    assert pair.protocol.received == b"hello"
    pair.do(lambda: pair.transport.write(b"good "))
    pair.do(lambda: pair.transport.writelines([b"m", bytearray(b"orn"), memoryview(b"ing")]))
    assert pair.client.receive() == b"good morning"
    assert pair.protocol.events == ["made"]


def test_an_answer_leaves_with_the_call_that_gave_it(loop: Loop) -> None:
    """And two writes in one turn are one record."""
    pair = Pair(loop)
    pair.protocol.data_received = lambda data: pair.transport.write(data)  # type: ignore[method-assign]
    loop.run(lambda: pair.client.send(b"echo"))
    assert pair.client.receive() == b"echo"

    def twice() -> None:
        pair.transport.write(b"a")
        pair.transport.write(b"b")

    before = len(pair.client.transport.take())
    pair.client.pause_reading()
    pair.do(twice)
    pair.client.resume_reading()
    assert before == 0
    assert pair.client.receive() == b"ab"


def test_what_is_no_bytes_cannot_be_written(loop: Loop) -> None:
    pair = Pair(loop)
    with pytest.raises(TypeError, match="bytes-like object, not str"):
        pair.transport.write("text")  # type: ignore[arg-type]


def test_a_buffered_protocol_gets_bytes_in_its_own_buffer(loop: Loop, version: Version) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer, self.received = bytearray(5), b""

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.buffer[:nbytes]

    protocol = Buffered()
    client = loop.connect(loop.gate(lambda _: protocol), version)
    loop.say(client, b"longer than five")
    assert protocol.received == b"longer than five"
    loop.run(client.close, client)


def test_a_buffered_protocol_without_room_costs_its_connection(loop: Loop) -> None:
    class Full(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint: int) -> bytearray:
            return bytearray()

        def buffer_updated(self, nbytes: int) -> None:
            raise AssertionError

    client = loop.connect(loop.gate(lambda _: Full()))
    loop.say(client, b"x")
    assert client.disconnected
    loop.log.expect_failure(RuntimeError)


def test_another_protocol_can_take_over(loop: Loop) -> None:
    """As when a connection is upgraded: also while bytes are handled."""
    pair, second = Pair(loop), Recorder()
    assert pair.transport.get_protocol() is pair.protocol
    pair.transport.set_protocol(second)
    loop.say(pair.client, b"for the second")
    assert (pair.protocol.received, second.received) == (b"", b"for the second")
    assert pair.transport.get_protocol() is second
    loop.run(pair.client.close, pair.client)
    assert (pair.protocol.events, second.events) == (["made"], ["eof", "lost"])


def test_reading_can_be_paused(loop: Loop, version: Version) -> None:
    pair = Pair(loop, version)
    pair.do(pair.transport.pause_reading)
    pair.do(pair.transport.pause_reading)
    assert not pair.transport.is_reading()
    loop.say(pair.client, b"later")
    assert pair.protocol.received == b""
    pair.do(pair.transport.resume_reading)
    assert pair.transport.is_reading()
    assert pair.protocol.received == b"later"


# Flow control


@pytest.mark.parametrize("size", [100, FLUSH_SIZE])
def test_a_client_that_does_not_read_stops_the_protocol(loop: Loop, size: int) -> None:
    """And no sooner than the limit says: whether it writes little or much at a time."""
    pair = Pair(loop)
    pair.client.pause_reading()

    def write_until_paused() -> None:
        while "pause" not in pair.protocol.events:
            before = pair.transport.get_write_buffer_size()
            pair.transport.write(bytes(size))
            assert before <= HIGH_WATER

    pair.do(write_until_paused)
    assert pair.protocol.events == ["made", "pause"] or size == 100
    pair.do(pair.client.resume_reading)
    assert pair.protocol.events[-1] == "resume"
    assert pair.transport.get_write_buffer_size() == 0


def test_the_protocol_goes_on_at_the_low_limit(loop: Loop) -> None:
    pair = Pair(loop)
    transport = pair.transport
    transport.set_write_buffer_limits(high=2**21, low=2**20)
    pair.client.pause_reading()
    pair.do(lambda: transport.write(MUCH))
    assert pair.protocol.events == ["made", "pause"]
    sizes = []
    pair.protocol.resume_writing = lambda: sizes.append(transport.get_write_buffer_size())  # type: ignore[method-assign]
    pair.do(pair.client.resume_reading)
    assert len(sizes) == 1
    assert 0 < sizes[0] <= 2**20
    assert len(pair.client.receive()) == len(MUCH)


def test_a_high_limit_of_zero_stops_after_each_write(loop: Loop) -> None:
    pair = Pair(loop)
    pair.transport.set_write_buffer_limits(0)
    pair.do(lambda: pair.transport.write(b"x"))
    assert pair.protocol.events == ["made", "pause", "resume"]


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({}, (16384, 65536)),
        ({"high": 100}, (25, 100)),
        ({"low": 100}, (100, 400)),
        ({"high": 0}, (0, 0)),
        ({"high": 7, "low": 7}, (7, 7)),
    ],
)
def test_the_limits_are_asyncios(
    loop: Loop, asked: dict[str, int], limits: tuple[int, int]
) -> None:
    pair = Pair(loop)
    pair.transport.set_write_buffer_limits(**asked)
    assert pair.transport.get_write_buffer_limits() == limits


@pytest.mark.parametrize("asked", [{"high": 1, "low": 2}, {"low": -1}])
def test_senseless_limits_are_refused(loop: Loop, asked: dict[str, int]) -> None:
    pair = Pair(loop)
    with pytest.raises(ValueError, match="must be >="):
        pair.transport.set_write_buffer_limits(**asked)


# The end


def test_closing_sends_what_was_written(loop: Loop, version: Version) -> None:
    pair = Pair(loop, version)

    def say_goodbye() -> None:
        pair.transport.write(b"goodbye")
        pair.transport.close()
        pair.transport.close()
        pair.transport.write(b"too late")
        assert pair.transport.is_closing()

    pair.do(say_goodbye)
    assert pair.client.receive() == b"goodbye"
    assert pair.client.close_notified
    assert pair.client.disconnected
    assert (pair.protocol.events, pair.protocol.lost) == (["made", "lost"], None)
    assert not pair.transport.is_reading()


def test_nothing_is_received_after_closing(loop: Loop) -> None:
    pair = Pair(loop)
    pair.client.write(b"on its way")
    pair.do(pair.transport.close)
    assert pair.protocol.received == b""


def test_a_client_that_does_not_end_what_was_closed_is_cut_off(loop: Loop) -> None:
    protocol = Recorder()
    client = loop.connect(loop.gate(lambda _: protocol), answer_close=False)
    loop.run(protocol.transport.close, client)
    assert not client.disconnected
    loop.clock.advance(CLOSE_TIMEOUT)
    loop.settle(client)
    assert client.aborted
    assert (protocol.events, protocol.lost) == (["made", "lost"], None)


def test_aborting_drops_what_was_written(loop: Loop, version: Version) -> None:
    pair = Pair(loop, version)

    def give_up() -> None:
        pair.transport.write(b"never sent")
        pair.transport.abort()
        assert pair.protocol.events == ["made"]

    pair.do(give_up)
    assert pair.client.receive() == b""
    assert not pair.client.close_notified
    assert (pair.protocol.events, pair.protocol.lost) == (["made", "lost"], None)
    assert loop.clock.getDelayedCalls() == []


def test_the_client_ends_and_so_does_the_connection(loop: Loop, version: Version) -> None:
    pair = Pair(loop, version)
    pair.do(pair.client.close)
    assert (pair.protocol.events, pair.protocol.lost) == (["made", "eof", "lost"], None)


def test_a_protocol_may_answer_a_client_that_has_ended_its_direction(
    loop: Loop, version: Version
) -> None:
    pair = Pair(loop, version)
    pair.protocol.goes_on = True
    pair.do(lambda: pair.client.connection.shutdown())
    assert pair.protocol.events == ["made", "eof"]
    pair.do(lambda: pair.transport.write(b"answer"))
    assert pair.client.receive() == b"answer"
    pair.do(pair.transport.close)
    assert pair.protocol.events == ["made", "eof", "lost"]


def test_a_protocol_may_end_its_direction_and_go_on_reading(loop: Loop, version: Version) -> None:
    protocol = Recorder()
    client = loop.connect(loop.gate(lambda _: protocol), version, answer_close=False)
    transport = protocol.transport
    assert transport.can_write_eof()

    def end() -> None:
        transport.write(b"all of it")
        transport.write_eof()
        transport.write_eof()

    loop.run(end, client)
    assert client.receive() == b"all of it"
    assert client.close_notified
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.write(b"more")
    loop.say(client, b"thanks")
    assert protocol.received == b"thanks"
    loop.run(client.close, client)
    assert protocol.events == ["made", "eof", "lost"]


def test_a_connection_that_was_cut_off_is_told_from_one_that_ended(
    loop: Loop, version: Version
) -> None:
    pair = Pair(loop, version)
    pair.do(pair.client.reset)
    assert pair.protocol.events == ["made", "lost"]
    assert isinstance(pair.protocol.lost, ConnectionResetError)
    assert pair.transport.is_closing()
    # Protocols do what they like afterwards.
    pair.transport.write(b"x")
    pair.transport.close()
    pair.transport.abort()
    pair.transport.pause_reading()
    pair.transport.resume_reading()
    pair.transport.set_write_buffer_limits(5)
    assert pair.transport.get_write_buffer_size() == 0


def test_a_protocol_that_waits_for_room_goes_on_when_its_connection_closes(loop: Loop) -> None:
    pair = Pair(loop)
    pair.client.pause_reading()
    pair.do(lambda: pair.transport.write(MUCH))
    pair.do(pair.transport.write_eof)
    assert pair.protocol.events == ["made", "pause", "resume"]
    pair.do(pair.client.resume_reading)
    assert len(pair.client.receive()) == len(MUCH)


@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_lost"])
def test_a_protocol_that_fails_costs_its_connection_alone(loop: Loop, method: str) -> None:
    pair = Pair(loop)

    def fail(*arguments: object) -> None:
        raise LookupError("the protocol's own")

    setattr(pair.protocol, method, fail)
    loop.say(pair.client, b"x")
    pair.do(pair.client.close)
    assert pair.client.disconnected
    loop.log.expect_failure(LookupError)


# What is known of the connection


def test_the_transport_knows_the_client(loop: Loop, version: Version) -> None:
    pair = Pair(loop, version)
    transport = pair.transport
    peer = transport.get_extra_info("verified_peer")
    assert isinstance(peer, VerifiedPeer)
    assert peer.common_name == "alice"
    assert verified_peer(transport) is peer
    assert IVerifiedPeer(transport.transport) is peer
    tls = transport.get_extra_info("ssl_object")
    assert tls.getpeercert(True) == peer.certificates[0].der
    assert tls.getpeercert() == transport.get_extra_info("peercert")
    assert tls.version() == pair.client.tls_version
    assert tls.cipher() == transport.get_extra_info("cipher")
    assert tls.cipher()[0] == pair.client.cipher
    assert tls.cipher()[2] in (128, 256)
    assert tls.compression() is None is transport.get_extra_info("compression")
    assert not tls.session_reused
    assert tls.server_side
    assert transport.get_extra_info("sslcontext")
    assert transport.get_extra_info("nothing") is None
    assert transport.get_extra_info("nothing", 5) == 5


def test_the_negotiated_protocol_and_name_are_known(loop: Loop) -> None:
    protocol = Recorder()
    gate = loop.gate(lambda _: protocol, alpn=(b"h2", b"http/1.1"))
    loop.connect(gate, alpn=["http/1.1"], server_name="gate.example")
    tls = protocol.transport.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "http/1.1"
    assert tls.server_hostname == "gate.example"


def test_without_a_client_certificate_there_is_no_peer(loop: Loop) -> None:
    protocol = Recorder()
    gate = loop.gate(lambda _: protocol, rules=None, alpn=(b"h2",))
    loop.connect(gate, credential=None, alpn=["h2"])
    transport = protocol.transport
    assert transport.get_extra_info("verified_peer") is None is verified_peer(transport)
    assert transport.get_extra_info("peercert") is None
    tls = transport.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "h2"
    assert not tls.session_reused


def test_the_client_is_known_after_the_end(loop: Loop) -> None:
    pair = Pair(loop)
    pair.do(pair.client.close)
    assert pair.transport.get_extra_info("verified_peer").common_name == "alice"
    assert pair.transport.get_extra_info("ssl_object").getpeercert()
    assert pair.transport.get_extra_info("cipher") is None
    assert pair.transport.get_extra_info("socket").fileno() == -1


def test_the_socket_can_be_asked_and_set(loop: Loop) -> None:
    pair = Pair(loop)
    found = pair.transport.get_extra_info("socket")
    assert found.getpeername() == pair.transport.get_extra_info("peername") == ("127.0.0.1", 50000)
    assert found.getsockname() == pair.transport.get_extra_info("sockname") == ("127.0.0.1", 8443)
    assert (found.family, found.type, found.proto) == (socket.AF_UNIX, socket.SOCK_STREAM, 0)
    assert found.fileno() > 0
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (IPv4Address("TCP", "192.0.2.1", 5), ("192.0.2.1", 5)),
        (IPv6Address("TCP", "2001:db8::1", 5), ("2001:db8::1", 5, 0, 0)),
        (UNIXAddress(b"/run/x"), "/run/x"),
        (UNIXAddress(None), ""),
    ],
)
def test_addresses_are_told_as_sockets_tell_them(address: Any, name: object) -> None:
    assert socket_name(address) == name


def test_a_certificate_is_told_as_the_standard_library_tells_it(tmp_path: Path) -> None:
    """Compared with what `ssl` says of the same certificate."""
    authority = Authority.create("Root Ä", organization="Example")
    made = authority.issue(
        "device 7",
        is_ca=True,  # or else ssl would not show it
        serial=0xABC,
        dns_names=["a.example", "b.example"],
        uris=["spiffe://td/a"],
        email_addresses=["a@example.com"],
        ip_addresses=["192.0.2.1", "2001:db8::ab"],
    )
    expected = decoded_by_ssl(made.certificate, tmp_path)
    assert peer_certificate(view(made)) == expected


def view(credential: Credential) -> Certificate:
    return views((credential.certificate,))[0]


def decoded_by_ssl(certificate: x509.Certificate, directory: Path) -> dict[str, Any]:
    file = directory / "certificate.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    [found] = context.get_ca_certs()
    return dict(found)
