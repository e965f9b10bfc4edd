"""The PROXY protocol, read and written."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Address as Four
from ipaddress import IPv6Address as Six

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from mtlsgate.proxyprotocol import (
    Command,
    Family,
    Header,
    HeaderReader,
    Malformed,
    NoHeader,
    Ssl,
    SslClient,
    Tlv,
    TlvType,
    alpn_tlv,
    authority_tlv,
    begins_header,
    encode_local,
    encode_v1,
    encode_v2,
    parse_ssl,
    parse_tlvs,
    ssl_tlv,
)
from mtlsgate.proxyprotocol.crc32c import crc32c
from mtlsgate.proxyprotocol.v1 import MAX_LINE
from mtlsgate.proxyprotocol.v2 import MAX_HEADER, SIGNATURE

Outcome = Header | NoHeader | None

AFTER = b"\x16\x03\x01 what follows"
V4 = IPv4Address("TCP", "192.0.2.7", 56324), IPv4Address("TCP", "198.51.100.1", 443)
V6 = IPv6Address("TCP", "2001:db8::7", 56324), IPv6Address("TCP", "2001:db8::1", 443)
UNKNOWN = Header(1, Command.PROXY, Family.UNSPEC)
LOCAL = Header(2, Command.LOCAL, Family.UNSPEC)
UNSPEC = Header(2, Command.PROXY, Family.UNSPEC)


def read(*pieces: bytes) -> tuple[Outcome, bytes]:
    reader = HeaderReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.feed(b""), reader.rest


def one_by_one(data: bytes) -> tuple[Outcome, bytes]:
    return read(*(data[at : at + 1] for at in range(len(data))))


def check(data: bytes, outcome: Outcome) -> None:
    """That is what becomes of it, at once and byte by byte, with and without more."""
    for more in (b"", AFTER):
        rest = more if isinstance(outcome, Header) else b""
        assert read(data + more) == (outcome, rest)
        assert one_by_one(data + more) == (outcome, rest)


def v2(block: bytes, first: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes((first, family)) + size.to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


BLOCK4 = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + (56324).to_bytes(2, "big") + b"\x01\xbb"
BLOCK6 = Six("2001:db8::7").packed + Six("2001:db8::1").packed + BLOCK4[8:]


def told(
    version: int, family: Family, ends: tuple[IAddress, IAddress], *tlvs: tuple[int, bytes]
) -> Header:
    assert version in (1, 2)
    return Header(1 if version == 1 else 2, Command.PROXY, family, *ends, tlvs)


class TestVersion1:
    @pytest.mark.parametrize(
        ("line", "header"),
        [
            (b"TCP4 192.0.2.7 198.51.100.1 56324 443", told(1, Family.TCP4, V4)),
            (b"TCP6 2001:db8::7 2001:db8::1 56324 443", told(1, Family.TCP6, V6)),
            # Any spelling of IPv6 that section 2.1 allows.
            (
                b"TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 2001:db8::1 56324 443",
                told(1, Family.TCP6, V6),
            ),
            (
                b"TCP6 ::ffff:192.0.2.7 :: 0 65535",
                told(
                    1,
                    Family.TCP6,
                    (IPv6Address("TCP", "::ffff:192.0.2.7", 0), IPv6Address("TCP", "::", 65535)),
                ),
            ),
            (
                b"TCP4 255.255.255.255 0.0.0.0 65535 0",
                told(
                    1,
                    Family.TCP4,
                    (
                        IPv4Address("TCP", "255.255.255.255", 65535),
                        IPv4Address("TCP", "0.0.0.0", 0),
                    ),
                ),
            ),
            (b"UNKNOWN", UNKNOWN),
            (b"UNKNOWN ", UNKNOWN),
            (b"UNKNOWN ffff::1 ffff::2 65535 65535", UNKNOWN),
            (b"UNKNOWN \xff\0 whatever", UNKNOWN),
        ],
    )
    def test_a_good_line_is_read(self, line: bytes, header: Header) -> None:
        check(b"PROXY " + line + b"\r\n", header)

    @pytest.mark.parametrize(
        ("line", "detail"),
        [
            (b"", "names a protocol"),
            (b"TCP5 192.0.2.7 198.51.100.1 1 2", "names a protocol"),
            (b"tcp4 192.0.2.7 198.51.100.1 1 2", "names a protocol"),
            (b"UDP4 192.0.2.7 198.51.100.1 1 2", "names a protocol"),
            (b"UNKNOWNS", "names a protocol"),
            (b" TCP4 192.0.2.7 198.51.100.1 1 2", "names a protocol"),
            (b"TCP4", "is not two addresses"),
            (b"TCP4 192.0.2.7 198.51.100.1 1", "is not two addresses"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 2 3", "is not two addresses"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 2 ", "is not two addresses"),
            (b"TCP4 192.0.2.7  198.51.100.1 1 2", "is not two addresses"),
            (b"TCP4\t192.0.2.7 198.51.100.1 1 2", "names a protocol"),
            (b"TCP4 192.0.2.7 198.51.100.1 01 2", "a port"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 65536", "a port"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 -2", "a port"),
            (b"TCP4 192.0.2.7 198.51.100.1 +1 2", "a port"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 1_0", "a port"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 \xd9\xa1", "a port"),
            (b"TCP4 192.0.2.7 198.51.100.1 1 00", "a port"),
            (b"TCP4 192.0.2.07 198.51.100.1 1 2", "not IPv4"),
            (b"TCP4 192.0.2 198.51.100.1 1 2", "not IPv4"),
            (b"TCP4 192.0.2.256 198.51.100.1 1 2", "not IPv4"),
            (b"TCP4 0x7f.0.0.1 198.51.100.1 1 2", "not IPv4"),
            (b"TCP4 2130706433 198.51.100.1 1 2", "not IPv4"),
            (b"TCP4 192.0.2.7 2001:db8::1 1 2", "not IPv4"),
            (b"TCP4 localhost 198.51.100.1 1 2", "not IPv4"),
            (b"TCP4 192.0.2.7\0 198.51.100.1 1 2", "not IPv4"),
            (b"TCP6 192.0.2.7 2001:db8::1 1 2", "not IPv6"),
            (b"TCP6 fe80::1%eth0 2001:db8::1 1 2", "not IPv6"),
            (b"TCP6 [2001:db8::7] 2001:db8::1 1 2", "not IPv6"),
            (b"TCP6 1::2::3 2001:db8::1 1 2", "not IPv6"),
            (b"TCP6 1:2:3:4:5:6:7 2001:db8::1 1 2", "not IPv6"),
            (b"TCP6 12345::1 2001:db8::1 1 2", "not IPv6"),
            (b"TCP6 \xff 2001:db8::1 1 2", "not IPv6"),
        ],
    )
    def test_a_line_that_the_specification_forbids_is_no_header(
        self, line: bytes, detail: str
    ) -> None:
        """What section 2.1 does not allow is no header."""
        outcome, _ = read(b"PROXY " + line + b"\r\n")
        assert isinstance(outcome, NoHeader)
        assert detail in outcome.detail
        check(b"PROXY " + line + b"\r\n", outcome)

    @pytest.mark.parametrize(
        "data",
        [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\rx",
            b"PROXY UNKNOWN \n\r\n",
            b"PROXY \n",
        ],
    )
    def test_half_an_end(self, data: bytes) -> None:
        """Neither CR nor LF alone is an end, nor part of a line."""
        check(data, NoHeader("the PROXY line holds a CR or LF that is not its end"))

    def test_a_line_has_at_most_107_bytes(self) -> None:
        """107 bytes are a line, and 108 are not."""
        longest = b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16)
        assert len(longest) + 2 == MAX_LINE == 107
        check(longest + b"\r\n", UNKNOWN)
        too_long = NoHeader("the PROXY line has no end within 107 bytes")
        check(longest + b"x\r\n", too_long)
        check(longest + b"x\r", too_long)
        check(longest + b"xx", too_long)
        assert read(longest + b"x") == (None, b"")

    @pytest.mark.parametrize(
        ("ends", "line"),
        [
            (V4, b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"),
            (V6, b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"),
            ((V4[0], V6[1]), b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 56324 443\r\n"),
            ((V6[0], V4[1]), b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 56324 443\r\n"),
            (
                (IPv6Address("TCP", "fe80::1%eth0", 1), V6[1]),
                b"PROXY TCP6 fe80::1 2001:db8::1 1 443\r\n",
            ),
            ((UNIXAddress(b"/run/a"), UNIXAddress(b"/run/b")), b"PROXY UNKNOWN\r\n"),
            ((UNIXAddress(None), V4[1]), b"PROXY UNKNOWN\r\n"),
            ((IPv4Address("UDP", "192.0.2.7", 1), V4[1]), b"PROXY UNKNOWN\r\n"),
            ((HostnameAddress(b"a.example", 1), V4[1]), b"PROXY UNKNOWN\r\n"),
        ],
    )
    def test_what_is_written_is_read_again(
        self, ends: tuple[IAddress, IAddress], line: bytes
    ) -> None:
        assert encode_v1(*ends) == line


class TestVersion2:
    @pytest.mark.parametrize(
        ("data", "header"),
        [
            (v2(BLOCK4), told(2, Family.TCP4, V4)),
            (v2(BLOCK6, family=0x21), told(2, Family.TCP6, V6)),
            (
                v2(BLOCK4, family=0x12),
                told(
                    2,
                    Family.UDP4,
                    (
                        IPv4Address("UDP", "192.0.2.7", 56324),
                        IPv4Address("UDP", "198.51.100.1", 443),
                    ),
                ),
            ),
            (
                v2(BLOCK6, family=0x22),
                told(
                    2,
                    Family.UDP6,
                    (
                        IPv6Address("UDP", "2001:db8::7", 56324),
                        IPv6Address("UDP", "2001:db8::1", 443),
                    ),
                ),
            ),
            (
                v2(b"/run/a".ljust(108, b"\0") + b"/run/b\0junk".ljust(108, b"\0"), family=0x31),
                told(2, Family.UNIX_STREAM, (UNIXAddress(b"/run/a"), UNIXAddress(b"/run/b"))),
            ),
            (
                v2(b"\0name".ljust(108, b"\0") + bytes(108), family=0x32),
                told(2, Family.UNIX_DATAGRAM, (UNIXAddress(b"\0name"), UNIXAddress(None))),
            ),
            (v2(b"", family=0x00), UNSPEC),
            (
                v2(tlv(1, b"h2"), family=0x00),
                Header(2, Command.PROXY, Family.UNSPEC, tlvs=((1, b"h2"),)),
            ),
            # Of LOCAL everything is skipped, whatever it is (section 2.2).
            (v2(b"", first=0x20, family=0x00), LOCAL),
            (v2(BLOCK4, first=0x20), LOCAL),
            (v2(b"\1\2", first=0x20, family=0xFF), LOCAL),
            (v2(BLOCK4 + tlv(3, b"\0\0\0\0"), first=0x20), LOCAL),
            (
                v2(BLOCK4 + tlv(1, b"h2") + tlv(4, b"pad") + tlv(0xE0, b"") + tlv(0xE0, b"x")),
                told(2, Family.TCP4, V4, (1, b"h2"), (0xE0, b""), (0xE0, b"x")),
            ),
            (v2(BLOCK4 + tlv(0, bytes(300))), told(2, Family.TCP4, V4, (0, bytes(300)))),
        ],
    )
    def test_a_good_header_is_read(self, data: bytes, header: Header) -> None:
        check(data, header)

    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (v2(BLOCK4, first=0x11), "version other than"),
            (v2(BLOCK4, first=0x31), "version other than"),
            (v2(BLOCK4, first=0x01), "version other than"),
            (v2(BLOCK4, first=0x22), "command is neither"),
            (v2(BLOCK4, first=0x2F), "command is neither"),
            (v2(BLOCK4, family=0x01), "is of a family"),
            (v2(BLOCK4, family=0x10), "is of a family"),
            (v2(BLOCK4, family=0x13), "is of a family"),
            (v2(BLOCK4, family=0x41), "is of a family"),
            (v2(BLOCK4[:-1]), "too short"),
            (v2(b""), "too short"),
            (v2(BLOCK6[:-1], family=0x21), "too short"),
            (v2(bytes(215), family=0x31), "too short"),
            (v2(BLOCK4 + b"\1"), "a TLV is cut short"),
            (v2(BLOCK4 + b"\1\0"), "a TLV is cut short"),
            (v2(BLOCK4 + b"\1\0\1"), "a TLV is cut short"),
            (v2(BLOCK4 + tlv(1, b"h2") + b"\1\xff\xffx"), "a TLV is cut short"),
            (v2(b"\0", family=0x00), "a TLV is cut short"),
            (v2(BLOCK4 + tlv(3, b"\0\0\0\0")), "checksum is wrong"),
            (v2(BLOCK4 + tlv(3, b"\0\0\0")), "not one of four bytes"),
            (v2(BLOCK4 + tlv(3, b"\0\0\0\0\0")), "not one of four bytes"),
        ],
    )
    def test_a_header_that_the_specification_forbids_is_none(
        self, data: bytes, detail: str
    ) -> None:
        """What section 2.2 does not allow is no header."""
        outcome, _ = read(data)
        assert isinstance(outcome, NoHeader)
        assert detail in outcome.detail
        check(data, outcome)

    def test_refused_as_soon_as_known(self) -> None:
        """Nobody waits for a length that a sender of nonsense announces."""
        for data in (v2(b"", first=0x31), v2(b"", family=0x77, length=0xFFFF), v2(b"", length=11)):
            assert isinstance(read(data)[0], NoHeader)

    def test_the_longest_header_is_read(self) -> None:
        """The longest header that its length field can tell of is one."""
        value = bytes(0xFFFF - len(BLOCK4) - 3)
        data = v2(BLOCK4 + tlv(0xE0, value))
        assert len(data) == MAX_HEADER
        check(data, told(2, Family.TCP4, V4, (0xE0, value)))
        assert encode_v2(*V4, [(0xE0, value)]) == data
        with pytest.raises(ValueError, match="too long for a PROXY header: 65536 bytes"):
            encode_v2(*V4, [(0xE0, value + b"x")])

    def test_a_wrong_checksum_is_noticed(self) -> None:
        """A checksum is verified wherever it stands; any change is noticed."""
        data = encode_v2(*V4, [(1, b"h2")], checksum=True)
        check(data, told(2, Family.TCP4, V4, (1, b"h2")))
        # Ahead of other vectors.
        blank = BLOCK4 + tlv(3, bytes(4)) + tlv(1, b"h2")
        early = BLOCK4 + tlv(3, crc32c(v2(blank)).to_bytes(4, "big")) + tlv(1, b"h2")
        check(v2(early), told(2, Family.TCP4, V4, (1, b"h2")))
        for at in range(16, len(data)):
            changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
            outcome, _ = read(changed)
            # Only a vector that is one no longer takes its checksum along.
            assert isinstance(outcome, NoHeader) or data[at] == TlvType.CRC32C
        twice = data[:-7] + data[-7:] * 2
        length = (len(twice) - 16).to_bytes(2, "big")
        outcome, _ = read(twice[:14] + length + twice[16:])
        assert isinstance(outcome, NoHeader)

    def test_known_checksums(self) -> None:
        """CRC32c of RFC 3720, B.4."""
        assert crc32c(b"123456789") == 0xE3069283
        assert crc32c(bytes(32)) == 0x8A9136AA
        assert crc32c(b"\xff" * 32) == 0x62A8AB43
        assert crc32c(bytes(range(32))) == 0x46DD794E

    @pytest.mark.parametrize(
        ("ends", "data"),
        [
            (V4, v2(BLOCK4)),
            (V6, v2(BLOCK6, family=0x21)),
            ((V4[0], V6[1]), v2(Six("::ffff:192.0.2.7").packed + BLOCK6[16:], family=0x21)),
            (
                (UNIXAddress(b"/run/a"), UNIXAddress(None)),
                v2(b"/run/a".ljust(216, b"\0"), family=0x31),
            ),
            ((UNIXAddress(None), V4[1]), v2(b"", family=0)),
            ((HostnameAddress(b"a.example", 1), V4[1]), v2(b"", family=0)),
        ],
    )
    def test_what_is_written_is_read_again(
        self, ends: tuple[IAddress, IAddress], data: bytes
    ) -> None:
        assert encode_v2(*ends) == data

    def test_local_has_no_addresses(self) -> None:
        check(encode_local(), LOCAL)

    @pytest.mark.parametrize("encode", [encode_v1, encode_v2])
    @pytest.mark.parametrize(
        ("source", "text"),
        [
            (IPv4Address("TCP", "a.example", 1), "not an address of its family: 'a.example'"),
            (IPv6Address("TCP", "192.0.2.7", 1), "not an address of its family"),
            (IPv4Address("TCP", "192.0.2.7\n", 1), "not an address of its family"),
            (IPv4Address("TCP", "192.0.2.7", 65536), "not a port: 65536"),
            (IPv4Address("TCP", "192.0.2.7", -1), "not a port: -1"),
        ],
    )
    def test_nonsense_is_not_encoded(
        self, encode: Callable[[IAddress, IAddress], bytes], source: IAddress, text: str
    ) -> None:
        with pytest.raises(ValueError, match=text):
            encode(source, V4[1])

    @pytest.mark.parametrize(
        "vector", [(-1, b""), (256, b""), (1, bytes(65536)), (1, bytes(65535))]
    )
    def test_vectors_out_of_range(self, vector: Tlv) -> None:
        with pytest.raises(ValueError, match=r"not a type|too long"):
            encode_v2(*V4, [vector])

    def test_long_unix_name(self) -> None:
        with pytest.raises(ValueError, match="longer than 108"):
            encode_v2(UNIXAddress(b"x" * 109), UNIXAddress(None))


class TestNoHeader:
    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (b"\x16\x03\x01", "TLS began without a PROXY header before it"),
            (b"GET / HTTP/1.1\r\n", "what arrived is no PROXY header"),
            (b"PROXX TCP4", "what arrived is no PROXY header"),
            (b"proxy TCP4", "what arrived is no PROXY header"),
            (b"PROXY\tTCP4", "what arrived is no PROXY header"),
            (b"\r\n\r\n\r\n", "what arrived is no PROXY header"),
            (b"\r\n\r\n\0\r\nQUIT\r\x21", "what arrived is no PROXY header"),
            (b"\0", "what arrived is no PROXY header"),
        ],
    )
    def test_something_else(self, data: bytes, detail: str) -> None:
        check(data, NoHeader(detail))

    @pytest.mark.parametrize(
        "data", [encode_v1(*V4), encode_v2(*V6, [alpn_tlv(b"h2")]), encode_local(), b"PROXY UNK"]
    )
    def test_not_yet(self, data: bytes) -> None:
        """Every beginning of a header waits for more."""
        for end in range(len(data)):
            assert read(data[:end]) == (None, b"")

    def test_begins_header(self) -> None:
        """Five bytes tell a header from TLS."""
        assert begins_header(encode_v1(*V4))
        assert begins_header(encode_local())
        assert not begins_header(b"PROX")
        assert not begins_header(b"\r\n\r\n\r")
        assert not begins_header(b"\x16\x03\x01\x02\x00")


class TestVectors:
    def test_the_tls_field_is_that_of_section_2_2_6(self) -> None:
        """What the gate tells of a client's TLS, as section 2.2.6 has it."""
        kind, value = ssl_tlv(
            version="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            common_name="Jürgen",
            presented=True,
            verified=True,
        )
        assert kind == TlvType.SSL
        assert value == (
            b"\x07\0\0\0\0"
            + tlv(0x21, b"TLSv1.3")
            + tlv(0x22, "Jürgen".encode())
            + tlv(0x23, b"TLS_AES_256_GCM_SHA384")
        )
        assert parse_ssl(value) == Ssl(
            SslClient.SSL | SslClient.CERT_CONN | SslClient.CERT_SESS,
            True,
            (
                (0x21, b"TLSv1.3"),
                (0x22, "Jürgen".encode()),
                (0x23, b"TLS_AES_256_GCM_SHA384"),
            ),
        )

    @pytest.mark.parametrize(
        ("presented", "verified", "resumed", "beginning"),
        [
            (True, True, True, b"\x05\0\0\0\0"),
            (True, False, False, b"\x07\0\0\0\1"),
            (False, False, False, b"\x01\0\0\0\1"),
            # Verified is what was presented, and nothing else.
            (False, True, False, b"\x01\0\0\0\1"),
        ],
    )
    def test_ssl_bits(
        self, presented: bool, verified: bool, resumed: bool, beginning: bytes
    ) -> None:
        _, value = ssl_tlv(
            version="TLSv1.2",
            cipher="c",
            presented=presented,
            verified=verified,
            resumed=resumed,
        )
        assert value == beginning + tlv(0x21, b"TLSv1.2") + tlv(0x23, b"c")

    @pytest.mark.parametrize(
        "value", [b"", b"\1\0\0\0", b"\1\0\0\0\0\x21\0", b"\1\0\0\0\0\x21\0\1"]
    )
    def test_ssl_cut_short(self, value: bytes) -> None:
        with pytest.raises(Malformed, match="cut short"):
            parse_ssl(value)

    def test_further_fields_are_written_and_read(self) -> None:
        assert alpn_tlv(b"h2") == (1, b"h2")
        assert authority_tlv("a.example") == (2, b"a.example")
        data = tlv(1, b"h2") + tlv(2, b"")
        assert parse_tlvs(data) == ((1, b"h2"), (2, b""))
        assert parse_tlvs(b"") == ()


# Properties.

ports = st.integers(0, 65535)
fours = st.builds(
    IPv4Address, st.just("TCP"), st.integers(0, 2**32 - 1).map(lambda n: str(Four(n))), ports
)
sixes = st.builds(
    IPv6Address,
    st.just("TCP"),
    st.integers(0, 2**128 - 1).map(Six).map(str),
    ports,
)
pairs = st.one_of(st.tuples(fours, fours), st.tuples(sixes, sixes))
#: No padding and no checksum, which are not handed on.
vectors = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind not in (3, 4)), st.binary(max_size=300)),
    max_size=5,
)


def canonical(address: IPv4Address | IPv6Address) -> tuple[str, Four | Six, int]:
    make = Six if isinstance(address, IPv6Address) else Four
    return address.type, make(address.host), address.port


def split(data: bytes, seed: int) -> list[bytes]:
    choose = random.Random(seed)
    cuts = sorted(choose.randrange(len(data) + 1) for _ in range(choose.randrange(6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(pairs, vectors, st.booleans(), st.binary(max_size=20), st.integers())
def test_round_trip(
    ends: tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address],
    tlvs: list[Tlv],
    checksum: bool,
    after: bytes,
    seed: int,
) -> None:
    """What was encoded is read back, in whatever pieces it comes, and not a byte more."""
    source, destination = ends
    for version, data in (
        (1, encode_v1(source, destination)),
        (2, encode_v2(source, destination, tlvs, checksum=checksum)),
    ):
        header, rest = read(*split(data + after, seed))
        assert isinstance(header, Header)
        assert (header.version, header.command) == (version, Command.PROXY)
        assert list(header.tlvs) == ([] if version == 1 else tlvs)
        assert rest == after
        for found, meant in zip((header.source, header.destination), ends, strict=True):
            assert isinstance(found, IPv4Address | IPv6Address)
            assert canonical(found) == canonical(meant)


@pytest.mark.slow
@settings(max_examples=500)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=120).map(lambda rest: b"PROXY " + rest),
        st.binary(max_size=120).map(lambda rest: SIGNATURE + rest),
        st.binary(max_size=80).map(lambda rest: v2(BLOCK4 + rest)),
        st.binary(max_size=40).map(lambda rest: b"PROXY TCP4 " + rest + b"\r\n"),
    ),
    st.integers(),
)
def test_noise_is_never_a_header(data: bytes, seed: int) -> None:
    """Whatever comes: no exception, one outcome however it is cut, and of what is no
    header nothing is kept."""
    outcome = read(data)
    assert read(*split(data, seed)) == outcome == one_by_one(data)
    header, rest = outcome
    if not isinstance(header, Header):
        assert rest == b""


def test_mutated_headers_raise_nothing() -> None:
    """Headers with bytes changed, lost and added: no exception, however they are cut."""
    choose = random.Random(20)
    good = [
        encode_v1(*V4),
        encode_v1(*V6),
        encode_v2(*V4, [alpn_tlv(b"h2"), authority_tlv("a.example")], checksum=True),
        encode_v2(UNIXAddress(b"/run/a"), UNIXAddress(b"/run/b")),
    ]
    outcomes = set()
    for number in range(3000):
        data = bytearray(choose.choice(good))
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(len(data))
            match choose.randrange(3):
                case 0:
                    data[at] = choose.randrange(256)
                case 1:
                    del data[at]
                case _:
                    data.insert(at, choose.choice((0, 10, 13, 32, 255)))
        changed = bytes(data)
        outcome = read(changed)
        assert read(*split(changed, number)) == outcome
        outcomes.add(type(outcome[0]))
    assert outcomes == {Header, NoHeader, type(None)}


def test_bounded_memory() -> None:
    """Nothing is kept of who is refused, and no more than one header of who is not yet."""
    for beginning in (b"PROXY ", b"\0", v2(b"", family=0x77), v2(BLOCK4 + b"\1\xff\xff")):
        reader = HeaderReader()
        reader.feed(beginning)
        for _ in range(100):
            reader.feed(b"x" * 1000)
        assert isinstance(reader.feed(b""), NoHeader)
        assert len(reader.rest) + len(reader._received) == 0
    reader = HeaderReader()
    reader.feed(v2(b"", length=0xFFFF))
    for _ in range(65):
        assert reader.feed(bytes(1000)) is None
        assert len(reader._received) <= MAX_HEADER
