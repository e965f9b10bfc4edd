"""
Certificates and messages that no honest tool makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from mtlsgate.certificates.development_ca import PrivateKey
from mtlsgate.testing import Authority, Credential

#: Of the group of P-256 (SP 800-186, 3.2.1.3).
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def edited(issuer: Authority, credential: Credential, old: bytes, new: bytes) -> bytes:
    """:returns: the DER of the leaf with some bytes of its content replaced by
    as many others, and signed anew by a P-256 issuer."""
    content = credential.certificate.tbs_certificate_bytes
    assert content.count(old) == 1
    assert len(old) == len(new)
    content = content.replace(old, new)
    assert isinstance(issuer.private_key, ec.EllipticCurvePrivateKey)
    signature = issuer.private_key.sign(content, ec.ECDSA(SHA256()))
    return tlv(0x30, content + ECDSA_SHA256 + tlv(0x03, b"\0" + signature))


def tlv(tag: int, body: bytes) -> bytes:
    """:returns: the DER of a value."""
    length = len(body)
    if length < 128:
        return bytes([tag, length]) + body
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def raw(
    issuer: Authority,
    key: PrivateKey,
    *,
    version: bytes = b"\xa0\x03\x02\x01\x02",
    serial: bytes = b"\x01",
    validity: tuple[bytes, bytes] = (b"\x17\x0d250101000000Z", b"\x17\x0d490101000000Z"),
    subject: bytes = bytes.fromhex("300c310a300806035504030c0178"),
    spki: bytes | None = None,
    extensions: Iterable[tuple[str, bytes]] = (),
    more: bytes = b"",
    issuer_name: bytes | None = None,
) -> bytes:
    """
    Put a leaf together by hand, sound but for what is said.

    :param issuer: one with a P-256 key.
    :param key: the leaf's.
    :param serial: the content of its INTEGER.
    :param validity: two times, each with its tag.
    :param extensions: dotted object identifier and content, ``!`` before it for a
        critical one (``~`` in BER, ``=`` for one that is not and says so); they
        replace those that a sound leaf has.
    :param more: octets after the extensions.
    :param issuer_name: another name of the issuer than its own.
    """
    known = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    written = list(extensions)
    if not any(oid.lstrip("!~=") == "2.5.29.35" for oid, _ in written):
        written.append(("2.5.29.35", identifier.public_bytes()))
    content = b"".join(
        (
            version,
            tlv(0x02, serial),
            ECDSA_SHA256,
            issuer_name or issuer.certificate.subject.public_bytes(),
            tlv(0x30, b"".join(validity)),
            subject,
            spki or key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            tlv(0xA3, tlv(0x30, b"".join(_extension(*one) for one in written))),
            more,
        )
    )
    content = tlv(0x30, content)
    assert isinstance(issuer.private_key, ec.EllipticCurvePrivateKey)
    signature = issuer.private_key.sign(content, ec.ECDSA(SHA256()))
    return tlv(0x30, content + ECDSA_SHA256 + tlv(0x03, b"\0" + signature))


def _extension(oid: str, content: bytes) -> bytes:
    # Critical, the same in BER, and not critical but saying so.
    octets = {"!": b"\xff", "~": b"\1", "=": b"\0"}.get(oid[0])
    critical = b"" if octets is None else tlv(0x01, octets)
    return tlv(0x30, object_identifier(oid.lstrip("!~=")) + critical + tlv(0x04, content))


def object_identifier(dotted: str) -> bytes:
    """:returns: its DER."""
    first, second, *rest = map(int, dotted.split("."))
    octets = bytearray()
    for number in (40 * first + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        octets += bytes(reversed(digits))
    return tlv(0x06, bytes(octets))


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


def present_also(connection: SSL.Connection, der: bytes) -> None:
    """Make a client send such a certificate after its leaf and what it sends anyway."""
    from OpenSSL._util import ffi, lib

    data = ffi.new("unsigned char[]", der)
    bio = lib.BIO_new_mem_buf(data, len(der))
    certificate = lib.d2i_X509_bio(bio, ffi.NULL)
    assert certificate != ffi.NULL, "OpenSSL does not parse it either"
    # The context owns it from here on.
    assert lib.SSL_CTX_add_extra_chain_cert(connection.get_context()._context, certificate) == 1
    lib.BIO_free(bio)


def ask_with_group_first(connection: SSL.Connection) -> None:
    """Make a client offer a key of a group that the gate does not take first, so that
    it is told to say hello again (HelloRetryRequest; RFC 8446, 4.1.4)."""
    from OpenSSL._util import lib

    assert lib.SSL_set1_curves_list(connection._ssl, b"P-521:X25519") == 1


def name_nobody(connection: SSL.Connection) -> None:
    """Make a client send no server name from now on."""
    from OpenSSL._util import ffi, lib

    lib.SSL_set_tlsext_host_name(connection._ssl, ffi.NULL)


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


def sha1_signed(authority: Authority, credential: Credential) -> Credential:
    """
    The credential, signed with SHA-1 by an RSA authority instead: cryptography
    no longer builds such a certificate, and both algorithm identifiers have
    the same length.
    """
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    assert isinstance(authority.private_key, rsa.RSAPrivateKey)
    leaf = credential.certificate
    content = leaf.tbs_certificate_bytes.replace(sha256, sha1)
    signature = authority.private_key.sign(content, padding.PKCS1v15(), SHA1())
    der = credential.der.replace(sha256, sha1).replace(leaf.signature, signature)
    forged = x509.load_der_x509_certificate(der)
    return Credential(forged, credential.private_key, credential.intermediates)


def records(data: bytes) -> Iterator[bytes]:
    while data:
        length = 5 + int.from_bytes(data[3:5], "big")
        yield data[:length]
        data = data[length:]


def certificate_message(credential: Credential) -> bytes:
    """The Certificate message of TLS 1.2 (RFC 5246, 7.4.2)."""
    der = credential.der
    entry = len(der).to_bytes(3, "big") + der
    entries = len(entry).to_bytes(3, "big") + entry
    return b"\x0b" + len(entries).to_bytes(3, "big") + entries


def resigned(credential: Credential) -> Credential:
    """:returns: the same certificate with the other spelling of its ECDSA signature,
    as its holder can write it: another fingerprint, and valid."""
    leaf = credential.certificate
    r, s = decode_dss_signature(leaf.signature)
    signature = encode_dss_signature(r, _P256_ORDER - s)
    der = tlv(0x30, leaf.tbs_certificate_bytes + ECDSA_SHA256 + tlv(0x03, b"\0" + signature))
    forged = x509.load_der_x509_certificate(der)
    return Credential(forged, credential.private_key, credential.intermediates)
