"""
Recognises common files that are neither a certificate nor a key, and says how to
convert them.
"""

from __future__ import annotations

import re

#: SEQUENCE { version 3, SEQUENCE …: a PFX (RFC 7292, 4).
_PKCS12 = re.compile(rb"\x30(?:[\x00-\x7f]|\x80|[\x81-\x84].{1,4}?)\x02\x01\x03\x30", re.DOTALL)
#: SEQUENCE { signedData: a ContentInfo (RFC 5652, 3).
_PKCS7 = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x80|[\x81-\x84].{1,4}?)\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02",
    re.DOTALL,
)
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----")

_PEM_KINDS = {
    "PKCS7": "is PKCS#7: openssl pkcs7 -print_certs -in FILE -out FILE.pem",
    "CMS": "is PKCS#7: openssl pkcs7 -print_certs -in FILE -out FILE.pem",
    "CERTIFICATE REQUEST": "is a certificate request: name the certificate that the CA made of it",
    "NEW CERTIFICATE REQUEST": (
        "is a certificate request: name the certificate that the CA made of it"
    ),
    "OPENSSH PRIVATE KEY": (
        "is a key in OpenSSH's format: ssh-keygen -p -m PKCS8 -f FILE converts a copy of it"
    ),
    "SSH2 PUBLIC KEY": "is an SSH key, and TLS needs a certificate",
    "TRUSTED CERTIFICATE": "is in OpenSSL's format of its own: openssl x509 -in FILE -out FILE.pem",
    "PGP PUBLIC KEY BLOCK": "is a PGP key, and TLS needs a certificate",
    "PGP PRIVATE KEY BLOCK": "is a PGP key, and TLS needs another",
}


def is_pkcs12(der: bytes) -> bool:
    """:returns: whether it begins as a PKCS#12 file does."""
    return _PKCS12.match(der) is not None


def what_is_it(data: bytes) -> str | None:
    """
    :param data: the bytes that did not parse.
    :returns: what the file is and the command that converts it.  The text is made to
        follow the file's name.  None if the kind is not known.
    """
    start = data.lstrip()[:512]
    labels = {found.decode("ascii") for found in _LABEL.findall(data[:65536])}
    for label, words in _PEM_KINDS.items():
        if label in labels:
            return words
    if labels:
        literal = rb"\n" in data and data.count(b"\n") < 3
        return r"has its line ends written as \n, a backslash and an n" if literal else None
    if is_pkcs12(data):
        return (
            "is PKCS#12: pkcs12_file and client_pkcs12_file take one with its key; elsewhere: "
            "openssl pkcs12 -in FILE -nokeys -out FILE.crt for its certificates, "
            "-nocerts -noenc -out FILE.key for its key"
        )
    if _PKCS7.match(data):
        return "is PKCS#7: openssl pkcs7 -inform DER -print_certs -in FILE -out FILE.pem"
    if re.match(rb"ssh-(?:rsa|dss|ed25519) |ecdsa-sha2-|sk-", start):
        return "is an SSH key, and TLS needs a certificate"
    if data.startswith((b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")):
        return (
            "is a Java keystore: keytool -importkeystore -srckeystore FILE -destkeystore FILE.p12 "
            "-deststoretype pkcs12, and openssl pkcs12 for the rest"
        )
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        return "is compressed: unpack it"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is text in UTF-16: save it as ASCII or UTF-8"
    if re.match(rb"(?i)<!doctype html|<html|<\?xml", start):
        return "is a web page: download the file itself"
    return None
