"""
The real thing: curl, HAProxy in TCP mode, and a gate behind it.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.address import IPv4Address

from mtlsgate.commands.cli import main
from mtlsgate.proxyprotocol import alpn_tlv, encode_v2, ssl_tlv
from tests.kits.programs import RunningGate, gate, lacking, program, run

pytestmark = pytest.mark.slow

HAPROXY = """
defaults
  mode    tcp
  timeout connect 10s
  timeout client  10s
  timeout server  10s

listen front
  bind   fd@{fd}
  server gate {where} {options}
"""

ENDS = IPv4Address("TCP", "192.0.2.7", 56324), IPv4Address("TCP", "198.51.100.1", 443)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``mtlsgate init`` writes, for clients of a proxy on this machine."""
    directory = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(main, ["init", str(directory)])
    assert done.exit_code == 0, done.output
    config = directory / "gate.hcl"
    text = config.read_text().replace('"localhost:8443"', f'"127.0.0.1:0", "unix:{directory}/s"')
    trust = 'proxy_protocol = "required"\n  trusted_proxies = ["127.0.0.1"]\n'
    config.write_text(text.replace("  protocol ", f"  {trust}\n  protocol ", 1))
    return directory


@contextmanager
def haproxy(directory: Path, where: str, options: str) -> Iterator[int]:
    """Run HAProxy in front of a gate; its port is open when the block begins."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(fd=listening.fileno(), where=where, options=options))
        with subprocess.Popen(
            [program("haproxy"), "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        ) as process:
            try:
                yield listening.getsockname()[1]
            finally:
                process.kill()


def curl(demo: Path, port: int, client: str, *options: str) -> tuple[int, str]:
    """:returns: curl's exit status, and after its output its own port."""
    return run(
        program("curl"), "-sS", "--max-time", "60", "--interface", "host!127.0.0.2",
        "--cacert", demo / "ca.crt",
        "--cert", demo / f"{client}.crt", "--key", demo / f"{client}.key",
        "--resolve", f"localhost:{port}:127.0.0.1", "-w", "\n%{local_port}", *options,
        f"https://localhost:{port}/",
    )  # fmt: skip


@pytest.mark.parametrize("version", [("--tls-max", "1.2"), ("--tlsv1.3",)], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    "options", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"]
)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_the_client_is_known(demo: Path, version: tuple[str, ...], options: str, kind: str) -> None:
    """Through HAProxy curl gets in under its own address; one that does not is
    named by its own in the log."""
    with gate(demo / "gate.hcl") as running:
        where = f"127.0.0.1:{running.port('demo')}" if kind == "tcp" else f"unix@{demo}/s"
        with haproxy(demo, where, options) as port:
            status, output = curl(demo, port, "client", *version)
            assert status == 0, output
            answer, _, own_port = output.rpartition("\n")
            known = json.loads(answer)
            assert known["address"] == f"127.0.0.2:{own_port}"
            assert f" admitted 127.0.0.2:{own_port} " in running.read_until(": admitted ")
            status, output = curl(demo, port, "stranger", *version)
            assert status != 0
            own_port = output.rpartition("\n")[2]
            line = running.read_until(": rejected ")
            assert f" rejected 127.0.0.2:{own_port}: unknown_ca: " in line


def test_a_health_check(demo: Path) -> None:
    """HAProxy's own connections are its own, and gone."""
    with gate(demo / "gate.hcl") as running:
        where = f"127.0.0.1:{running.port('demo')}"
        with haproxy(demo, where, "send-proxy-v2 check inter 100ms"):
            assert " rejected 127.0.0.1:" in running.read_until(": peer_gone: ")


def s_client(demo: Path, running: RunningGate, *options: str) -> tuple[int, str]:
    return run(
        program("openssl"), "s_client", "-quiet", "-CAfile", demo / "ca.crt",
        "-cert", demo / "client.crt", "-key", demo / "client.key",
        "-connect", f"127.0.0.1:{running.port('demo')}", *options,
        data=b"GET / HTTP/1.0\r\n\r\n",
    )  # fmt: skip


def test_without_a_proxy(demo: Path) -> None:
    """Who comes without a header, and who comes from elsewhere, stays outside."""
    with gate(demo / "gate.hcl") as running:
        status, output = s_client(demo, running)
        assert status != 0
        assert "HTTP/1" not in output
        line = running.read_until(": rejected ")
        assert ": proxy_protocol_error: TLS began without a PROXY header" in line
        status, output = s_client(demo, running, "-bind", "127.0.0.3:0")
        assert status != 0
        line = running.read_until(": rejected ")
        assert " rejected 127.0.0.3:" in line
        assert ": untrusted_proxy: it is not one of the trusted_proxies" in line
        status, output = run(
            program("curl"), "-sS", "--haproxy-protocol", "--interface", "host!127.0.0.3",
            "--cacert", demo / "ca.crt", "--cert", demo / "client.crt",
            "--key", demo / "client.key",
            "--resolve", f"localhost:{running.port('demo')}:127.0.0.1",
            f"https://localhost:{running.port('demo')}/",
        )  # fmt: skip
        assert status != 0
        assert ": untrusted_proxy: " in running.read_until(": rejected ")


def test_curl_is_a_proxy_of_its_own(demo: Path) -> None:
    """curl can send a header, too."""
    with gate(demo / "gate.hcl") as running:
        status, output = run(
            program("curl"), "-sS", "--haproxy-protocol", "-w", "\n%{local_port}",
            "--cacert", demo / "ca.crt", "--cert", demo / "client.crt",
            "--key", demo / "client.key",
            "--resolve", f"localhost:{running.port('demo')}:127.0.0.1",
            f"https://localhost:{running.port('demo')}/",
        )  # fmt: skip
        assert status == 0, output
        answer, _, own_port = output.rpartition("\n")
        assert json.loads(answer)["address"] == f"127.0.0.1:{own_port}"


def test_haproxy_reads_what_is_written(tmp_path: Path) -> None:
    """HAProxy takes the gate's own headers for what they are."""
    tlvs = [
        alpn_tlv(b"h2"),
        ssl_tlv(version="TLSv1.3", cipher="c", common_name="a", presented=True, verified=True),
    ]
    header = encode_v2(
        *ENDS,
        tlvs,
        checksum=True,
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n"
            "  timeout connect 10s\n"
            f"frontend front\n  bind fd@{listening.fileno()} accept-proxy\n"
            '  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port]'
            ' %[dst] %[dst_port]"\n'
        )
        with subprocess.Popen(
            [program("haproxy"), "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        ) as process:
            try:
                with socket.create_connection(listening.getsockname(), timeout=60) as client:
                    client.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
                    answer = b"".join(iter(lambda: client.recv(4096), b""))
            finally:
                process.kill()
    assert answer.endswith(b"\r\n\r\n192.0.2.7 56324 198.51.100.1 443")


FACTS = """
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol


class Facts(Protocol):
    def connectionMade(self):
        transport = self.transport
        facts = [
            ITCPTransport.providedBy(transport),
            bool(transport.getTcpNoDelay()),
            transport.getPeer().host,
            transport.getHost().port,
        ]
        transport.write(f"{facts}\\n".encode())

    def dataReceived(self, data):
        self.transport.write(data)
        if data.endswith(b"!"):
            self.transport.loseConnection()


factory = Factory.forProtocol(Facts)
"""


@pytest.mark.parametrize("header", [True, False], ids=["proxied", "direct"])
def test_the_transport_on_a_real_socket(demo: Path, header: bool) -> None:
    """Behind a header the transport is what it is without one, and the last byte that
    the application writes arrives."""
    (demo / "facts.py").write_text(FACTS)
    text = (demo / "gate.hcl").read_text()
    text = text.replace('protocol "whoami" {}', 'protocol "custom" { factory = "facts:factory" }')
    if not header:
        text = re.sub(r"  (proxy_protocol|trusted_proxies) .*", "", text)
    config = demo / f"facts-{header}.hcl"
    config.write_text(text)
    context = ssl.create_default_context(cafile=str(demo / "ca.crt"))
    context.load_cert_chain(demo / "client.crt", demo / "client.key")
    data = random.Random(1).randbytes(4 * 2**20).replace(b"!", b"?") + b"!"
    with gate(config) as running:
        plain = socket.create_connection(("127.0.0.1", running.port("demo")), timeout=60)
        if header:
            plain.sendall(encode_v2(*ENDS))
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            received = client.makefile("rb")
            expected = ["192.0.2.7", 443] if header else ["127.0.0.1", running.port("demo")]
            assert received.readline().decode() == f"{[True, True, *expected]}\n"
            sender = threading.Thread(target=client.sendall, args=[data])
            sender.start()
            echoed = received.read()
            sender.join()
            received.close()
        assert echoed == data


PAGE = Path(__file__).parent.parent.parent / "docs" / "proxy-protocol.md"


def on_the_page(beginning: str) -> str:
    """:returns: the page's sample that begins like that."""
    if not PAGE.exists():
        pytest.skip("installed without its docs")
    [text] = re.findall(
        rf"```text\n({beginning}.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert isinstance(text, str)
    return text


def test_haproxy_takes_the_pages_sample(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    timeouts = "defaults\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
    config.write_text(timeouts + on_the_page("frontend"))
    status, output = run(program("haproxy"), "-c", "-f", config)
    assert status == 0, output
    assert "WARNING" not in output


def test_nginx_takes_the_pages_sample(tmp_path: Path) -> None:
    # Debian has it as a module.
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists() and "--with-stream " not in run(program("nginx"), "-V")[1]:
        lacking("nginx has no stream module")
    config = tmp_path / "nginx.conf"
    config.write_text(
        (f"load_module {module};\n" if module.exists() else "")
        + f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
        + on_the_page("stream").replace("listen 8443", f"listen unix:{tmp_path}/s")
    )
    status, output = run(program("nginx"), "-t", "-p", tmp_path, "-c", config)
    assert status == 0, output


SERVER = """
server "{label}" {{
  hosts          = ["unix:shared:mode=600"]
  server_names   = ["{label}.example"]
  proxy_protocol = "required"
  protocol "whoami" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "of-{label}" {{ ca_certificate_file = "ca.crt" }}
  }}
}}
"""


def test_servers_on_one_address(demo: Path) -> None:
    """The header comes first, then the name, then TLS; on a unix socket anybody is a proxy."""
    config = demo / "shared.hcl"
    config.write_text(SERVER.format(label="a") + SERVER.format(label="b"))
    context = ssl.create_default_context(cafile=str(demo / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(demo / "client.crt", demo / "client.key")

    def connect(header: bytes, name: str) -> ssl.SSLSocket:
        plain = socket.socket(socket.AF_UNIX)
        try:
            plain.settimeout(60)
            plain.connect(str(demo / "shared"))
            plain.sendall(header)
            return context.wrap_socket(plain, server_hostname=name)
        except OSError:
            plain.close()
            raise

    with gate(config) as running:
        for label in ("a", "b"):
            with connect(encode_v2(*ENDS), f"{label}.example") as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            known = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert (known["rule"], known["address"]) == (f"of-{label}", "192.0.2.7:56324")
        with pytest.raises(OSError):  # noqa: PT011
            connect(encode_v2(*ENDS), "c.example")
        line = running.read_until(": rejected ")
        assert "unix:shared: rejected 192.0.2.7:56324: unknown_server_name: " in line
        with pytest.raises(OSError):  # noqa: PT011
            connect(b"", "a.example")
        line = running.read_until(": rejected ")
        assert "unix:shared: rejected unix:: proxy_protocol_error: " in line
