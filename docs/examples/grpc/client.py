"""
A client of the greeter, which shows its certificate to the gate.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

TEXT = {"request_serializer": str.encode, "response_deserializer": bytes.decode}


def connect(address: str) -> grpc.Channel:
    """:returns: a channel to the gate."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=Path("server-ca.crt").read_bytes(),
        private_key=Path("alice.key").read_bytes(),
        certificate_chain=Path("alice.crt").read_bytes(),
    )
    return grpc.secure_channel(address, credentials)


def main(address: str) -> None:
    """Call each method once."""
    with connect(address) as channel:
        greet = channel.unary_unary("/example.Greeter/Greet", **TEXT)
        count = channel.unary_stream("/example.Greeter/Count", **TEXT)
        total = channel.stream_unary("/example.Greeter/Total", **TEXT)
        echo = channel.stream_stream("/example.Greeter/Echo", **TEXT)
        print(greet("world", timeout=10))
        print(*count("3", timeout=10))
        print(total(iter(["1", "2"]), timeout=10))
        print(*echo(iter(["a", "b"]), timeout=10))


if __name__ == "__main__":
    main(sys.argv[1])
