"""What the gate fetches, with the real twistd, a real server, and openssl as a client."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from OpenSSL import SSL

from mtlsgate.clock import utc_now
from mtlsgate.testing import Version
from tests.kits.ocsp import response, with_responder
from tests.kits.programs import RunningGate, gate, program, run
from tests.kits.proxy import Keys, TlsSocket
from tests.kits.revocation import crl, der

pytestmark = pytest.mark.slow

CONFIG = """
server "door" {{
  hosts = ["127.0.0.1:0"]
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "fleet" {{
      ca_certificate_file = "ca.crt"
      crl_url             = "http://127.0.0.1:{port}/fleet.crl"
    }}
  }}
}}
"""


@pytest.fixture
def documents() -> Iterator[tuple[int, list[bytes]]]:
    """A web server's port, and the document that it serves: the last in the list."""
    served: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served[-1])

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], served
        server.shutdown()
        thread.join()


def said(running: RunningGate, text: str) -> str:
    """:returns: a line that holds the text, whether or not it was read already."""
    before = next((line for line in running.lines if text in line), None)
    return before or running.read_until(text)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_revoked_client_is_ejected(
    tmp_path: Path, documents: tuple[int, list[bytes]], processes: int
) -> None:
    """From the first list to the one that revokes a connected client, and a restart without
    the server; with one process, and with several."""
    port, served = documents
    keys = Keys.write(tmp_path)
    served.append(der(crl(keys.authority, now=utc_now(), number=1)))
    config = tmp_path / "gate.hcl"
    settings = f"settings {{\n  workers = {processes}\n}}\n"
    config.write_text(settings + CONFIG.format(port=port))
    with gate(config) as running:
        for _ in range(processes):
            running.read_until("/fleet.crl: server door: rule fleet: CRL of CN=Proxy test CA added")
        with TlsSocket(running.port("door"), keys) as client:
            client.send(b"hello")
            assert client.receive() == b"hello"
            served.append(der(crl(keys.authority, [keys.client], now=utc_now(), number=2)))
            running.process.send_signal(signal.SIGHUP)
            assert "no_longer_admitted: revoked: " in running.read_until(": closed ")
            assert client.ending() != "data"
        said(running, "CRL of CN=Proxy test CA replaced")
        running.stop()
    # A worker that ends in the middle of a write leaves a file beside it, which nobody reads.
    (kept,) = (tmp_path / "state").glob("[!.]*")
    served.append(b"nothing")
    with gate(config) as running:
        revoked = pytest.raises(SSL.Error, match="certificate revoked")
        with TlsSocket(running.port("door"), keys) as client, revoked:
            client.receive()
        assert ": revoked: " in said(running, ": rejected ")
        assert "what came is neither PEM" in said(running, "no revocation list from")
    assert kept.read_bytes() == served[1]


def test_openssl_gets_the_stapled_response(
    tmp_path: Path, documents: tuple[int, list[bytes]], version: Version
) -> None:
    """From the responder that the gate's own certificate names."""
    port, served = documents
    keys = Keys.write(tmp_path)
    made = with_responder(keys.authority, f"http://127.0.0.1:{port}/")
    (tmp_path / "server.crt").write_bytes(made.pem)
    (tmp_path / "server.key").write_bytes(made.key_pem)
    served.append(response(made, keys.authority, now=utc_now()))
    text = CONFIG.format(port=port)
    text = text.replace('"server.key"', '"server.key"\n      ocsp_stapling = true')
    config = tmp_path / "gate.hcl"
    config.write_text(re.sub(r"crl_url .*", "", text))
    client: tuple[str | Path, ...] = (
        program("openssl"), "s_client", "-status", f"-tls{version.replace('.', '_')}",
        "-CAfile", tmp_path / "ca.crt", "-cert", tmp_path / "client.crt",
        "-key", tmp_path / "client.key", "-connect",
    )  # fmt: skip
    with gate(config) as running:
        while "OCSP Response Status: successful" not in (
            output := run(*client, f"127.0.0.1:{running.port('door')}")[1]
        ):
            # It has not come yet.
            assert "OCSP response: no response sent" in output
        assert "Cert Status: good" in output
