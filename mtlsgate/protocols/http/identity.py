"""
Who the client is, in header fields.

Names in certificates are chosen by others: whatever a field cannot carry is
percent-encoded, so that no name can end a field, begin another, or be taken
for something else once it is decoded.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal
from urllib.parse import quote

from attrs import frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.config import PeerText
from mtlsgate.http.fields import Line
from mtlsgate.interfaces import IVerifiedPeer

#: The keys of ``X-Forwarded-Client-Cert``, in Envoy's order.
Detail = Literal["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"]
DETAILS: tuple[Detail, ...] = ("By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS")

#: Visible ASCII and the space between; not "%", so that it can be undone.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_ENDS = re.compile(r"^ +| +$")
#: A backslash that a parser may take to escape what comes after it.
_LOOSE_BACKSLASH = re.compile(r'\\(?=[\\"]|\Z)')


def encoded(text: str, *, item: bool = False) -> bytes:
    """
    :param item: whether it is one of several, which commas separate.
    :returns: the text as a field's value: UTF-8 in which all but visible ASCII
        and inner spaces, and ``%``, is percent-encoded; of an item, commas, too.
    """
    plain = _PLAIN.replace(",", "") if item else _PLAIN
    value = quote(text, safe=plain, errors="surrogateescape")
    return _ENDS.sub(lambda found: "%20" * len(found[0]), value).encode("ascii")


def own_fields(headers: Mapping[bytes, PeerText], peer: IVerifiedPeer | None) -> Iterator[Line]:
    """
    Yield the fields of a ``headers`` block that stand for something.

    :param headers: values that do not depend on the client are sent as they are.
    """
    for name, text in headers.items():
        match text.of(peer):
            case None | ():
                continue
            case value if text.constant:
                items = value if isinstance(value, tuple) else (value,)
                yield name, ", ".join(items).encode("ascii")
            case tuple(items):
                yield name, b", ".join(encoded(one, item=True) for one in items)
            case value:
                yield name, encoded(str(value))


def _binary(certificate: Certificate) -> bytes:
    """A structured field's byte sequence (RFC 9651, 3.3.5; RFC 9440, 2.1)."""
    return b":" + b64encode(certificate.der) + b":"


def client_cert(path: Sequence[Certificate]) -> bytes:
    """:returns: the leaf, as ``Client-Cert`` has it (RFC 9440, 2.2)."""
    return _binary(path[0])


def client_cert_chain(path: Sequence[Certificate]) -> bytes | None:
    """:returns: all but the leaf, as ``Client-Cert-Chain`` has it (RFC 9440,
    2.3); None if there is nothing else, since a list cannot be empty."""
    return b", ".join(map(_binary, path[1:])) or None


def _quoted(value: bytes) -> bytes:
    # To Envoy only `\"` is an escape, to other parsers `\\` is one, too.  What they would
    # read differently is encoded.
    text = _LOOSE_BACKSLASH.sub("%5C", value.decode("ascii"))
    return b'"' + text.replace('"', '\\"').encode("ascii") + b'"'


def _plain_or_quoted(value: bytes) -> bytes:
    return _quoted(value) if re.search(rb'[,;=" \\]', value) else value


def _pem(certificates: Iterable[Certificate]) -> bytes:
    text = b"".join(one.pem for one in certificates)
    return b'"' + quote(text, safe="").encode("ascii") + b'"'


def forwarded_client_cert(
    peer: IVerifiedPeer, details: Iterable[Detail], by: Sequence[str] = ()
) -> bytes:
    """
    :param details: which keys to give.
    :param by: the URIs of the gate's own certificate.
    :returns: one element of ``X-Forwarded-Client-Cert``, as Envoy writes it.
    """
    chosen = set(details)
    pairs: list[tuple[str, bytes]] = []
    if "By" in chosen:
        pairs += [("By", _plain_or_quoted(encoded(uri))) for uri in by]
    if "Hash" in chosen:
        pairs.append(("Hash", peer.sha256.encode("ascii")))
    if "Cert" in chosen:
        pairs.append(("Cert", _pem(peer.certificates[:1])))
    if "Chain" in chosen:
        pairs.append(("Chain", _pem(peer.certificates)))
    if "Subject" in chosen:
        pairs.append(("Subject", _quoted(encoded(peer.subject))))
    # Like Envoy, send an empty URI if there is none.
    if "URI" in chosen:
        pairs += [("URI", _plain_or_quoted(encoded(uri))) for uri in peer.uris or ("",)]
    if "DNS" in chosen:
        pairs += [("DNS", _plain_or_quoted(encoded(name))) for name in peer.dns_names]
    return b";".join(key.encode("ascii") + b"=" + value for key, value in pairs)


@frozen
class IdentityRules:
    """
    Which fields name the client.

    :ivar client_cert: whether ``Client-Cert`` does.
    :ivar client_cert_chain: whether ``Client-Cert-Chain`` does.
    :ivar forwarded_client_cert: the keys of ``X-Forwarded-Client-Cert``.
    :ivar headers: fields that the configuration adds.
    """

    client_cert: bool = False
    client_cert_chain: bool = False
    forwarded_client_cert: tuple[Detail, ...] = ()
    headers: Mapping[bytes, PeerText] = {}

    def fields(self, peer: IVerifiedPeer | None, by: Sequence[str] = ()) -> list[Line]:
        """
        :param peer: the client, or None where no certificate is asked for.
        :param by: the URIs of the gate's own certificate.
        :returns: the fields that name it.
        """
        lines: list[Line] = []
        if peer is not None and self.client_cert:
            lines.append((b"Client-Cert", client_cert(peer.certificates)))
        if peer is not None and self.client_cert_chain:
            chain = client_cert_chain(peer.certificates)
            if chain is not None:
                lines.append((b"Client-Cert-Chain", chain))
        if peer is not None and self.forwarded_client_cert:
            value = forwarded_client_cert(peer, self.forwarded_client_cert, by)
            lines.append((b"X-Forwarded-Client-Cert", value))
        lines.extend(own_fields(self.headers, peer))
        return lines


def own_uris(certificate: Certificate | None) -> tuple[str, ...]:
    """:returns: the URIs of the gate's own certificate, for the key ``By``."""
    return () if certificate is None else certificate.readable_names.uris
