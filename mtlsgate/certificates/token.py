"""
Keys in a token, such as a smart card or an HSM, named by their URI (RFC 7512).

The gate never has such a key: OpenSSL asks the token to sign, by the provider that
OpenSSL's own configuration loads (https://github.com/latchset/pkcs11-provider).
"""

from __future__ import annotations

import re
from base64 import encodebytes

from attrs import field, frozen

from mtlsgate.errors import CredentialError

_SCHEME = re.compile(r"\s*pkcs11:", re.IGNORECASE)
#: Attributes with values, separated by ``;``, then those of the query (RFC 7512, 2.3).
_URI = re.compile(
    r"pkcs11:(?:[a-z0-9-]+=[A-Za-z0-9_.~:\[\]@!$'()*+,=&/%-]+"
    r"(?:;[a-z0-9-]+=[A-Za-z0-9_.~:\[\]@!$'()*+,=&/%-]+)*)"
    r"(?:\?[a-z0-9-]+=[A-Za-z0-9_.~:\[\]@!$'()*+,=/%|-]+"
    r"(?:&[a-z0-9-]+=[A-Za-z0-9_.~:\[\]@!$'()*+,=/%|-]+)*)?"
)
#: What the provider expects in such a PEM block before the URI.
_HEAD = b"PKCS#11 Provider URI v1.0"
_VISIBLE_STRING, _UTF8_STRING, _SEQUENCE = 0x1A, 0x0C, 0x30


@frozen
class TokenKey:
    """
    A private key in a token.

    :ivar uri: which; it may have the token's PIN.
    """

    uri: str = field(repr=False)

    @property
    def pem(self) -> bytes:
        """What OpenSSL reads in place of a key; the provider knows the format."""
        uri = self.uri.encode()
        der = _tlv(_SEQUENCE, _tlv(_VISIBLE_STRING, _HEAD) + _tlv(_UTF8_STRING, uri))
        label = b"PKCS#11 PROVIDER URI"
        return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, encodebytes(der), label)


def is_token_uri(text: str) -> bool:
    """:returns: whether a text is meant as the URI of something in a token."""
    return _SCHEME.match(text) is not None


def parse_token_key(text: str) -> TokenKey:
    """:raises CredentialError: if it is no URI of a key; the text has none of it."""
    uri = text.strip()
    if _URI.fullmatch(uri) is None:
        raise CredentialError(
            'is no URI of a key in a token: write it as "pkcs11:token=gate;object=key;type=private"'
        )
    if re.search(r"[:;]type=(?!private\b)", uri):
        raise CredentialError("is the URI of something else than a private key: type=private")
    return TokenKey(uri)


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content
