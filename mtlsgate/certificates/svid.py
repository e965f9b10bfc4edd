"""
X.509-SVIDs: certificates whose holder is named by a SPIFFE ID.

The rules are those of the standards of SPIFFE: "SPIFFE-ID" for the names, and
"X509-SVID" for the certificates.
"""

from __future__ import annotations

import re

from attrs import frozen

from mtlsgate.certificates.certificate import CRL_SIGN, KEY_CERT_SIGN, UNPARSABLE, Certificate
from mtlsgate.errors import CredentialError
from mtlsgate.text import first_line, quoted

_SCHEME = "spiffe://"
#: SPIFFE-ID, 2.3: longer ones need not be accepted.
_MAX_ID, _MAX_TRUST_DOMAIN = 2048, 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")


@frozen
class SpiffeId:
    """
    A SPIFFE ID.

    :ivar trust_domain: the name of its trust domain, as ``plants.example``.
    :ivar path: what comes after it, from the slash on; empty for the trust domain itself.
    """

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def parse_spiffe_id(text: str) -> SpiffeId:
    """
    :param text: as ``spiffe://plants.example/press/7`` (SPIFFE-ID, 2).
    :raises ValueError: if it is no SPIFFE ID; the text follows it.
    """
    if not text.startswith(_SCHEME):
        raise ValueError('is no SPIFFE ID: write "spiffe://trust-domain/path"')
    if len(text) > _MAX_ID:
        raise ValueError(f"is longer than {_MAX_ID} characters")
    domain, slash, rest = text.removeprefix(_SCHEME).partition("/")
    parse_trust_domain(domain)
    if slash and not all(
        _SEGMENT.fullmatch(one) and one not in (".", "..") for one in rest.split("/")
    ):
        raise ValueError(
            "has a path that no SPIFFE ID has: segments of letters, digits, dots, - and _"
        )
    return SpiffeId(domain, slash + rest)


def parse_trust_domain(text: str) -> str:
    """
    :param text: as ``plants.example``, or as ``spiffe://plants.example``.
    :returns: the trust domain's name.
    :raises ValueError: if it is none (SPIFFE-ID, 2.1); the text follows it.
    """
    name = text.removeprefix(_SCHEME)
    if not _TRUST_DOMAIN.fullmatch(name) or len(name) > _MAX_TRUST_DOMAIN:
        raise ValueError("is no trust domain: lower-case letters, digits, dots, - and _")
    return name


def spiffe_id_of(leaf: Certificate) -> SpiffeId:
    """
    Read whom an X.509-SVID names, with the checks of X509-SVID, 5.2.

    :param leaf: the certificate, whose path is verified elsewhere.
    :returns: its SPIFFE ID, which has a path.
    :raises CredentialError: if it is no X.509-SVID of a workload; the text says why.
    """
    try:
        if leaf.is_ca:
            raise CredentialError("is a CA, which never stands for a workload")
        if (leaf.key_usage or 0) & (KEY_CERT_SIGN | CRL_SIGN):
            raise CredentialError("may sign certificates or revocation lists by its key usage")
        uris = leaf.names.uri_count
        if uris != 1:
            raise CredentialError(
                "has no URI among its names"
                if not uris
                else f"has {uris} URIs among its names, and must have one"
            )
        text = leaf.names.uris[0] if leaf.names.uris else ""
    except UNPARSABLE as error:
        raise CredentialError(f"does not parse: {first_line(error)}") from None
    try:
        found = parse_spiffe_id(text)
    except ValueError as error:
        raise CredentialError(f"has the URI {quoted(text)}, which {error}") from None
    if not found.path:
        raise CredentialError(f"names the trust domain {found} itself, and no workload of it")
    return found
