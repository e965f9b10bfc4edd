"""What goes wrong between the gate and a CA is told in one line."""

from __future__ import annotations

import ssl
from socket import gaierror

import pytest
import requests
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError

from mtlsgate.acme.problems import order_failed

CONNECTION = HTTPSConnection("ca.example")
UNTRUSTED = ssl.SSLCertVerificationError(
    1, "[SSL] certificate verify failed: who is that (_ssl.c:1)"
)
UNTRUSTED.verify_message = "who is that"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            NameResolutionError("ca.example", CONNECTION, gaierror(-2, "Name not known")),
            "Name not known",
        ),
        (
            NewConnectionError(CONNECTION, "[Errno 111] Connection refused"),
            "Connection refused",
        ),
        (OSError(110, "Connection timed out"), "Connection timed out"),
        (UNTRUSTED, "its certificate: who is that; ca_file names its CAs"),
    ],
)
def test_a_ca_that_cannot_be_reached(cause: Exception, words: str) -> None:
    error = requests.ConnectionError(MaxRetryError(None, "/dir", cause))  # type: ignore[arg-type]
    assert str(order_failed(error, None)) == f"the CA cannot be reached: {words}"
