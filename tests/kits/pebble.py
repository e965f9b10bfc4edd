"""Debian's pebble: a small CA that speaks ACME, for tests, with its faults."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from mtlsgate.testing import Authority
from tests.kits.programs import free_port, program

#: How often a program is started, if another one takes its port first.
_TRIALS = 5
_CA = Authority.create("pebble's own CA")


@frozen
class Pebble:
    """
    A running CA.

    :ivar directory: the URL of its directory.
    :ivar ca_file: the CA that vouches for that.
    :ivar tls_port: where it connects to validate a name, in place of 443.
    :ivar log: what it says.
    """

    directory: str
    ca_file: Path
    tls_port: int
    log: Path


@contextmanager
def pebble(
    directory: Path,
    tls_port: int | None = None,
    *,
    faults: Mapping[str, str] | None = None,
    keys: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Pebble]:
    """
    Run pebble, which finds all names at 127.0.0.1.

    :param tls_port: where it connects to validate a name.
    :param faults: environment variables that switch faults on.
    :param keys: customers and their secrets, if it wants to know its customers.
    :param port: where it listens; by default a free one.
    """
    server = _CA.issue("localhost", ip_addresses=["127.0.0.1"], usages=["server_auth"])
    ca_file, tls_port = directory / "pebble-ca.pem", tls_port or free_port()
    ca_file.write_bytes(_CA.pem)
    (directory / "pebble.crt").write_bytes(server.pem)
    (directory / "pebble.key").write_bytes(server.key_pem)
    with _dns(directory) as dns:
        for _ in range(_TRIALS):
            listen, management = port or free_port(), free_port()
            config = {
                "listenAddress": f"127.0.0.1:{listen}",
                "managementListenAddress": f"127.0.0.1:{management}",
                "certificate": str(directory / "pebble.crt"),
                "privateKey": str(directory / "pebble.key"),
                "httpPort": 1,
                "tlsPort": tls_port,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": keys is not None,
                "externalAccountMACKeys": dict(keys or {}),
            }
            (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
            command = ["-config", str(directory / "pebble.json"), "-dnsserver", dns, "-strict"]
            environment = {"PEBBLE_VA_NOSLEEP": "1", **(faults or {})}
            log = directory / "pebble.log"
            with _running([program("pebble"), *command], environment, log, listen) as is_up:
                if is_up:
                    yield Pebble(f"https://127.0.0.1:{listen}/dir", ca_file, tls_port, log)
                    return
    raise AssertionError(f"pebble finds no free port: {log.read_text()}")


@contextmanager
def _dns(directory: Path) -> Iterator[str]:
    """:returns: a context with the address of a name server that finds all names here."""
    for _ in range(_TRIALS):
        port = free_port()
        address = f"127.0.0.1:{port}"
        command = [program("pebble-challtestsrv"), "-dns01", address, "-defaultIPv6", ""]
        for one in ("-http01", "-https01", "-tlsalpn01"):
            command += [one, ""]
        command += ["-management", f"127.0.0.1:{free_port()}"]
        with _running(command, {}, directory / "dns.log", port) as is_up:
            if is_up:
                yield address
                return
    raise AssertionError((directory / "dns.log").read_text())


@contextmanager
def _running(
    command: list[str], environment: Mapping[str, str], log: Path, port: int
) -> Iterator[bool]:
    """:returns: a context with whether it listens; it ends if its port is taken."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield _listens(process, port)
        finally:
            process.kill()


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    pause = threading.Event()
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            # If it could not bind, somebody else answered: it is over then.
            pause.wait(0.05)
            return process.poll() is None
        pause.wait(0.02)
    return False
