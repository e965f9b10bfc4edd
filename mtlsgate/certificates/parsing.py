"""
From bytes to certificates and keys.

PEM, DER and base64 of DER in; certificates and keys out.  Errors never hold any
of the bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
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
from mtlsgate.certificates.der import Malformed
from mtlsgate.certificates.recognise import what_is_it
from mtlsgate.errors import CredentialError
from mtlsgate.text import first_line

#: The kinds of key that a TLS server can sign with.
PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
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

    chain: tuple[Certificate, ...] = field(converter=views)
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


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """
    :param data: PEM (one certificate or many), DER, or base64 of DER.
    :returns: at least one certificate, in the order given.
    :raises CredentialError: if any part of it does not parse; it says which.
    """
    return tuple(each_certificate(data))


def each_certificate(data: bytes) -> Iterator[Certificate]:
    """
    As `parse_certificates` does, one after the other: who keeps little of each
    can read a hundred thousand.
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
        # What every verdict needs; now is the time to find out.
        if not 1 <= certificate.version <= 3:
            raise Malformed("its version is none that exists")
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
    :param data: PKCS#8, PKCS#1 or SEC1, as PEM, DER or base64 of DER; in PEM,
        whatever stands beside the one key is ignored.
    :param passphrase: for an encrypted key.
    :raises CredentialError: if it is no key that a TLS server can sign with,
        or the passphrase is wrong, missing or not needed.
    """
    try:
        return _private_key(data, passphrase)
    except CredentialError as error:
        raise CredentialError(what_is_it(data) or str(error)) from None


def _private_key(data: bytes, passphrase: str | None) -> PrivateKey:
    if not data.strip():
        raise CredentialError("is empty")
    # From the environment it may be any bytes.
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
    found = [block for block in pem.whole_blocks(data) if "PRIVATE KEY" in block.label]
    if len(found) != 1:
        raise CredentialError(f"holds {len(found) or 'no'} whole PEM private keys; it needs one")
    label, _, start, stop, _ = found[0]
    # Written anew, since the library is stricter about blanks than OpenSSL.
    lines = b"\n".join(map(bytes.strip, data[start:stop].splitlines())).rstrip()
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())


def pair(chain: Iterable[Certificate | x509.Certificate], key: PrivateKey) -> ServerCredential:
    """
    :raises CredentialError: if the key is not the first certificate's.
    """
    credential = ServerCredential(chain, key)
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if credential.chain[0].public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        raise CredentialError(
            "the private key is not that of the certificate"
            + (" that comes first; the leaf must come first" if len(credential.chain) > 1 else "")
        )
    return credential
