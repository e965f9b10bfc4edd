"""
Reads certificates and keys from PEM, DER or base64 of DER.

Errors never contain any of the bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from mtlsgate.certificates import pem
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate, views
from mtlsgate.certificates.der import MalformedDer
from mtlsgate.certificates.ocsp import Stapling
from mtlsgate.certificates.recognise import what_is_it
from mtlsgate.certificates.token import TokenKey
from mtlsgate.errors import CredentialError
from mtlsgate.text import first_line

#: The kinds of key that a TLS server can sign with.
PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

#: Far more than any real bundle needs.  It ends reading of a file that never ends.
MAX_FILE_BYTES = 256 * 1024 * 1024


@frozen
class ServerCredential:
    """
    A certificate of the gate itself, with its key.

    :ivar chain: the leaf first, then the intermediates to send.
    :ivar private_key: the leaf's key.
    :ivar stapling: the OCSP response that it shows, or None.
    :ivar source: who delivers the next one while the gate runs; None if nobody does.  One
        that is renewed by itself is not shown any more when it has expired.
    """

    chain: tuple[Certificate, ...] = field(converter=views)
    private_key: PrivateKey | TokenKey = field(repr=False)
    stapling: Stapling | None = field(default=None, eq=False)
    source: Hashable = None

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The names that it is for."""
        return self.chain[0].readable_names.dns


@frozen
class MissingCredential:
    """
    A certificate of the gate itself that it does not have at the moment.

    :ivar source: who delivers it while the gate runs.
    :ivar dns_names: the names that it will be for; empty if they are not known yet.
    :ivar why: why there is none, in a few words.
    """

    source: Hashable
    dns_names: tuple[str, ...]
    why: str


def read_file(path: Path, opener: Callable[[str, int], int] = os.open) -> bytes:
    """
    :param opener: opens a file as `os.open` does.
    :returns: the file's content.
    :raises CredentialError: if it cannot be read or is empty.  The text is made to
        follow the file's name.
    """
    try:
        # Check before opening: opening some special files has side effects.
        _refuse_others(path)
        with open(path, "rb", opener=opener) as stream:
            found = os.fstat(stream.fileno())
            # Ask for the file's own size: allocating the maximum takes longer than reading.
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
    """:raises CredentialError: if it is not a regular file."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        # This user must not look into the directory, but the opener may be able to.
        return
    if stat.S_ISDIR(mode):
        raise CredentialError("is a directory, not a file")
    if not stat.S_ISREG(mode):
        raise CredentialError("is not a regular file")


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """
    :param data: PEM (one certificate or many), DER, or base64 of DER.
    :returns: at least one certificate, in the order given.
    :raises CredentialError: if any part does not parse; it says which.
    """
    return tuple(each_certificate(data))


def each_certificate(data: bytes) -> Iterator[Certificate]:
    """
    Like `parse_certificates`, but one at a time.  This saves memory if the caller
    keeps little of each: a file may have a hundred thousand.
    """
    labels = ("CERTIFICATE", "X509 CERTIFICATE")
    try:
        for number, count, der in pem.ders(data, labels, "a CERTIFICATE"):
            yield _certificate(der, number, count)
    except CredentialError as error:
        raise CredentialError(what_is_it(data) or str(error)) from None


def _certificate(der: bytes, number: int, count: int) -> Certificate:
    certificate = Certificate(der)
    try:
        # Every verdict needs these fields, so check them now.
        if not 1 <= certificate.version <= 3:
            raise MalformedDer("its version is none that exists")
        _ = certificate.not_after, certificate.is_ca
        _ = certificate.serial_number, certificate.subject, certificate.issuer
        with suppress(UnsupportedAlgorithm):
            certificate.public_key()
    except UNPARSABLE as error:
        which = f"certificate {number} of {count}" if count > 1 else "the certificate"
        raise CredentialError(f"{which} does not parse: {first_line(error)}") from None
    return certificate


def parse_private_key(data: bytes, passphrase: str | None = None) -> PrivateKey:
    """
    :param data: PKCS#8, PKCS#1 or SEC1, as PEM, DER or base64 of DER.  In PEM,
        everything except the one key is ignored.
    :param passphrase: the passphrase of an encrypted key.
    :raises CredentialError: if it is not a key that a TLS server can sign with, or
        if the passphrase is wrong, missing or not needed.
    """
    try:
        return _private_key(data, passphrase)
    except CredentialError as error:
        raise CredentialError(what_is_it(data) or str(error)) from None


def _private_key(data: bytes, passphrase: str | None) -> PrivateKey:
    if not data.strip():
        raise CredentialError("is empty")
    # From the environment the passphrase may be any bytes.
    secret = None if passphrase is None else passphrase.encode(errors="surrogateescape")
    try:
        if pem.is_pem(data):
            key = load_pem_private_key(_only_key_block(data), secret)
        else:
            der = data if data[:1] == b"\x30" else pem.whole_base64(data)
            key = load_der_private_key(der, secret)
    except TypeError:
        raise CredentialError(
            "the key is encrypted: set private_key_passphrase"
            if secret is None
            else "the key is not encrypted: remove private_key_passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's message may quote the input, so leave it out.
        raise CredentialError(
            "is not a private key (PKCS#8, PKCS#1 or SEC1), is damaged, or the passphrase is wrong"
            if secret is not None
            else "is not a private key (PKCS#8, PKCS#1 or SEC1) or is damaged"
        ) from None
    if not isinstance(key, PrivateKey):
        raise CredentialError("is a key of a kind that TLS cannot use; use RSA, EC or Ed25519")
    return key


def _only_key_block(data: bytes) -> bytes:
    found = [block for block in pem.whole_blocks(data) if "PRIVATE KEY" in block.label]
    if len(found) != 1:
        raise CredentialError(f"holds {len(found) or 'no'} whole PEM private keys; it needs one")
    label, _, start, stop, _ = found[0]
    # Remove blanks: the library is stricter about them than OpenSSL.
    lines = b"\n".join(map(bytes.strip, data[start:stop].splitlines())).rstrip()
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())


def pair(chain: Iterable[Certificate | x509.Certificate], key: PrivateKey) -> ServerCredential:
    """
    :raises CredentialError: if the key does not belong to the first certificate.
    """
    credential = ServerCredential(chain, key)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if credential.chain[0].public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        raise CredentialError(
            "the private key is not that of the certificate"
            + (" that comes first; the leaf must come first" if len(credential.chain) > 1 else "")
        )
    return credential
