"""
A SPIFFE agent to try things with.  It is no replacement for SPIRE: it asks nobody who they are.

    python agent.py [--every SECONDS]

It speaks the Workload API at ./agent.sock for the trust domain plants.example, and gives each
caller a new X.509-SVID every so often.  For a client it writes press.crt, press.key and
bundle.crt.  Commands on its standard input: "rotate" begins a new CA beside the old one,
"forget" takes the old one out of the bundle, "deny" and "allow" say whether callers are entitled
to an identity.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mtlsgate.testing import Authority, Credential

TRUST_DOMAIN = "spiffe://plants.example"


def field(number: int, value: bytes) -> bytes:
    """:returns: a field of a protobuf message."""
    size, length = bytearray(), len(value)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((number << 3 | 2, *size, length)) + value


class Agent:
    """What the agent knows."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 0
        self.is_denied = False
        self.authorities = [Authority.create("plants.example")]

    def issue(self, path: str) -> Credential:
        """:returns: an X.509-SVID that is valid for an hour."""
        return self.authorities[-1].issue(
            None,
            uris=[f"{TRUST_DOMAIN}{path}"],
            usages=["server_auth", "client_auth"],
            not_after=datetime.now(UTC) + timedelta(hours=1),
        )

    @property
    def bundle(self) -> bytes:
        """The CAs of the trust domain."""
        return b"".join(one.certificate.public_bytes(Encoding.DER) for one in self.authorities)

    def svids(self) -> bytes:
        """:returns: an X509SVIDResponse."""
        made = self.issue("/gate")
        der = Encoding.DER
        chain = b"".join(one.public_bytes(der) for one in made.chain)
        key = made.private_key.private_bytes(der, PrivateFormat.PKCS8, NoEncryption())
        parts = (f"{TRUST_DOMAIN}/gate".encode(), chain, key, self.bundle)
        return field(1, b"".join(field(number, one) for number, one in enumerate(parts, 1)))

    def bundles(self) -> bytes:
        """:returns: an X509BundlesResponse."""
        return field(2, field(1, TRUST_DOMAIN.encode()) + field(2, self.bundle))

    def change(self, command: str = "") -> None:
        """Do what a command says, write the client's files, and tell all callers."""
        with self.changed:
            if command == "rotate":
                self.authorities.append(Authority.create("plants.example"))
            elif command == "forget":
                del self.authorities[:-1]
            self.is_denied = command == "deny" or (self.is_denied and command != "allow")
            client = self.issue("/press/7")
            Path("press.crt").write_bytes(client.pem)
            Path("press.key").write_bytes(client.key_pem)
            Path("bundle.crt").write_bytes(b"".join(one.pem for one in self.authorities))
            self.version += 1
            self.changed.notify_all()

    def stream(self, make: Callable[[], bytes], context: Any) -> Iterator[bytes]:
        """Yield a message now, and after each change."""
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        context.add_callback(self.wake)
        seen = -1
        while context.is_active():
            with self.changed:
                while self.version == seen and context.is_active():
                    self.changed.wait()
                seen = self.version
                if self.is_denied:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
                message = make()
            yield message

    def wake(self) -> None:
        """Let streams find out whether their callers are gone."""
        with self.changed:
            self.changed.notify_all()


def main() -> None:
    """Run until the end."""
    options = argparse.ArgumentParser()
    options.add_argument("--every", type=float, default=600.0, help="seconds between SVIDs")
    every = options.parse_args().every
    agent = Agent()
    agent.change()
    streams = {"FetchX509SVID": agent.svids, "FetchX509Bundles": agent.bundles}
    handlers = {
        name: grpc.unary_stream_rpc_method_handler(
            lambda _, context, make=make: agent.stream(make, context)
        )
        for name, make in streams.items()
    }
    server = grpc.server(ThreadPoolExecutor(64))
    service = grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", handlers)
    server.add_generic_rpc_handlers([service])
    server.add_insecure_port(f"unix:{Path('agent.sock').absolute()}")
    server.start()
    print("ready", flush=True)
    commands = threading.Thread(
        target=lambda: [agent.change(line.strip()) for line in sys.stdin], daemon=True
    )
    commands.start()
    pause = threading.Event()
    while not pause.wait(every):
        agent.change()


if __name__ == "__main__":
    main()
