"""
The files of a fleet: its configurations, a development CA, and certificates.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mtlsgate.testing import Authority, Credential

_HERE = Path(__file__).parent


def set_up(directory: Path, gates: Iterable[str], devices: Iterable[str]) -> None:
    """
    Write what is not there yet.

    :raises OSError: if the directory cannot be written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("gate.hcl", "haproxy.cfg"):
        if not (directory / name).exists():
            shutil.copy(_HERE / name, directory)
    clients = (word for device in devices for word in ("--client", device))
    subprocess.run(
        [Path(sys.executable).parent / "mtlsgate", "init", directory, *clients],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    authority = Authority(
        x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes()),
        load_pem_private_key((directory / "ca.key").read_bytes(), None),  # type: ignore[arg-type]
    )
    names = ["localhost", "echo.localhost"]
    for gate in gates:
        if not (directory / f"{gate}.key").exists():
            _write(directory, gate, authority.issue(gate, dns_names=names, usages=["server_auth"]))
    for name in ("haproxy", "prometheus"):
        if not (directory / f"{name}.key").exists():
            _write(directory, name, authority.issue(name))
    if not (directory / "haproxy.pem").exists():
        # HAProxy reads both from one file.
        parts = [(directory / f"haproxy.{part}").read_bytes() for part in ("crt", "key")]
        _write_private(directory / "haproxy.pem", b"".join(parts))


def _write(directory: Path, name: str, issued: Credential) -> None:
    (directory / f"{name}.crt").write_bytes(issued.pem)
    _write_private(directory / f"{name}.key", issued.key_pem)


def _write_private(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
