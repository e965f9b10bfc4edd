"""
Parses the arguments of ``mtlsgate probe``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from attrs import frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.keystore import parse_keystore
from mtlsgate.certificates.parsing import (
    PrivateKey,
    ServerCredential,
    pair,
    parse_certificates,
    parse_private_key,
    read_file,
)
from mtlsgate.certificates.recognise import is_pkcs12
from mtlsgate.certificates.server_identity import as_address
from mtlsgate.certificates.server_names import canonical
from mtlsgate.errors import CredentialError, GateError
from mtlsgate.probe.outcome import ProbeTarget
from mtlsgate.text import printable, quoted

T = TypeVar("T")

#: The option for a passphrase, and the most bytes of one.
_OPTION = "--passphrase-file"
_LONGEST = 4096

_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+(?:%\w+)?)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>[0-9]{1,5})"
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@frozen(str=False)
class ProbeError(GateError):
    """
    The probe cannot even be tried.

    :ivar problem: what is wrong and what to do, in one line.
    """

    problem: str

    def __str__(self) -> str:
        return printable(self.problem)


def parse_target(text: str, server_name: str | None = None) -> ProbeTarget:
    """
    :param text: ``gate.example:8443``, ``192.0.2.1:8443`` or ``[::1]:8443``.
    :param server_name: the name or IP address that the server must have; by
        default the host's.
    :raises ProbeError: if one of them is wrong.
    """
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ProbeError(
            f'{quoted(text)} is not an address: write "gate.example:8443" or "[::1]:8443"'
        )
    host = found["ipv6"] or found["host"]
    if found["ipv6"] is not None and (":" not in host or as_address(host) is None):
        raise ProbeError(f"{quoted(host)} is not an IPv6 address")
    return ProbeTarget(host, int(found["port"]), _checked_name(server_name or host))


def _checked_name(text: str) -> str:
    if (address := as_address(text)) is not None:
        return address
    name = canonical(text)
    if _NAME.fullmatch(name) is None or len(name) > 253:
        raise ProbeError(
            f"{quoted(text)} is not the name of a server: write it in ASCII (xn--…), without a port"
        )
    return name


def load_identity(
    certificate: Path | None, key: Path | None = None, passphrase: str | None = None
) -> ServerCredential | None:
    """
    :param certificate: the client's certificate, with its chain after it; or a PKCS#12 file
        with both and the key.
    :param key: its private key; None with a PKCS#12 file.
    :param passphrase: that of the key or the PKCS#12 file, if it is encrypted.
    :returns: the certificate to present with its key; None if neither was given.
    :raises ProbeError: if only one was given, if one is not usable, or if they do not
        belong together.
    """
    if certificate is None:
        if key is not None:
            raise ProbeError("--key needs --cert, the certificate that it is the key of")
        if passphrase is not None:
            raise ProbeError(f"{_OPTION} has no effect without --cert")
        return None
    in_one = is_pkcs12(_load(certificate, bytes))
    if key is None:
        if not in_one:
            raise ProbeError("--cert needs --key, unless it is a PKCS#12 file (.p12, .pfx)")
        return _load(certificate, partial(_keystore, passphrase=passphrase))
    if in_one:
        raise ProbeError(f"{certificate}: is PKCS#12, with its key in it: leave out --key")
    chain = _load(certificate, parse_certificates)
    private_key = _load(key, partial(_private_key, passphrase=passphrase))
    try:
        return pair(chain, private_key)
    except CredentialError as error:
        raise ProbeError(f"{key}: {error}") from None


def _keystore(data: bytes, passphrase: str | None) -> ServerCredential:
    return parse_keystore(data, passphrase, _OPTION)


def _private_key(data: bytes, passphrase: str | None) -> PrivateKey:
    try:
        return parse_private_key(data, passphrase)
    except CredentialError as error:
        raise CredentialError(str(error).replace("private_key_passphrase", _OPTION)) from None


def read_passphrase(stream: BinaryIO | None) -> str | None:
    """
    :param stream: a file whose first line is the passphrase.
    :returns: the passphrase; None without a file.
    :raises ProbeError: if it has no line, one that is too long, or cannot be read.
    """
    if stream is None:
        return None
    try:
        line = stream.readline(_LONGEST + 1).rstrip(b"\r\n")
    except OSError as error:
        raise ProbeError(f"{_OPTION}: cannot be read: {error.strerror}") from None
    if not line:
        raise ProbeError(f"{_OPTION}: its first line is empty: write the passphrase there")
    if len(line) > _LONGEST:
        raise ProbeError(f"{_OPTION}: its first line is longer than {_LONGEST} bytes")
    return line.decode(errors="surrogateescape")


def load_trust(path: Path | None) -> tuple[Certificate, ...] | None:
    """
    :param path: the file with the trusted CAs for the server's certificate.
    :raises ProbeError: if they cannot be read.
    """
    return None if path is None else _load(path, parse_certificates)


def _load(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(read_file(path))
    except CredentialError as error:
        raise ProbeError(f"{path}: {error}") from None
