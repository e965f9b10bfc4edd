"""
Certificates and messages that no honest tool makes.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

from mtlsgate.testing import Authority, Credential

_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def edited(issuer: Authority, credential: Credential, old: bytes, new: bytes) -> bytes:
    """:returns: the DER of the leaf with some bytes of its content replaced by
    as many others, and signed anew by a P-256 issuer."""
    content = credential.certificate.tbs_certificate_bytes
    assert content.count(old) == 1
    assert len(old) == len(new)
    content = content.replace(old, new)
    assert isinstance(issuer.private_key, ec.EllipticCurvePrivateKey)
    signature = issuer.private_key.sign(content, ec.ECDSA(SHA256()))
    return _tlv(0x30, content + _ECDSA_SHA256 + _tlv(0x03, b"\0" + signature))


def _tlv(tag: int, body: bytes) -> bytes:
    length = len(body)
    if length < 128:
        return bytes([tag, length]) + body
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def present(connection: SSL.Connection, der: bytes) -> None:
    """
    Make a client present a certificate that `cryptography` would not parse,
    which is why this goes behind its back.
    """
    from OpenSSL._util import ffi, lib

    data = ffi.new("unsigned char[]", der)
    bio = lib.BIO_new_mem_buf(data, len(der))
    certificate = lib.d2i_X509_bio(bio, ffi.NULL)
    assert certificate != ffi.NULL, "OpenSSL does not parse it either"
    assert lib.SSL_use_certificate(connection._ssl, certificate) == 1
    lib.X509_free(certificate)
    lib.BIO_free(bio)


def key_usage(*usages: str) -> x509.KeyUsage:
    """:returns: the extension with these usages and no others."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{each: each in usages for each in every})


def without(
    kind: type[x509.ExtensionType], issuer: Authority, credential: Credential
) -> Credential:
    """:returns: the credential, issued again by a P-256 issuer without an extension."""
    old = credential.certificate
    builder = x509.CertificateBuilder(
        old.issuer,
        old.subject,
        old.public_key(),
        old.serial_number,
        old.not_valid_before_utc,
        old.not_valid_after_utc,
    )
    for extension in old.extensions:
        if not isinstance(extension.value, kind):
            builder = builder.add_extension(extension.value, extension.critical)
    assert isinstance(issuer.private_key, ec.EllipticCurvePrivateKey)
    new = builder.sign(issuer.private_key, SHA256())
    return Credential(new, credential.private_key, credential.intermediates)
