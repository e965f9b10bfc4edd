"""
The real thing: Redis, PostgreSQL, HAProxy and nginx behind ``protocol "proxy"``,
and their own clients before it.
"""

from __future__ import annotations

import os
import pwd
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlsgate.testing import Version
from tests.kits.keystores import keystore
from tests.kits.programs import program, run, serving
from tests.kits.proxy import Keys, TlsSocket, proxy

pytestmark = pytest.mark.slow

#: nginx and PostgreSQL live where Debian does not look for programs.
_PLACES = "/usr/sbin:/usr/local/sbin:" + ":".join(
    map(str, Path("/usr/lib/postgresql").glob("*/bin"))
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose name is short enough for a socket's path, with certificates in it."""
    with tempfile.TemporaryDirectory(prefix="gate", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _find_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{_PLACES}")


def test_redis_works_through_the_proxy(directory: Path) -> None:
    """Redis, with its own client: commands, a value of many megabytes, and a subscription
    that waits."""
    keys = Keys.write(directory)
    path = directory / "redis.sock"
    server = [
        program("redis-server"), "--port", "0", "--unixsocket", str(path),
        "--save", "", "--appendonly", "no", "--dir", str(directory),
    ]  # fmt: skip
    with (
        serving(server, path),
        proxy(directory, {"redis": f'target = "unix:{path}"'}) as gate,
    ):
        client: tuple[str | Path, ...] = (
            program("redis-cli"), "-h", "127.0.0.1", "-p", str(gate.port("redis")),
            "--tls", "--sni", "localhost", "--cacert", directory / "ca.crt",
            "--cert", directory / "client.crt", "--key", directory / "client.key",
        )  # fmt: skip
        assert run(*client, "set", "press", "seven") == (0, "OK\n")
        assert run(*client, "get", "press") == (0, "seven\n")
        big = b"x" * (20 * 2**20)
        assert run(*client, "-x", "set", "big", data=big) == (0, "OK\n")
        assert run(*client, "strlen", "big") == (0, f"{len(big)}\n")
        status, output = run(*client, "get", "big")
        assert (status, len(output)) == (0, len(big) + 1)
        with TlsSocket(gate.port("redis"), keys) as waiting:
            waiting.send(b"SUBSCRIBE news\r\n")
            assert b"subscribe" in waiting.receive()
            assert run(*client, "publish", "news", "hello") == (0, "1\n")
            assert waiting.receive().endswith(b"hello\r\n")


def test_postgresql_works_through_the_proxy(directory: Path) -> None:
    """PostgreSQL: a session from its first message to a large result."""
    keys = Keys.write(directory)
    data = directory / "data"
    as_its_user: list[str] = []
    if os.getuid() == 0:
        # PostgreSQL does not run as root.
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user postgres, and root may not run it")
        os.chown(directory, user.pw_uid, user.pw_gid)
        as_its_user = [program("runuser"), "-u", "postgres", "--"]
    status, output = run(
        *as_its_user, program("initdb"), "-D", data, "-A", "trust", "-U", "gate", "--no-sync"
    )
    assert status == 0, output
    server = [
        *as_its_user, program("postgres"), "-D", str(data), "-k", str(directory),
        "-c", "listen_addresses=", "-c", "fsync=off",
    ]  # fmt: skip
    path = directory / ".s.PGSQL.5432"
    servers = {"sql": f'target = "unix:{path}"\nalpn = ["postgresql"]'}
    with (
        serving(server, path),
        proxy(directory, servers) as gate,
        TlsSocket(gate.port("sql"), keys) as client,
    ):
        start = b"user\0gate\0database\0postgres\0\0"
        client.send(struct.pack("!ii", len(start) + 8, 196608) + start)
        _until_ready(client)
        assert _query(client, "SELECT 6 * 7 AS answer") == [b"42"]
        rows = _query(client, "SELECT repeat('x', 10000) FROM generate_series(1, 1000)")
        assert rows == [b"x" * 10000] * 1000
        client.send(b"X\0\0\0\4")
        assert client.receive() == b""


def _messages(client: TlsSocket) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and content of each message of PostgreSQL's."""
    buffer = bytearray()
    while True:
        while len(buffer) < 5 or len(buffer) < 1 + int.from_bytes(buffer[1:5], "big"):
            received = client.receive()
            assert received, "the connection was closed"
            buffer += received
        size = 1 + int.from_bytes(buffer[1:5], "big")
        yield bytes(buffer[:1]), bytes(buffer[5:size])
        del buffer[:size]


def _until_ready(client: TlsSocket) -> list[bytes]:
    """:returns: the first column of all rows that come before it is ready."""
    rows = []
    for kind, content in _messages(client):
        assert kind != b"E", content
        if kind == b"D":
            rows.append(content[6:])
        if kind == b"Z":
            break
    return rows


def _query(client: TlsSocket, text: str) -> list[bytes]:
    content = text.encode() + b"\0"
    client.send(b"Q" + struct.pack("!i", len(content) + 4) + content)
    return _until_ready(client)


HAPROXY = """
defaults
  mode    http
  timeout connect 10s
  timeout client  10s
  timeout server  10s

frontend front
  bind unix@{path} accept-proxy {options}
  http-request return status 200 content-type text/plain lf-string "{answer}"
"""


def _ask(client: TlsSocket) -> str:
    """:returns: what an HTTP server answers."""
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = client.receive_all().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body.decode()


@pytest.mark.parametrize("proxy_protocol", ["v1", "v2"])
def test_haproxy_reads_the_header(directory: Path, proxy_protocol: str, version: Version) -> None:
    """HAProxy takes the header, with and without the certificate in it, and knows the
    client's address and port, the gate's, and the name that the client asked for."""
    keys = Keys.write(directory)
    path = directory / "haproxy.sock"
    answer = "%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority]"
    (directory / "haproxy.cfg").write_text(HAPROXY.format(path=path, options="", answer=answer))
    certificate = "proxy_protocol_certificate = true" if proxy_protocol == "v2" else ""
    target = f'target = "unix:{path}"\nproxy_protocol = "{proxy_protocol}"\n'
    servers = {"plain": target, "with_certificate": target + certificate}
    with (
        serving([program("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")], path),
        proxy(directory, servers) as gate,
    ):
        for name in servers:
            with TlsSocket(gate.port(name), keys, version) as client:
                host, port = client.socket.getsockname()
                authority = "localhost" if proxy_protocol == "v2" else ""
                expected = f"{host} {port} 127.0.0.1 {gate.port(name)} {authority}"
                assert _ask(client).split() == expected.split()


def test_haproxy_by_tls(directory: Path, version: Version) -> None:
    """The header goes before TLS: HAProxy reads it, then verifies the gate's own certificate;
    the gate verifies HAProxy's."""
    keys = Keys.write(directory)
    path = directory / "haproxy.sock"
    options = f"ssl crt {directory}/target.pem ca-file {directory}/ca.crt verify required"
    answer = "%[src_port] %[ssl_c_s_dn(cn)] %[ssl_fc_sni] %[fc_pp_authority]"
    text = HAPROXY.format(path=path, options=options, answer=answer)
    (directory / "haproxy.cfg").write_text(text)
    tls = (
        'tls {\nserver_ca_certificate_file = "ca.crt"\nserver_name = "target.example"\n'
        'client_certificate_file = "client.crt"\nclient_private_key_file = "client.key"\n}'
    )
    (directory / "app.p12").write_bytes(keystore(keys.authority.issue("app")))
    in_one = (
        'tls {\nserver_ca_certificate_file = "ca.crt"\nserver_name = "target.example"\n'
        'client_pkcs12_file = "app.p12"\nclient_pkcs12_passphrase = "secret"\n}'
    )
    target = f'target = "unix:{path}"\nproxy_protocol = "v2"\n'
    servers = {
        "good": target + tls,
        "keystore": target + in_one,
        "bad": target + tls.replace("target.example", "other"),
    }
    with (
        serving([program("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")], path),
        proxy(directory, servers) as gate,
    ):
        with TlsSocket(gate.port("good"), keys, version) as client:
            port = client.socket.getsockname()[1]
            assert _ask(client) == f"{port} press-7 target.example localhost"
        with TlsSocket(gate.port("keystore"), keys, version) as client:
            assert _ask(client).split()[1] == "app"
        with TlsSocket(gate.port("bad"), keys, version) as client:
            assert client.receive() == b""
        line = gate.read_until("no target could be reached")
        assert f"unix:{path}: it is not other: the certificate is for target.example" in line
        assert "Traceback" not in gate.stop()


NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  server {{
    listen unix:{path} proxy_protocol;
    set_real_ip_from unix:;
    real_ip_header proxy_protocol;
    location / {{
      return 200 "$proxy_protocol_addr $proxy_protocol_port $remote_addr";
    }}
  }}
}}
"""


def test_nginx_reads_the_header(directory: Path, version: Version) -> None:
    """nginx takes the header as well, and takes the client's address from it."""
    keys = Keys.write(directory)
    path = directory / "nginx.sock"
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, path=path))
    server = [program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]
    target = f'target = "unix:{path}"\nproxy_protocol = "v2"\nproxy_protocol_certificate = true'
    with (
        serving(server, path),
        proxy(directory, {"web": target}) as gate,
        TlsSocket(gate.port("web"), keys, version) as client,
    ):
        port = client.socket.getsockname()[1]
        assert _ask(client) == f"127.0.0.1 {port} 127.0.0.1"


def test_an_unreachable_target_is_one_log_line(directory: Path, version: Version) -> None:
    """With no server there, the client is closed, and the log says in one line which target
    it was, why, and for which client."""
    keys = Keys.write(directory)
    path = directory / "nothing.sock"
    with proxy(directory, {"nothing": f'target = "unix:{path}"'}) as gate:
        with TlsSocket(gate.port("nothing"), keys, version) as client:
            assert client.receive() == b""
        line = gate.read_until("no target could be reached")
        assert f"unix:{path}: no such file or directory" in line
        assert keys.client.sha256 in line
        assert "Traceback" not in gate.stop()
