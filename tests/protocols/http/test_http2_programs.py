"""
Clients that others wrote: curl, nghttp, h2load and node's http2, before a real gate.
"""

from __future__ import annotations

import socketserver
import threading
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1, sha256
from pathlib import Path
from random import randbytes

import pytest

from tests.kits.programs import RunningGate, gate, program, run
from tests.kits.proxy import Keys

pytestmark = pytest.mark.slow

BIG = randbytes(3_000_000)


class Handler(socketserver.StreamRequestHandler):
    """A target: it answers with the body's size, or echoes a WebSocket's bytes."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            fields = dict(self._fields())
            path = line.split()[1]
            if b"upgrade" in fields:
                self._echo(fields[b"sec-websocket-key"])
                return
            body = self._body(fields)
            said = b"%s %s %d" % (path, fields.get(b"x-client-cn", b"-"), len(body))
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            digest = sha256(body).hexdigest().encode()
            chunks = b"%x\r\n%b\r\n0\r\nX-Sum: %b\r\n\r\n" % (len(said), said, digest)
            self.wfile.write(head + chunks)

    def _fields(self) -> Iterator[tuple[bytes, bytes]]:
        while line := self.rfile.readline().strip():
            name, _, value = line.partition(b":")
            yield name.lower(), value.strip()

    def _body(self, fields: dict[bytes, bytes]) -> bytes:
        if b"content-length" in fields:
            return self.rfile.read(int(fields[b"content-length"]))
        body = b""
        while b"transfer-encoding" in fields and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        if b"transfer-encoding" in fields:
            dict(self._fields())
        return body

    def _echo(self, key: bytes) -> None:
        accept = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % b64encode(accept)
        )
        while data := self.request.recv(65536):
            self.wfile.write(data)


class Target(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("http2")
    Keys.write(directory)
    (directory / "files").mkdir()
    (directory / "files" / "big").write_bytes(BIG)
    (directory / "files" / "small").write_bytes(b"small")
    return directory


SERVER = """
server "%s" {
  hosts = ["127.0.0.1:0"]
  protocol %s
  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    %s
  }
}
"""
VERIFIED = 'client_certificate "fleet" { ca_certificate_file = "ca.crt" }'
#: For h2load, which has no client certificates.
ANYONE = 'client_authentication = "none"'
#: Nobody reads the log, which would fill up.
FILES = """"web" {
    root       = "files"
    access_log = false
  }"""
APP = """"http" {
    target = "127.0.0.1:%d"
    headers {
      X-Client-CN = peer.common_name
    }
  }"""


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[RunningGate]:
    """A gate with servers ``app``, ``files``, and ``open`` for any client."""
    with Target(("127.0.0.1", 0), Handler) as target:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        config = place / "gate.hcl"
        config.write_text(
            SERVER % ("app", APP % target.server_address[1], VERIFIED)
            + SERVER % ("files", FILES, VERIFIED)
            + SERVER % ("open", FILES, ANYONE)
        )
        with gate(config) as found:
            yield found
        target.shutdown()


def curl(place: Path, running: RunningGate, server: str, path: str, *options: str | Path) -> str:
    """:returns: its output, with the version of HTTP and the status at the end."""
    status, output = run(
        program("curl"), "-sS", "--http2", "--max-time", "60", "--cacert", place / "ca.crt",
        "--cert", place / "client.crt", "--key", place / "client.key",
        "-w", "|%{http_version} %{http_code}",
        *options, f"https://localhost:{running.port(server)}{path}",
    )  # fmt: skip
    assert status == 0, output
    return output


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_is_answered(place: Path, running: RunningGate, version: str) -> None:
    output = curl(place, running, "app", "/a", "--tls-max", version)
    assert output == "/a press-7 0|2 200"


def test_curl_sends_and_gets_large_bodies(place: Path, running: RunningGate) -> None:
    sent = place / "files" / "big"
    assert curl(place, running, "app", "/up", "-T", sent) == f"/up press-7 {len(BIG)}|2 200"
    got = place / "got"
    assert curl(place, running, "files", "/big", "-o", got) == "|2 200"
    assert got.read_bytes() == BIG


def test_nghttp_gets_several_files_on_one_connection(place: Path, running: RunningGate) -> None:
    base = f"https://localhost:{running.port('files')}"
    urls = [f"{base}/small?{number}" for number in range(20)]
    keys = [f"--cert={place / 'client.crt'}", f"--key={place / 'client.key'}"]
    status, output = run(program("nghttp"), "-nv", *keys, *urls)
    assert status == 0
    assert output.count(":status: 200") == 20
    assert output.count("Connected") == 1
    assert "RST_STREAM" not in output


def test_h2load_has_every_request_answered(running: RunningGate) -> None:
    url = f"https://localhost:{running.port('open')}/small"
    _, output = run(program("h2load"), "-n", "1000", "-c", "4", "-m", "32", url)
    assert "1000 succeeded, 0 failed" in output


NODE = """
const http2 = require("node:http2"), fs = require("node:fs");
const [port] = process.argv.slice(2);
const file = name => fs.readFileSync(name);
const client = http2.connect(`https://localhost:${port}`, {
  ca: file("ca.crt"), cert: file("client.crt"), key: file("client.key"),
});
function ask(headers, body) {
  return new Promise((resolve, reject) => {
    const stream = client.request(headers);
    let text = "", status, trailers;
    stream.on("response", found => status = found[":status"]);
    stream.on("trailers", found => trailers = found);
    stream.on("data", piece => text += piece);
    stream.on("end", () => resolve([status, text, trailers && trailers["x-sum"].length]));
    stream.on("error", reject);
    stream.end(body);
  });
}
function websocket() {
  return new Promise((resolve, reject) => {
    const stream = client.request({":method": "CONNECT", ":protocol": "websocket", ":path": "/ws",
      "sec-websocket-version": "13"});
    stream.on("response", found => stream.write(`hello ${found[":status"]}`));
    stream.on("data", piece => { resolve(String(piece)); stream.end(); });
    stream.on("error", reject);
  });
}
client.on("remoteSettings", async settings => {
  const bodies = [undefined, "abc", "x".repeat(1e6)];
  const answers = await Promise.all(bodies.map(
    (body, place) => ask({":path": `/${place}`, ":method": body ? "POST" : "GET"}, body)));
  for (const answer of answers) console.log(JSON.stringify(answer));
  console.log(settings.enableConnectProtocol, await websocket());
  client.ping(() => { console.log("pong"); client.close(); });
});
"""


def test_node_speaks_http_2_and_websockets(place: Path, running: RunningGate) -> None:
    (place / "client.js").write_text(NODE)
    status, output = run(program("node"), "client.js", str(running.port("app")), cwd=place)
    assert status == 0, output
    assert output.splitlines() == [
        '[200,"/0 press-7 0",64]',
        '[200,"/1 press-7 3",64]',
        '[200,"/2 press-7 1000000",64]',
        "true hello 200",
        "pong",
    ]
