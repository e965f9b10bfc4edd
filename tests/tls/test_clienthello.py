from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from mtlsgate.reasons import Reason
from mtlsgate.starttls import UNEXPECTED_HEADER
from mtlsgate.testing import Authority, Version
from mtlsgate.tls.clienthello import (
    MAX_BYTES,
    MAX_HELLO,
    Alert,
    ClientHello,
    ClientHelloReader,
    NoClientHello,
    alert_record,
)

VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
NAMES = [None, "a.example", "A.eXaMpLe", "a.example.", "192.0.2.1", "x" * 63 + ".example"]

Outcome = ClientHello | NoClientHello | None


def read(*pieces: bytes) -> Outcome:
    reader = ClientHelloReader()
    for piece in pieces:
        reader.feed(piece)
    assert reader.received == b"".join(pieces)
    return reader.feed(b"")


def refusal(*pieces: bytes) -> tuple[Reason, str, Alert | None]:
    outcome = read(*pieces)
    assert isinstance(outcome, NoClientHello)
    return outcome.reason, outcome.detail, outcome.alert


def record(fragment: bytes, kind: int = 22, version: bytes = b"\x03\x01") -> bytes:
    return bytes((kind,)) + version + len(fragment).to_bytes(2, "big") + fragment


def records(message: bytes, size: int) -> bytes:
    return b"".join(record(message[at : at + size]) for at in range(0, len(message), size))


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def message(body: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + vector(3, body)


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def host_name(name: bytes, kind: int = 0) -> bytes:
    return bytes((kind,)) + vector(2, name)


def server_name(*entries: bytes) -> bytes:
    return extension(0, vector(2, b"".join(entries)))


def body(extensions: bytes | None, suites: bytes = b"\x13\x01") -> bytes:
    start = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, suites) + vector(1, b"\0")
    return start if extensions is None else start + vector(2, extensions)


def hello(*extensions: bytes) -> bytes:
    return record(message(body(b"".join(extensions))))


# A real peer.


class Peer:
    """OpenSSL's end of a connection in memory."""

    def __init__(self, context: SSL.Context) -> None:
        self.connection = SSL.Connection(context, None)
        self.failed: SSL.Error | None = None

    def progress(self, data: bytes = b"") -> bytes:
        """:returns: what it has to say to that."""
        if data:
            self.connection.bio_write(data)
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.failed = error
        try:
            return self.connection.bio_read(2**17)
        except SSL.WantReadError:
            return b""


def client(name: str | None, version: Version) -> Peer:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(VERSIONS[version])
    peer = Peer(context)
    peer.connection.set_connect_state()
    if name is not None:
        peer.connection.set_tlsext_host_name(name.encode())
    return peer


@cache
def real_hello(name: str | None, version: Version) -> bytes:
    return client(name, version).progress()


@cache
def server_context() -> SSL.Context:
    credential = Authority.create().issue("server", dns_names=["a"], usages=["server_auth"])
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(credential.certificate)
    context.use_privatekey(credential.private_key)
    context.set_tlsext_servername_callback(lambda connection: None)
    return context


class Server(Peer):
    def __init__(self) -> None:
        super().__init__(server_context())
        self.connection.set_accept_state()


def is_server_hello(answer: bytes) -> bool:
    """:returns: whether the first record holds one, or a HelloRetryRequest."""
    return answer[:1] == b"\x16" and answer[5:6] == b"\x02"


def openssl_reads(data: bytes) -> ClientHello | None:
    """:returns: what a server made of it that answered with a ServerHello, or None."""
    server = Server()
    if not is_server_hello(server.progress(data)):
        return None
    name = server.connection.get_servername()
    return ClientHello(None if name is None else name.decode("latin-1"))


#: What OpenSSL takes and the reader does not.
STRICTER = {"the server name is empty", "a handshake record without content"}


def compare(data: bytes) -> bool:
    """
    Reader and OpenSSL agree, or one of them refuses.

    :returns: whether OpenSSL went on with it.
    """
    expected = openssl_reads(data)
    if expected is None:
        return False
    outcome = read(data)
    if not (isinstance(outcome, NoClientHello) and outcome.detail in STRICTER):
        assert outcome == expected, data.hex()
    return True


class TestRealClients:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("name", NAMES)
    def test_the_name_is_what_openssl_reads(self, name: str | None, version: Version) -> None:
        """The reader and OpenSSL read the name that the client wrote."""
        data = real_hello(name, version)
        assert read(data) == openssl_reads(data) == ClientHello(name)

    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 100, 2**14])
    def test_a_split_hello_is_the_same_hello(self, size: int, version: Version) -> None:
        """However small its records, both read it alike."""
        data = records(real_hello("a.example", version)[5:], size)
        assert read(data) == openssl_reads(data) == ClientHello("a.example")

    @pytest.mark.parametrize("version", VERSIONS)
    def test_an_alert_is_understood(self, version: Version) -> None:
        """A client understands the alert that is sent in place of a ServerHello."""
        peer = client("a.example", version)
        peer.progress()
        peer.progress(alert_record(Alert.UNRECOGNIZED_NAME))
        assert "unrecognized name" in str(peer.failed)

    def test_a_second_hello_may_name_another(self) -> None:
        """
        After a HelloRetryRequest OpenSSL goes by the second hello, which the
        reader does not see: the reason to compare at the end.
        """
        # Without a key share a hello is legal, and makes the server ask for one.
        first = with_key_shares(real_hello("a.example", "1.3"), 0)
        second = with_key_shares(real_hello("b.example", "1.3"), 1)
        assert read(first) == ClientHello("a.example")
        server = Server()
        assert is_server_hello(server.progress(first))
        assert server.connection.get_servername() == b"a.example"
        assert is_server_hello(server.progress(second))
        assert server.connection.get_servername() == b"b.example"


def split_extensions(data: bytes) -> tuple[bytes, bytes]:
    """:returns: the body of a hello in one record, up to its extensions, and those."""
    inner = data[9:]
    at = 2 + 32
    at += 1 + inner[at]
    at += 2 + int.from_bytes(inner[at : at + 2], "big")
    at += 1 + inner[at]
    return inner[:at], inner[at + 2 :]


def with_key_shares(data: bytes, count: int) -> bytes:
    """:returns: the hello with the first of its key shares, or none."""
    start, extensions = split_extensions(data)
    kept, at = b"", 0
    while at < len(extensions):
        end = at + 4 + int.from_bytes(extensions[at + 2 : at + 4], "big")
        if extensions[at : at + 2] == b"\x00\x33":
            shares = extensions[at + 6 : end]
            one = shares[: 4 + int.from_bytes(shares[2:4], "big")]
            kept += extension(51, vector(2, one * count))
        else:
            kept += extensions[at:end]
        at = end
    return record(message(start + vector(2, kept)))


def mutations(data: bytes, seed: int, edits: int) -> Iterator[bytes]:
    """Every byte changed once, and then so many random edits, most of them near the name."""
    choose = random.Random(seed)
    for at in range(len(data)):
        yield data[:at] + bytes((data[at] ^ choose.randrange(1, 256),)) + data[at + 1 :]
    found = data.find(b"a.example")
    for _ in range(edits):
        changed = bytearray(data)
        for _ in range(choose.randrange(1, 4)):
            near = found > 0 and choose.random() < 0.8
            at = choose.randrange(found - 12, found + 12) if near else choose.randrange(len(data))
            at = min(at, len(changed) - 1)
            match choose.randrange(4):
                case 0:
                    changed[at] = choose.randrange(256)
                case 1:
                    changed[at] = (changed[at] + choose.choice((-1, 1))) % 256
                case 2:
                    del changed[at]
                case _:
                    changed.insert(at, choose.choice((0, 1, 255, choose.randrange(256))))
        yield bytes(changed)


class TestAgainstOpenSSL:
    """No hello has one name for the reader and another for OpenSSL."""

    @pytest.mark.parametrize(
        ("version", "name", "edits"),
        [("1.2", "a.example", 2000), ("1.2", None, 300), ("1.3", "a.example", 800)],
    )
    def test_a_mutated_hello_is_read_as_openssl_reads_it(
        self, version: Version, name: str | None, edits: int
    ) -> None:
        """Byte by byte, and at random."""
        data = real_hello(name, version)
        accepted = [compare(each) for each in mutations(data, 1, edits)]
        # Both outcomes are common, so something was compared.
        assert accepted.count(True) > 50
        assert accepted.count(False) > 50

    def test_odd_server_name_extensions_are_read_as_openssl_reads_them(self) -> None:
        """Well-formed hellos whose server_name extensions are not."""
        start, rest = split_extensions(real_hello(None, "1.2"))
        name = host_name(b"a.example")
        data = vector(2, name)
        accepted = 0
        for before in (
            b"",
            server_name(name),
            server_name(name, name),
            server_name(name, host_name(b"b.example")),
            server_name(name, host_name(b"b.example", 1)),
            server_name(host_name(b"b.example", 1), name),
            server_name(host_name(b"")),
            server_name(),
            extension(0, b""),
            extension(0, data + b"\0"),
            extension(0, data[:-1]),
            server_name(name + b"\0"),
            server_name(name) + server_name(name),
            server_name(name) + server_name(host_name(b"b.example")),
            extension(0x0A0A, b"") + server_name(name),
            server_name(name) + extension(0xFE0D, b"\0" * 40),
            server_name(host_name(b"a\0b")),
            server_name(host_name(b"x" * 255)),
            server_name(host_name(b"x" * 256)),
            server_name(host_name(b"\xe4\xff.example")),
        ):
            for extensions in (before + rest, rest + before):
                for tail in (b"", b"\0"):
                    changed = start + vector(2, extensions) + tail
                    accepted += compare(record(message(changed)))
        assert accepted >= 12

    @settings(max_examples=100)
    @given(
        st.sampled_from([real_hello(name, v) for name in NAMES[:4] for v in ("1.2", "1.3")]),
        st.lists(st.integers(0, 1600), max_size=12),
        st.lists(st.integers(0, 2000), max_size=12),
    )
    def test_fragments_make_no_difference(
        self, data: bytes, record_cuts: Sequence[int], segment_cuts: Sequence[int]
    ) -> None:
        """Neither records nor segments make a difference, to either."""
        expected = read(data)
        split = b"".join(record(piece) for piece in cut(data[5:], record_cuts) if piece)
        assert read(*cut(split, segment_cuts)) == expected
        assert openssl_reads(split) == expected


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in pairwise(at)]


class TestBytes:
    @given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=8), st.booleans())
    def test_any_bytes_in_any_pieces(
        self, data: bytes, places: Sequence[int], headed: bool
    ) -> None:
        """Whatever comes, there is an outcome or a wait, the same however it is cut."""
        data = record(message(data)) if headed else data
        assert read(*cut(data, places)) == read(data)

    def test_byte_by_byte(self) -> None:
        """The outcome is there with the last byte of the hello and not before."""
        reader = ClientHelloReader()
        data = hello(server_name(host_name(b"a.example")))
        outcomes = [reader.feed(data[at : at + 1]) for at in range(len(data))]
        assert outcomes == [None] * (len(data) - 1) + [ClientHello("a.example")]

    def test_what_follows_is_kept(self) -> None:
        """Bytes after the hello are not looked at and not lost."""
        reader = ClientHelloReader()
        data = hello(server_name(host_name(b"a.example")))
        assert reader.feed(data + b"GET / ") == ClientHello("a.example")
        assert reader.feed(b"more") == ClientHello("a.example")
        assert reader.received == data + b"GET / more"

    def test_several_messages_in_a_record(self) -> None:
        """The first one counts."""
        one = message(body(server_name(host_name(b"a.example"))))
        two = message(body(server_name(host_name(b"b.example"))))
        assert read(record(one + two)) == ClientHello("a.example")

    @pytest.mark.parametrize("extensions", [None, b"", extension(0x2A2A, b""), extension(21, b"")])
    def test_no_name(self, extensions: bytes | None) -> None:
        """A hello without the extension, or without extensions, names nobody."""
        assert read(record(message(body(extensions)))) == ClientHello(None)

    def test_an_octet_is_a_character(self) -> None:
        """The name is not decoded any further."""
        assert read(hello(server_name(host_name(b"\xff.xn--4ca")))) == ClientHello("\xff.xn--4ca")


NAME = host_name(b"a.example")


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "reason", "detail"),
        [
            (b"GET / HTTP/1.1\r\n", Reason.NOT_TLS, "an HTTP request without TLS"),
            (b"OPTIONS *", Reason.NOT_TLS, "an HTTP request without TLS"),
            (b"PRI * HTTP/2.0", Reason.NOT_TLS, "an HTTP request without TLS"),
            (b"CONNECT a:1", Reason.NOT_TLS, "an HTTP proxy request without TLS"),
            (b"SSH-2.0-x\r\n", Reason.NOT_TLS, "this is SSH"),
            (b"PROXY TCP4 ", Reason.NOT_TLS, UNEXPECTED_HEADER.words),
            (b"\r\n\r\n\0\r\nQUIT\n", Reason.NOT_TLS, UNEXPECTED_HEADER.words),
            (b"\r\n\r\n\r\n", Reason.NOT_TLS, "what arrived is no TLS record"),
            (b"\x16\x02\0\0\1", Reason.NOT_TLS, "what arrived is no TLS record"),
            (record(b"\2\x28", 21), Reason.PEER_ALERT, "the client began with an alert"),
        ],
    )
    def test_no_tls(self, data: bytes, reason: Reason, detail: str) -> None:
        """Who does not speak TLS is told apart, and gets no alert."""
        assert refusal(data) == (reason, detail, None)
        assert openssl_reads(data) is None

    @pytest.mark.parametrize("data", [b"\x80\x2e\x01\x03\x01", b"\x80\x2e\x01\x00\x02"])
    def test_ssl_2(self, data: bytes) -> None:
        """An SSL 2.0 hello is refused, even one that offers TLS."""
        assert refusal(data) == (
            Reason.UNSUPPORTED_TLS,
            "an SSL 2.0 hello",
            Alert.PROTOCOL_VERSION,
        )

    @pytest.mark.parametrize(
        ("data", "alert", "detail"),
        [
            (record(b"x", 23), Alert.UNEXPECTED_MESSAGE, "a record that is no handshake's"),
            (
                record(b"\1") + record(b"\1\x5a", 21),
                Alert.UNEXPECTED_MESSAGE,
                "a record that is no handshake's",
            ),
            (
                record(b"\1") + record(b"\1", version=b"\4\1"),
                Alert.PROTOCOL_VERSION,
                "a record of another version",
            ),
            (record(b""), Alert.UNEXPECTED_MESSAGE, "a handshake record without content"),
            (b"\x16\3\1\x40\x01", Alert.RECORD_OVERFLOW, "a record is too long"),
            (
                record(message(b"", kind=2)),
                Alert.UNEXPECTED_MESSAGE,
                "the first message is no ClientHello",
            ),
            (
                record(b"\1" + (MAX_HELLO + 1).to_bytes(3, "big")),
                Alert.ILLEGAL_PARAMETER,
                "the ClientHello is too long",
            ),
            (
                records(message(bytes(MAX_BYTES // 6)), 1),
                Alert.ILLEGAL_PARAMETER,
                "the ClientHello is in too many small records",
            ),
        ],
    )
    def test_records_without_a_hello_are_refused(
        self, data: bytes, alert: Alert, detail: str
    ) -> None:
        """Records and messages that do not lead to a ClientHello."""
        assert refusal(data) == (Reason.PROTOCOL_ERROR, detail, alert)

    @pytest.mark.parametrize(
        ("extensions", "alert", "detail"),
        [
            (b"\0", Alert.DECODE_ERROR, "the ClientHello is cut short"),
            (b"\0\0\0\1", Alert.DECODE_ERROR, "the ClientHello is cut short"),
            (extension(0, b""), Alert.DECODE_ERROR, "the ClientHello is cut short"),
            (server_name(), Alert.DECODE_ERROR, "the ClientHello is cut short"),
            (
                server_name(NAME, NAME),
                Alert.DECODE_ERROR,
                "the ClientHello has data past an end",
            ),
            (
                extension(0, vector(2, NAME) + b"\0"),
                Alert.DECODE_ERROR,
                "the ClientHello has data past an end",
            ),
            (
                server_name(NAME) * 2,
                Alert.ILLEGAL_PARAMETER,
                "the server_name extension is there twice",
            ),
            (
                server_name(host_name(b"a", 1)),
                Alert.DECODE_ERROR,
                "the server name is no host name",
            ),
            (server_name(host_name(b"")), Alert.DECODE_ERROR, "the server name is empty"),
            (
                server_name(host_name(b"a\0b")),
                Alert.UNRECOGNIZED_NAME,
                "the server name is no DNS name",
            ),
            (
                server_name(host_name(b"x" * 256)),
                Alert.UNRECOGNIZED_NAME,
                "the server name is no DNS name",
            ),
        ],
    )
    def test_server_names_that_rfc_6066_forbids_are_refused(
        self, extensions: bytes, alert: Alert, detail: str
    ) -> None:
        """Server names that RFC 6066 does not allow (section 3)."""
        assert refusal(hello(extensions)) == (Reason.PROTOCOL_ERROR, detail, alert)

    def test_data_after_the_extensions(self) -> None:
        """A hello ends with its extensions."""
        data = record(message(body(b"") + b"\0"))
        assert refusal(data)[1] == "the ClientHello has data past an end"


def test_the_longest_hello() -> None:
    """OpenSSL's longest hello is read, and no longer one is waited for by either."""
    padding = extension(0xFE01, bytes(60_000))
    name = server_name(host_name(b"a.example"))
    longest = message(body(padding + name, suites=b"\x13\x01" * 32_000))
    assert len(longest) > 120_000
    assert read(records(longest, 2**14)) == ClientHello("a.example")
    for length, refused in ((MAX_HELLO, False), (MAX_HELLO + 1, True)):
        data = record(b"\1" + length.to_bytes(3, "big") + bytes(100))
        server = Server()
        server.progress(data)
        assert (server.failed is not None) is refused
        assert isinstance(read(data), NoClientHello) is refused


def test_an_alert_record() -> None:
    """An alert is a record of two octets, the first of them saying fatal (RFC 8446, 6)."""
    assert alert_record(112) == b"\x15\x03\x03\x00\x02\x02\x70"
