"""
From bytes to certificates and keys.

PEM, DER and base64 of DER in; `cryptography` objects out.  Errors never hold
any of the bytes.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from mtlsgate.errors import CredentialError

T = TypeVar("T")

#: The kinds of key that a TLS server can sign with.
PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

#: What `cryptography` raises where a certificate, one of its names or one of
#: its extensions does not parse.  Many parse on first use only.
UNPARSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

#: Certificates whose facts are remembered: a handshake asks for the same ones
#: several times, and CAs come up again and again.
MAX_REMEMBERED = 4096
#: ... of at most so many bytes: strangers show what they like.
_MAX_REMEMBERED_BYTES = 4096

_PEM_BEGIN = re.compile(rb"-----BEGIN ")
_PEM_BLOCK = re.compile(
    # No five dashes inside, and one way only to read what is: the time stays
    # linear.  (Possessive quantifiers would say so, but Python 3.11.2 has them wrong.)
    rb"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----\r?\n"
    rb"[^-]*(?:-(?!----)[^-]*)*-----END (?P=kind)-----"
)
#: Far above any real bundle; a device file named by mistake must not be read for ever.
MAX_FILE_BYTES = 256 * 1024 * 1024


@frozen
class ServerCredential:
    """
    What the gate shows of itself.

    :ivar chain: leaf first, then the intermediates it sends along.
    :ivar private_key: the leaf's key.
    """

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False)


def read_file(path: Path, opener: Callable[[str, int], int] = os.open) -> bytes:
    """
    :param opener: opens a file as `os.open` does.
    :returns: what the file holds.
    :raises CredentialError: if it cannot be read or is empty, in words that
        follow the file's name.
    """
    try:
        # Before it is opened, for that alone has an effect on some.
        _refuse_others(path)
        with open(path, "rb", opener=opener) as stream:
            found = os.fstat(stream.fileno())
            # No more than it takes: room for the longest would take longer than reading.
            data = stream.read(min(found.st_size, MAX_FILE_BYTES) + 1)
            if len(data) > found.st_size:
                data += stream.read(MAX_FILE_BYTES + 1 - len(data))
    except FileNotFoundError:
        raise CredentialError("no such file") from None
    except PermissionError:
        raise CredentialError("permission denied: the gate's user cannot read it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CredentialError(f"cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise CredentialError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    if not data.strip():
        raise CredentialError("is empty")
    return data


def _refuse_others(path: Path) -> None:
    """:raises CredentialError: if it is no regular file."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        # In a directory that the user must not look into; an opener may.
        return
    if stat.S_ISDIR(mode):
        raise CredentialError("is a directory, not a file")
    if not stat.S_ISREG(mode):
        raise CredentialError("is not a regular file")


def itself(certificate: x509.Certificate) -> x509.Certificate:
    """:returns: what it is given: all there is of a certificate is kept."""
    return certificate


def parse_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """
    :param data: PEM (one certificate or many), DER, or base64 of DER.
    :returns: at least one certificate, in the order given.
    :raises CredentialError: if any part of it does not parse; it says which.
    """
    return parse_each(data, itself)


def parse_each(data: bytes, keep: Callable[[x509.Certificate], T]) -> tuple[T, ...]:
    """
    As `parse_certificates` does, but keep of a certificate only what is made of
    it: parsed, a hundred thousand would fill the memory.

    :param keep: is called with each, one after the other.
    :returns: what it made of them.
    """
    if not data.strip():
        raise CredentialError("is empty")
    if _PEM_BEGIN.search(data):
        blocks = _pem_blocks(data)
        for number, (kind, _) in enumerate(blocks, 1):
            if kind not in ("CERTIFICATE", "X509 CERTIFICATE"):
                raise CredentialError(
                    f"PEM block {number} of {len(blocks)} is a {kind}, not a CERTIFICATE"
                )
        found = [body for _, body in blocks]
    else:
        found = [data if data[:1] == b"\x30" else _from_base64(data)]
    with _no_warnings():
        return tuple(
            keep(_certificate(der, number, len(found))) for number, der in enumerate(found, 1)
        )


def parse_again(ders: Iterable[bytes]) -> tuple[x509.Certificate, ...]:
    """
    :param ders: the DER of certificates that parsed before.
    """
    with _no_warnings():
        return tuple(map(x509.load_der_x509_certificate, ders))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Without what cryptography has to say of serial numbers that RFC 5280
    forbids; they harm nobody here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pem_blocks(data: bytes) -> list[tuple[str, bytes]]:
    """:returns: (kind, DER) of each block; text around the blocks is ignored."""
    blocks = list(_PEM_BLOCK.finditer(data))
    begun, ended = data.count(b"-----BEGIN "), data.count(b"-----END ")
    if not begun == ended == len(blocks):
        raise CredentialError(
            f"the PEM is damaged: {begun} BEGIN lines and {ended} END lines make "
            f"{len(blocks)} whole blocks"
        )
    return [
        (block["kind"].decode("ascii"), _pem_body(block[0], number, len(blocks)))
        for number, block in enumerate(blocks, 1)
    ]


def _pem_body(block: bytes, number: int, count: int) -> bytes:
    # RFC 1421 headers, as OpenSSL writes in encrypted PKCS#1 keys, end at an empty line.
    if b":" in block:
        return b""
    lines = block.splitlines()[1:-1]
    try:
        return base64.b64decode(b"".join(map(bytes.strip, lines)), validate=True)
    except binascii.Error:
        raise CredentialError(
            f"PEM block {number} of {count} does not parse: its base64 is damaged"
        ) from None


def _from_base64(data: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        raise CredentialError("is neither PEM nor DER nor base64 of DER") from None


def _certificate(der: bytes, number: int, count: int) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # These parse on first use: now is the time to find out.
        _ = certificate.extensions, certificate.subject, certificate.issuer
        certificate.public_key()
    except UNPARSABLE as error:
        which = f"certificate {number} of {count}" if count > 1 else "the certificate"
        what = str(error).partition("\n")[0] or type(error).__name__
        raise CredentialError(f"{which} does not parse: {what}") from None
    return certificate


def parse_private_key(data: bytes, passphrase: str | None = None) -> PrivateKey:
    """
    :param data: PKCS#8, PKCS#1 or SEC1, as PEM, DER or base64 of DER; in PEM,
        whatever stands beside the one key is ignored.
    :param passphrase: for an encrypted key.
    :raises CredentialError: if it is no key that a TLS server can sign with,
        or the passphrase is wrong, missing or not needed.
    """
    if not data.strip():
        raise CredentialError("is empty")
    # From the environment it may be any bytes.
    secret = None if passphrase is None else passphrase.encode(errors="surrogateescape")
    try:
        if _PEM_BEGIN.search(data):
            key = load_pem_private_key(_only_key_block(data), secret)
        else:
            key = load_der_private_key(data if data[:1] == b"\x30" else _from_base64(data), secret)
    except TypeError:
        raise CredentialError(
            "the key is encrypted: set private_key_passphrase"
            if secret is None
            else "the key is not encrypted: remove private_key_passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # What the library says here may quote the input.
        raise CredentialError(
            "is not a private key (PKCS#8, PKCS#1 or SEC1), is damaged, or the passphrase is wrong"
            if secret is not None
            else "is not a private key (PKCS#8, PKCS#1 or SEC1) or is damaged"
        ) from None
    if not isinstance(key, PrivateKey):
        raise CredentialError("is a key of a kind that TLS cannot use; use RSA, EC or Ed25519")
    return key


def _only_key_block(data: bytes) -> bytes:
    blocks = [block for block in _PEM_BLOCK.finditer(data) if b"PRIVATE KEY" in block["kind"]]
    if len(blocks) != 1:
        raise CredentialError(f"holds {len(blocks) or 'no'} whole PEM private keys; it needs one")
    return blocks[0][0] + b"\n"


def pair(chain: tuple[x509.Certificate, ...], key: PrivateKey) -> ServerCredential:
    """
    :raises CredentialError: if the key is not the first certificate's.
    """
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        raise CredentialError(
            "the private key is not that of the certificate"
            + (" that comes first; the leaf must come first" if len(chain) > 1 else "")
        )
    return ServerCredential(chain, key)


def is_ca(certificate: x509.Certificate) -> bool:
    """:returns: whether basicConstraints says CA:TRUE (RFC 5280, 4.2.1.9)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def key_weakness(certificate: x509.Certificate) -> str | None:
    """:returns: why OpenSSL's security level 2 (112 bits) refuses the key, or None."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < 2048:
        return f"has a key of {key.key_size} bits: OpenSSL refuses less than 2048"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < 224:
        return f"has a key on {key.curve.name}: OpenSSL refuses curves of less than 224 bits"
    return None


def signature_weakness(certificate: x509.Certificate) -> str | None:
    """:returns: why OpenSSL's security level 2 refuses the signature, or None;
    that of a self-signed certificate is not looked at."""
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if digest is None or digest.digest_size >= 28 or certificate.issuer == certificate.subject:
        return None
    return f"is signed with {digest.name}: OpenSSL refuses digests so weak"


class _TooLarge(Exception):
    pass


def remembered(
    read: Callable[[x509.Certificate], T],
) -> Callable[[x509.Certificate], T]:
    """
    :param read: reads something off a certificate, anybody's.
    :returns: the same with a memory, but for certificates of a size that could
        fill it.
    """

    @lru_cache(MAX_REMEMBERED)
    def small(certificate: x509.Certificate) -> T:
        if len(certificate.tbs_certificate_bytes) > _MAX_REMEMBERED_BYTES:
            # What raises is not remembered.
            raise _TooLarge
        return read(certificate)

    @wraps(read)
    def remember(certificate: x509.Certificate) -> T:
        try:
            return small(certificate)
        except _TooLarge:
            return read(certificate)

    return remember


@remembered
def sha256(certificate: x509.Certificate) -> bytes:
    """:returns: the SHA-256 digest of the DER, 32 bytes."""
    return certificate.fingerprint(hashes.SHA256())
