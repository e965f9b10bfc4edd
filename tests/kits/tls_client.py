"""A TLS client of Python's own, for gates in other processes."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509


def echoed(
    directory: Path, port: int, version: ssl.TLSVersion, name: str = "gate.example"
) -> x509.Certificate:
    """
    Connect as alice, whose certificate is in the directory, to an ``echo``.

    :returns: the certificate that the gate shows to a client that it admits.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(directory / "alice.crt", directory / "alice.key")
    with (
        socket.create_connection(("127.0.0.1", port), 30) as sock,
        context.wrap_socket(sock, server_hostname=name) as client,
    ):
        client.sendall(b"knock")
        assert client.recv(5) == b"knock"
        der = client.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)
