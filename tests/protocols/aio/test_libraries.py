"""
Servers of well-known libraries behind the gate, unchanged, in the real twistd, with real clients.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import asyncssh
import pytest
import websockets

from tests.kits.probe import write_demo
from tests.kits.programs import RunningGate, gate, program, run

pytestmark = pytest.mark.slow

MODULE = dedent('''
    """One server of each library; who its client is, it learns from its transport."""

    import asyncio
    from contextlib import asynccontextmanager

    import asyncssh
    import grpclib.const
    import grpclib.server
    import websockets
    from aiohttp import web
    from grpclib.encoding.base import CodecBase
    from mtlsgate import verified_peer


    class Nowhere:
        """A server that does not listen by itself: the gate does."""

        sockets = ()

        def is_serving(self):
            return True

        def close(self):
            pass

        async def wait_closed(self):
            pass


    async def factory_of(start):
        """What a library passes to ``create_server``."""
        loop, found = asyncio.get_running_loop(), []

        async def create_server(factory, *rest, **more):
            found.append(factory)
            return Nowhere()

        loop.create_server = create_server
        try:
            await start()
        finally:
            del loop.create_server
        return found[0]


    # aiohttp

    async def answer(request):
        peer = verified_peer(request.transport)
        assert request.transport.get_extra_info("peercert")["subject"]
        return web.json_response(
            {
                "name": peer.common_name,
                "size": len(await request.read()),
                "scheme": request.scheme,
                "remote": request.remote,
            }
        )


    @asynccontextmanager
    async def of_aiohttp():
        server = web.Server(answer)
        yield server
        await server.shutdown()


    # websockets

    async def echo(socket):
        async for message in socket:
            await socket.send(f"{verified_peer(socket.transport).common_name}: {message}")


    async def of_websockets():
        return await factory_of(lambda: websockets.serve(echo))


    # gRPC

    class Raw(CodecBase):
        __content_subtype__ = "raw"

        def encode(self, message, message_type):
            return message

        def decode(self, data, message_type):
            return data


    class Greeter:
        async def greet(self, stream):
            name = await stream.recv_message()
            ssl_object = stream._stream.connection._transport.get_extra_info("ssl_object")
            assert ssl_object.selected_alpn_protocol() == "h2"
            await stream.send_message(b"hello " + name)

        def __mapping__(self):
            kind = grpclib.const.Cardinality.UNARY_UNARY
            handler = grpclib.const.Handler(self.greet, kind, bytes, bytes)
            return {"/Greeter/Greet": handler}


    async def of_grpclib():
        server = grpclib.server.Server([Greeter()], codec=Raw())
        return await factory_of(server.start)


    # SSH

    class Anyone(asyncssh.SSHServer):
        def connection_made(self, connection):
            self.connection = connection

        def begin_auth(self, username):
            # The gate has asked already.
            return username != verified_peer(self.connection._transport).common_name


    async def of_asyncssh():
        async def run(process):
            process.stdout.write("you ran " + process.command)
            process.exit(0)

        options = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=Anyone,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            process_factory=run,
        )
        loop = asyncio.get_running_loop()
        return lambda: asyncssh.SSHServerConnection(loop, options)
''')

SERVERS = ("aiohttp", "websockets", "grpclib", "asyncssh")
BLOCK = """
server "of_{0}" {{
  hosts = ["127.0.0.1:0"]
  protocol "asyncio" {{
    factory = "libraries:of_{0}"
    alpn    = {1}
  }}
  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate "clients" {{
      ca_certificate_file   = "ca.crt"
      leaf_certificate_file = "admitted.crt"
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers, and certificates."""
    directory = write_demo(tmp_path_factory.mktemp("libraries"))
    (directory / "libraries.py").write_text(MODULE)
    return directory


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def running(request: pytest.FixtureRequest, site: Path) -> Iterator[RunningGate]:
    """A gate in front of a server of each library, on each event loop."""
    blocks = "".join(
        BLOCK.format(name, '["h2"]' if name == "grpclib" else "[]") for name in SERVERS
    )
    config = site / f"{request.param}.hcl"
    config.write_text(f'settings {{\n  event_loop = "{request.param}"\n}}\n{blocks}')
    with gate(config) as found:
        yield found
        assert "Traceback" not in "".join(found.lines) + found.stop()


VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


def context(site: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=site / "ca.crt")
    found.load_cert_chain(site / "client.crt", site / "client.key")
    found.minimum_version = found.maximum_version = version
    return found


def at_once(talk: Callable[[], Awaitable[Any]], number: int = 5) -> list[Any]:
    """:returns: what several clients at once were told."""

    async def run_all() -> list[Any]:
        async with asyncio.timeout(60):
            return await asyncio.gather(*(talk() for _ in range(number)))

    return asyncio.run(run_all())


@pytest.mark.parametrize("version", [("--tls-max", "1.2"), ("--tlsv1.3",)], ids=["1.2", "1.3"])
def test_aiohttp_works_behind_the_gate(
    site: Path, running: RunningGate, version: tuple[str, ...]
) -> None:
    """curl, with a body that takes many reads."""
    body = site / "body"
    body.write_bytes(bytes(1_000_000))
    status, output = run(
        program("curl"), "-sS", "--cacert", site / "ca.crt", "--cert", site / "client.crt",
        "--key", site / "client.key", *version, "--data-binary", f"@{body}",
        f"https://localhost:{running.port('of_aiohttp')}/",
    )  # fmt: skip
    assert status == 0, output
    told = json.loads(output)
    expected = {"name": "client", "scheme": "https", "remote": "127.0.0.1"}
    # aiohttp itself limits bodies to 1 MiB.
    assert told == expected | {"size": 1_000_000}


@VERSIONS
def test_websockets_works_behind_the_gate(
    site: Path, running: RunningGate, version: ssl.TLSVersion
) -> None:
    async def talk() -> str:
        url = f"wss://localhost:{running.port('of_websockets')}/"
        async with websockets.connect(url, ssl=context(site, version), proxy=None) as socket:
            await socket.send("x" * 500_000)
            return str(await socket.recv())

    assert at_once(talk) == ["client: " + "x" * 500_000] * 5


#: Its channel does not wait for the end of its connection, so it has a process of its own.
GRPC_CLIENT = """
import asyncio, ssl, sys
from grpclib.client import Channel, UnaryUnaryMethod
from libraries import Raw

port, version = int(sys.argv[1]), ssl.TLSVersion(int(sys.argv[2]))
context = ssl.create_default_context(cafile="ca.crt")
context.load_cert_chain("client.crt", "client.key")
context.minimum_version = context.maximum_version = version
context.set_alpn_protocols(["h2"])

async def talk():
    async with Channel("localhost", port, ssl=context, codec=Raw()) as channel:
        return await UnaryUnaryMethod(channel, "/Greeter/Greet", bytes, bytes)(b"gate")

async def main():
    print(await asyncio.gather(*(talk() for _ in range(5))))

asyncio.run(main())
"""


@VERSIONS
def test_grpclib_works_behind_the_gate(
    site: Path, running: RunningGate, version: ssl.TLSVersion
) -> None:
    port = str(running.port("of_grpclib"))
    command = (sys.executable, "-c", GRPC_CLIENT, port, str(int(version)))
    status, output = run(*command, cwd=site)
    assert (status, output.strip()) == (0, str([b"hello gate"] * 5))


@asynccontextmanager
async def plaintext(port: int, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """A port whose bytes go through TLS to another one, and those that come back."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Either end may reset the connection when it is done.
        with suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    over = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outer = await asyncio.open_connection("localhost", port, ssl=tls)
        try:
            await asyncio.gather(pump(reader, outer[1]), pump(outer[0], writer))
            for one in (writer, outer[1]):
                with suppress(ConnectionError):
                    await one.wait_closed()
        finally:
            over.set()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        found: int = server.sockets[0].getsockname()[1]
        yield found
        await over.wait()


@VERSIONS
def test_asyncssh_works_behind_the_gate(
    site: Path, running: RunningGate, version: ssl.TLSVersion
) -> None:
    """SSH inside TLS."""

    async def talk() -> str:
        tls = context(site, version)
        async with (
            plaintext(running.port("of_asyncssh"), tls) as port,
            asyncssh.connect(
                "127.0.0.1",
                port,
                username="client",
                known_hosts=None,
                config=None,
                client_keys=None,
                agent_path=None,
            ) as connection,
        ):
            done = await connection.run("a command", check=True)
            return str(done.stdout)

    assert at_once(talk, 2) == ["you ran a command"] * 2
