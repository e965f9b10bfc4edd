"""
The real twistd with two servers on one port, told apart by the name that
openssl and curl ask for.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlsgate.certificates.development_ca import Authority
from tests.kits.programs import RunningGate, gate, program, run

pytestmark = pytest.mark.slow

CONFIG = """
server "a" {{
  hosts        = ["127.0.0.1:{port}"]
  server_names = ["a.example"]
  {default}
  protocol "whoami" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "of-a" {{ ca_certificate_file = "a.crt" }}
  }}
}}

server "b" {{
  hosts        = ["127.0.0.1:{port}"]
  server_names = ["*.b.example"]
  protocol "whoami" {{}}
  tls {{
    session_resumption = true
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "of-b" {{ ca_certificate_file = "b.crt" }}
  }}
}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CAs, a client of each, and a certificate for both names."""
    directory = tmp_path_factory.mktemp("names")
    public = Authority.create("Servers")
    server = public.issue("server", dns_names=["a.example", "*.b.example"], usages=["server_auth"])
    files = {"server.crt": server.pem, "server.key": server.key_pem, "ca.crt": public.pem}
    for name in ("a", "b"):
        authority = Authority.create(name.upper())
        client = authority.issue(f"client-{name}")
        files[f"{name}.crt"] = authority.pem
        files[f"client-{name}.crt"], files[f"client-{name}.key"] = client.pem, client.key_pem
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(params=[False, True], ids=["no default", "default"])
def running(site: Path, request: pytest.FixtureRequest) -> Iterator[tuple[RunningGate, int, bool]]:
    """A gate, its port, and whether server a takes whoever names no other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = site / f"gate-{request.param}.hcl"
    default = "default_server = true" if request.param else ""
    config.write_text(CONFIG.format(port=port, default=default))
    with gate(config) as process:
        yield process, port, request.param


@pytest.mark.parametrize("version", [("--tls-max", "1.2"), ("--tlsv1.3",)], ids=["1.2", "1.3"])
def test_curl_is_judged_by_the_server_it_names(
    running: tuple[RunningGate, int, bool], site: Path, version: tuple[str, ...]
) -> None:
    """A certificate that is good at one server is refused at the other."""
    process, port, _ = running
    for name, client, rule in (
        ("a.example", "a", "of-a"),
        ("x.b.example", "b", "of-b"),
        ("X.B.EXAMPLE.", "b", "of-b"),
        ("a.example", "b", None),
        ("x.b.example", "a", None),
    ):
        status, output = run(
            program("curl"), "-sS", *version, "--cacert", site / "ca.crt",
            "--cert", site / f"client-{client}.crt", "--key", site / f"client-{client}.key",
            "--connect-to", f"::127.0.0.1:{port}",
            f"https://{name}:{port}/",
        )  # fmt: skip
        if rule is None:
            assert status != 0
            assert ": unknown_ca: " in process.read_until(": rejected ")
        else:
            assert status == 0, output
            known = json.loads(output)
            assert (known["rule"], known["resumed"]) == (rule, False)
            assert "admitted 127.0.0.1:" in process.read_until(": admitted ")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_judged_by_the_server_it_names(
    running: tuple[RunningGate, int, bool], site: Path, version: str
) -> None:
    """So by s_client, which can also leave the name out."""
    process, port, default = running
    for asked, client, inside in (
        (["-servername", "a.example"], "a", True),
        (["-servername", "a.example"], "b", False),
        (["-servername", "y.b.example"], "b", True),
        (["-servername", "b.example"], "a", default),
        (["-servername", "c.example"], "a", default),
        (["-noservername"], "a", default),
        (["-noservername"], "b", False),
    ):
        status, output = run(
            program("openssl"), "s_client", "-quiet", version, "-CAfile", site / "ca.crt",
            "-connect", f"127.0.0.1:{port}", *asked,
            "-cert", site / f"client-{client}.crt", "-key", site / f"client-{client}.key",
            data=b"GET / HTTP/1.0\r\n\r\n",
        )  # fmt: skip
        assert ("HTTP/1.0 200" in output) is inside, output
        if inside:
            process.read_until(": admitted ")
        else:
            assert status != 0
            line = process.read_until(": rejected ")
            known = asked[-1] in ("a.example", "y.b.example") or default
            assert (": unknown_ca: " if known else ": unknown_server_name: ") in line
            assert known or "unrecognized name" in output
