"""
gRPC from end to end: grpcio's and grpclib's clients, a real gate, and servers of grpcio.
"""

from __future__ import annotations

import asyncio
import gc
import socketserver
import ssl
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import StreamTerminatedError

from mtlsgate.testing import Authority
from tests.kits.docs import DOCS, make_files
from tests.kits.programs import BIN, RunningGate, gate, run, serving
from tests.kits.proxy import Keys

pytestmark = pytest.mark.slow

EXAMPLE = DOCS / "examples" / "grpc"

#: A server of every kind of call, on a unix socket and, with TLS, on a port.
SERVER = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import grpc

cancelled = threading.Event()

def who(data, context):
    told = dict(context.invocation_metadata())
    if "x-fail" in told:
        context.abort(grpc.StatusCode.DATA_LOSS, "it is lost")
    context.send_initial_metadata([("x-first", "1")])
    context.set_trailing_metadata([("x-last", "2")])
    left = context.time_remaining()
    return f"{told.get('x-client-cn')} {len(data)} {left is not None}".encode()

def count(data, context):
    for number in range(int(data)):
        yield b"%d" % number

def total(messages, context):
    return b"%d" % sum(map(len, messages))

def echo(messages, context):
    yield from messages

def stuck(data, context):
    context.add_callback(cancelled.set)
    yield b"begun"
    threading.Event().wait(60)

def was_cancelled(data, context):
    return str(cancelled.wait(30)).encode()

server = grpc.server(ThreadPoolExecutor(32))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", {
    "Who": grpc.unary_unary_rpc_method_handler(who),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Stuck": grpc.unary_stream_rpc_method_handler(stuck),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
})])
pair = Path("target.key").read_bytes(), Path("target.crt").read_bytes()
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
Path("port").write_text(str(port))
server.add_insecure_port("unix:target.sock")
server.start()
server.wait_for_termination()
"""

BLOCK = """
server "%s" {
  hosts = ["127.0.0.1:0"]
  protocol "http" {
    http_version = "2"
    headers {
      X-Client-CN = peer.common_name
    }
    %s
  }
  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "fleet" { ca_certificate_file = "ca.crt" }
  }
}
"""
UNIX = 'target = "unix:%s/target.sock"'
TLS = """target = "https://127.0.0.1:%s"
    tls { server_ca_certificate_file = "ca.crt" }"""
SERVERS = ("to_unix", "to_tls")
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("grpc")
    Keys.write(directory)
    return directory


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[RunningGate]:
    (place / "server.py").write_text(SERVER)
    command = [sys.executable, "-c", f"import os; os.chdir({str(place)!r}); " + SERVER]
    with ExitStack() as stack:
        stack.enter_context(serving(command, place / "target.sock"))
        unix = UNIX % place
        config = place / "gate.hcl"
        tls = TLS % (place / "port").read_text()
        old = stack.enter_context(http1_target(place))
        config.write_text(
            BLOCK % ("to_unix", unix) + BLOCK % ("to_tls", tls) + BLOCK % ("to_old", TLS % old)
        )
        yield stack.enter_context(gate(config))


@contextmanager
def http1_target(place: Path) -> Iterator[int]:
    """:returns: the port of a target that speaks TLS, and no HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "target.crt", place / "target.key")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with context.wrap_socket(self.request, server_side=True) as connection:
                connection.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(params=SERVERS)
def channel(request: Any, place: Path, running: RunningGate) -> Iterator[grpc.Channel]:
    with connect(place, running, request.param) as channel:
        yield channel


def connect(place: Path, running: RunningGate, server: str, who: str = "client") -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        (place / "ca.crt").read_bytes(),
        (place / f"{who}.key").read_bytes(),
        (place / f"{who}.crt").read_bytes(),
    )
    return grpc.secure_channel(f"localhost:{running.port(server)}", credentials)


def test_all_four_kinds_of_calls_work(channel: grpc.Channel) -> None:
    who = channel.unary_unary("/t.T/Who")
    assert who(b"", timeout=30) == b"press-7 0 True"
    assert who(bytes(3_000_000), timeout=30) == b"press-7 3000000 True"
    count = list(channel.unary_stream("/t.T/Count")(b"2000", timeout=30))
    assert (len(count), count[-1]) == (2000, b"1999")
    total = channel.stream_unary("/t.T/Total")
    assert total(iter([bytes(100_000)] * 20), timeout=30) == b"2000000"
    messages: SimpleQueue[bytes | None] = SimpleQueue()
    replies = channel.stream_stream("/t.T/Echo")(iter(messages.get, None), timeout=30)
    for number in range(20):
        messages.put(b"%d" % number)
        assert next(replies) == b"%d" % number
    messages.put(None)
    assert list(replies) == []


def test_metadata_and_status_pass(channel: grpc.Channel) -> None:
    who = channel.unary_unary("/t.T/Who")
    _, call = who.with_call(b"", timeout=30, metadata=[("x-client-cn", "forged")])
    assert ("x-first", "1") in call.initial_metadata()
    assert ("x-last", "2") in call.trailing_metadata()
    for path, metadata, code in (
        ("Who", [("x-fail", "1")], grpc.StatusCode.DATA_LOSS),
        ("Nothing", [], grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/t.T/{path}")(b"", timeout=30, metadata=metadata)
        assert caught.value.code() is code


def test_a_deadline_ends_the_call_at_the_server(channel: grpc.Channel) -> None:
    replies = channel.unary_stream("/t.T/Stuck")(b"", timeout=1)
    assert next(replies) == b"begun"
    with pytest.raises(grpc.RpcError) as caught:
        next(replies)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert channel.unary_unary("/t.T/WasCancelled")(b"", timeout=30) == b"True"


def test_a_target_that_does_not_choose_http2_is_told_of(place: Path, running: RunningGate) -> None:
    with connect(place, running, "to_old") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/t.T/Who")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "502" in caught.value.details()
    assert "is down: " in running.read_until('its TLS did not choose HTTP/2 (ALPN "h2")')


def test_nobody_else_gets_in(place: Path, running: RunningGate) -> None:
    """A certificate of another CA."""
    stranger(place)
    for server in SERVERS:
        with connect(place, running, server, "eve") as channel, pytest.raises(grpc.RpcError) as no:
            channel.unary_unary("/t.T/Who")(b"", timeout=30)
        assert no.value.code() is grpc.StatusCode.UNAVAILABLE


def stranger(place: Path) -> None:
    """Write the certificate of somebody else."""
    eve = Authority.create("Other").issue("eve")
    (place / "eve.crt").write_bytes(eve.pem)
    (place / "eve.key").write_bytes(eve.key_pem)


class Raw(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


def talk(
    place: Path, port: int, version: ssl.TLSVersion, who: str = "client"
) -> tuple[bytes, list[bytes]]:
    """:returns: what a client of grpclib is answered."""

    async def calls() -> tuple[bytes, list[bytes]]:
        context = ssl.create_default_context(cafile=place / "ca.crt")
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(place / f"{who}.crt", place / f"{who}.key")
        context.set_alpn_protocols(["h2"])
        async with Channel("localhost", port, ssl=context, codec=Raw()) as channel:
            who_am_i = UnaryUnaryMethod[bytes, bytes](channel, "/t.T/Who", bytes, bytes)
            echo = StreamStreamMethod[bytes, bytes](channel, "/t.T/Echo", bytes, bytes)
            return await who_am_i(b"abc", timeout=30), await echo([b"a", b"b"], timeout=30)

    with warnings.catch_warnings():
        # grpclib's channel does not wait for the end of its connection.  What is left of it
        # goes here, and not in another test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return asyncio.run(calls())
        finally:
            gc.collect()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_grpclib_works(
    place: Path, running: RunningGate, server: str, version: ssl.TLSVersion
) -> None:
    said = talk(place, running.port(server), version)
    assert said == (b"press-7 3 True", [b"a", b"b"])
    stranger(place)
    with pytest.raises((OSError, StreamTerminatedError)):
        talk(place, running.port(server), version, "eve")


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="installed without its docs")
def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    text = (EXAMPLE / "gate.hcl").read_text()
    make_files(tmp_path, text + "client-ca.crt alice.crt alice.key")
    Keys.write(tmp_path)
    for name, here in (("client-ca.crt", "ca.crt"), ("server-ca.crt", "ca.crt")):
        (tmp_path / name).write_bytes((tmp_path / here).read_bytes())
    for kind in ("crt", "key"):
        (tmp_path / f"alice.{kind}").write_bytes((tmp_path / f"client.{kind}").read_bytes())
    config = tmp_path / "gate.hcl"
    config.write_text(
        "# first\n"
        + text.replace("localhost:8443", "127.0.0.1:0").replace(
            "127.0.0.1:50051", f"unix:{tmp_path}/s"
        )
    )
    command = [sys.executable, str(EXAMPLE / "greeter.py"), f"unix:{tmp_path}/s"]
    with serving(command, tmp_path / "s"), gate(config) as running:
        client = (sys.executable, EXAMPLE / "client.py", f"localhost:{running.port('greeter')}")
        status, output = run(*client, cwd=tmp_path)
    assert (status, output) == (0, "Hello world, from press-7\n0 1 2\n3\na b\n")
    config.write_text(text)
    assert run(BIN / "mtlsgate", "check", "--config", config)[0] == 0
