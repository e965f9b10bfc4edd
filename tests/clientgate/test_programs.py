"""
The real thing: Redis behind a gate, and its own client in front of a client gate.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.keystores import keystore
from tests.kits.programs import BIN, gate, program, run, serving
from tests.kits.proxy import Keys, proxy

pytestmark = pytest.mark.slow

CLIENT = """
admin {{
  listen = "unix:admin.sock"
}}

client "redis" {{
  hosts  = ["127.0.0.1:0"]
  target = "localhost:{port}"
  {tls}
}}

client "mine" {{
  hosts      = ["unix:mine.sock"]
  allow_uids = [{uid}]
  target     = "localhost:{port}"
  {keystore}
}}

client "others" {{
  hosts      = ["unix:others.sock"]
  allow_uids = [{other}]
  target     = "localhost:{port}"
  {tls}
}}
"""
TLS = """tls {
    server_ca_certificate_file = "ca.crt"
    client_certificate_file    = "client.crt"
    client_private_key_file    = "client.key"
  }"""
KEYSTORE = """tls {
    server_ca_certificate_file = "ca.crt"
    client_pkcs12_file         = "app.p12"
    client_pkcs12_passphrase   = "secret"
  }"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose name is short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gate", dir="/tmp") as name:
        yield Path(name)


def test_redis_through_both_gates(directory: Path) -> None:
    """Client gate, server gate, Redis: commands and a large value, by TCP and by a unix socket
    of one's own, which shows a certificate from a keystore; a unix socket of somebody else's
    gives nothing; a new client certificate is shown after a reload."""
    keys = Keys.write(directory)
    (directory / "app.p12").write_bytes(keystore(keys.authority.issue("app")))
    path = directory / "redis.sock"
    server = [
        program("redis-server"), "--port", "0", "--unixsocket", str(path),
        "--save", "", "--appendonly", "no", "--dir", str(directory),
    ]  # fmt: skip
    with (
        serving(server, path),
        proxy(directory, {"redis": f'target = "unix:{path}"'}) as door,
    ):
        config = directory / "client.hcl"
        port, uid = door.port("redis"), os.getuid()
        values = {"port": port, "uid": uid, "other": uid + 1}
        config.write_text(CLIENT.format(tls=TLS, keystore=KEYSTORE, **values))
        with gate(config) as client:
            cli = (program("redis-cli"), "-h", "127.0.0.1", "-p", str(client.port("redis")))
            assert run(*cli, "set", "press", "seven") == (0, "OK\n")
            door.read_until("subject=CN=press-7")
            big = b"x" * (5 * 2**20)
            assert run(*cli, "-x", "set", "big", data=big) == (0, "OK\n")
            status, output = run(*cli, "get", "big")
            assert (status, len(output)) == (0, len(big) + 1)
            own = (program("redis-cli"), "-s", directory / "mine.sock")
            assert run(*own, "get", "press") == (0, "seven\n")
            door.read_until("subject=CN=app ")
            status, output = run(program("redis-cli"), "-s", directory / "others.sock", "ping")
            assert status != 0
            line = client.read_until("uid_not_allowed")
            assert f"uid {uid} (process " in line
            status, output = run(BIN / "mtlsgate", "ctl", "--config", config, "status")
            assert status == 0
            assert "client gate" in output
            assert f"localhost:{port}" in output
            renewed = keys.authority.issue("renewed")
            (directory / "client.crt").write_bytes(renewed.pem)
            (directory / "client.key").write_bytes(renewed.key_pem)
            client.process.send_signal(signal.SIGHUP)
            client.read_until("epoch 2 is in force")
            assert run(*cli, "get", "press") == (0, "seven\n")
            door.read_until("subject=CN=renewed")
            assert "Traceback" not in client.stop()
