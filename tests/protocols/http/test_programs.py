"""
The real thing: curl before ``protocol "http"``, nginx and sockets behind it.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.programs import RunningGate, gate, program, run, serving
from tests.kits.proxy import Keys, Target, configuration, resident

pytestmark = pytest.mark.slow

MiB = 2**20


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose name is short enough for a socket's path."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    with tempfile.TemporaryDirectory(prefix="gate", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def http(directory: Path, attributes: str) -> Iterator[RunningGate]:
    """Run a gate with one server until the block ends."""
    config = directory / "gate.hcl"
    text = configuration({"app": attributes}).replace('protocol "proxy"', 'protocol "http"')
    config.write_text(text)
    with gate(config) as running_gate:
        yield running_gate


def curl(directory: Path, gate: RunningGate, path: str, *options: str | Path) -> list[str | Path]:
    """:returns: a command."""
    return [
        program("curl"), "-sS", "--max-time", "60", "--cacert", directory / "ca.crt",
        "--cert", directory / "client.crt", "--key", directory / "client.key",
        *options, f"https://localhost:{gate.port('app')}{path}",
    ]  # fmt: skip


NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  keepalive_timeout 60s;
  server {{
    listen unix:{path};
    location / {{
      return 200 "$request $host|$http_x_client_cn|$http_client_cert|$connection_requests";
    }}
    location /files/ {{ root {directory}; }}
  }}
  server {{
    listen unix:{path}.tls ssl;
    ssl_certificate {directory}/target.crt;
    ssl_certificate_key {directory}/target.key;
    ssl_client_certificate {directory}/ca.crt;
    ssl_verify_client on;
    location / {{
      return 200 "$ssl_client_s_dn $ssl_server_name $connection_requests";
    }}
  }}
}}
"""


@pytest.fixture
def nginx(directory: Path) -> Iterator[Path]:
    """nginx on a unix socket, and with TLS on another."""
    Keys.write(directory)
    path = directory / "nginx.sock"
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, path=path))
    command = [program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]
    with serving(command, path):
        yield path


def test_nginx_learns_who_it_is(directory: Path, nginx: Path) -> None:
    """Over a unix socket, on one kept connection; what curl claims of itself is gone."""
    attributes = f'target = "unix:{nginx}"\nheaders {{\n  X-Client-CN = peer.common_name\n}}\n'
    with http(directory, attributes) as app:
        command = curl(directory, app, "/a?b", "-H", "Client-Cert: :AA==:", "-H", "X_Client_CN: x")
        for number in (1, 2):
            assert run(*command) == (0, f"GET /a?b HTTP/1.1 localhost|press-7||{number}")
        line = app.read_until("GET /a 200")
        assert "[CN=press-7]" in line


def test_nginx_behind_tls(directory: Path, nginx: Path) -> None:
    """The gate verifies nginx and shows its own certificate, on connections that are kept."""
    attributes = (
        f'target = "unix:{nginx}.tls"\n'
        "tls {\n"
        '  server_ca_certificate_file = "ca.crt"\n  server_name = "target.example"\n'
        '  client_certificate_file = "client.crt"\n  client_private_key_file = "client.key"\n'
        "}\n"
    )
    with http(directory, attributes) as app:
        for number in (1, 2):
            status, output = run(*curl(directory, app, "/"))
            assert (status, output) == (0, f"CN=press-7 target.example {number}")
    with http(directory, attributes.replace("target.example", "other.example")) as app:
        status, output = run(*curl(directory, app, "/"))
        assert (status, output) == (0, "502 Bad Gateway\n")
        line = app.read_until("failed with 502")
        assert "it is not other.example" in line


def test_a_large_download_in_little_memory(directory: Path, nginx: Path) -> None:
    """The bytes that nginx has are those that curl gets, and the gate grows by little."""
    (directory / "files").mkdir()
    with (directory / "files" / "big").open("wb") as file:
        digest = hashlib.sha256()
        for number in range(96):
            block = hashlib.sha256(b"%d" % number).digest() * (MiB // 32)
            file.write(block)
            digest.update(block)
    with http(directory, f'target = "unix:{nginx}"') as app:
        assert run(*curl(directory, app, "/files/big", "-o", "/dev/null", "-I"))[0] == 0
        before = resident(app.process.pid)
        with subprocess.Popen(
            [str(one) for one in curl(directory, app, "/files/big", "--limit-rate", "60M")],
            stdout=subprocess.PIPE,
        ) as client:
            assert client.stdout is not None
            received = hashlib.sha256()
            while data := client.stdout.read(MiB):
                received.update(data)
        assert received.digest() == digest.digest()
        assert resident(app.process.pid) - before < 8 * MiB


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_large_upload_in_little_memory(directory: Path, how: str) -> None:
    """A target that reads slowly holds curl back, and gets all; curl's Expect is answered."""
    Keys.write(directory)
    (directory / "big").write_bytes(b"0123456789abcdef" * (64 * MiB // 16))
    with Target() as target, http(directory, f'target = "127.0.0.1:{target.port}"') as app:
        counted: list[tuple[bytes, int]] = []

        def serve() -> None:
            connection = target.accept()
            head, _, rest = _read_head(connection.recv)
            if b"expect" in head.lower():
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            count, tail = len(rest), rest
            pause = threading.Event()
            length = 64 * MiB if how == "length" else None
            while count < 64 * MiB if length else not tail.endswith(b"\r\n0\r\n\r\n"):
                data = connection.recv(MiB)
                assert data
                if count // (8 * MiB) != (count + len(data)) // (8 * MiB):
                    pause.wait(0.05)
                    grown.append(resident(app.process.pid) - before)
                count += len(data)
                tail = (tail + data)[-16:]
            counted.append((head, count))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

        grown: list[int] = []
        before = resident(app.process.pid)
        thread = threading.Thread(target=serve)
        thread.start()
        options: list[str | Path] = ["-T", directory / "big"]
        if how == "chunked":
            options += ["-H", "Transfer-Encoding: chunked"]
        assert run(*curl(directory, app, "/", *options)) == (0, "ok\n")
        thread.join(timeout=60)
        [(head, count)] = counted
        assert count == 64 * MiB if how == "length" else count > 64 * MiB
        assert (b"Transfer-Encoding: chunked" in head) == (how == "chunked")
        assert max(grown) < 8 * MiB


def _read_head(receive: object) -> tuple[bytes, bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(2**16)  # type: ignore[operator]
    return data.partition(b"\r\n\r\n")


def test_curl_is_told_what_went_wrong(directory: Path) -> None:
    """No server there: 502 in one line for curl, and the reason in the log."""
    Keys.write(directory)
    with http(directory, f'target = "unix:{directory}/nothing.sock"') as app:
        status, output = run(*curl(directory, app, "/", "-w", "%{http_code}"))
        assert (status, output) == (0, "502 Bad Gateway\n502")
        line = app.read_until("failed with 502")
        assert re.search(r"unix:.*nothing\.sock: no such file or directory", line)
        assert "Traceback" not in app.stop()
