"""
ASGI applications of real frameworks in the real twistd, with real clients.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from textwrap import dedent
from typing import Any

import pytest
import websockets

from tests.kits.docs import DOCS
from tests.kits.probe import write_demo
from tests.kits.programs import BIN, RunningGate, gate, program, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]

EXAMPLE = DOCS / "examples" / "asgi"

MODULES = {
    "of_starlette": """
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route
        from mtlsgate import verified_peer

        async def who(request):
            body = await request.body()
            return JSONResponse({"name": verified_peer(request).common_name, "size": len(body)})

        app = Starlette(routes=[Route("/", who, methods=["GET", "POST"])])
    """,
    "of_django": """
        import django
        from django.conf import settings
        from django.core.asgi import get_asgi_application
        from django.http import JsonResponse
        from django.urls import path
        from django.views.decorators.csrf import csrf_exempt
        from mtlsgate import verified_peer

        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, LOGGING_CONFIG=None)

        @csrf_exempt
        async def who(request):
            name = verified_peer(request.scope).common_name
            return JsonResponse({"name": name, "size": len(request.body)})

        urlpatterns = [path("", who)]
        app = get_asgi_application()
    """,
    "of_quart": """
        from quart import Quart, request
        from mtlsgate import verified_peer

        app = Quart(__name__)

        @app.route("/", methods=["GET", "POST"])
        async def who():
            body = await request.get_data()
            return {"name": verified_peer(request.scope).common_name, "size": len(body)}
    """,
    "of_fastapi": (EXAMPLE / "orders.py").read_text() if EXAMPLE.is_dir() else "",
    "of_lifespan": """
        import pathlib
        from contextlib import asynccontextmanager
        from starlette.applications import Starlette

        def started(name):
            @asynccontextmanager
            async def lifespan(app):
                if pathlib.Path(__file__).with_name("broken").exists():
                    raise RuntimeError("no database")
                print(name, "starts", flush=True)
                yield
                print(name, "ends", flush=True)
            return lifespan

        first, second = (Starlette(lifespan=started(name)) for name in ("first", "second"))
    """,
    "of_one_process": """
        import pathlib
        from starlette.applications import Starlette

        lock = pathlib.Path(__file__).with_name("lock")
        if lock.exists():
            raise RuntimeError("it runs elsewhere")
        lock.write_text("")
        first = Starlette()
    """,
}

TLS = """\
  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "clients" {
      ca_certificate_file   = "ca.crt"
      leaf_certificate_file = "admitted.crt"
    }
  }
"""


def block(module: str, name: str = "app", more: str = "") -> str:
    protocol = f'protocol "web" {{\n    asgi = "{module}:{name}"\n{more}  }}'
    return f'\nserver "{module}" {{\n  hosts = ["127.0.0.1:0"]\n  {protocol}\n{TLS}}}\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Applications, and certificates."""
    directory = write_demo(tmp_path_factory.mktemp("asgi"))
    for name, text in MODULES.items():
        (directory / f"{name}.py").write_text(dedent(text))
    return directory


@pytest.fixture(scope="module")
def frameworks(site: Path) -> Iterator[RunningGate]:
    """A gate in front of one application of each framework."""
    names = ("of_starlette", "of_django", "of_quart", "of_fastapi")
    config = site / "frameworks.hcl"
    config.write_text("# four\n" + "".join(map(block, names)))
    with gate(config) as running:
        yield running


def curl(site: Path, running: RunningGate, server: str, path: str, *options: str) -> Any:
    """:returns: what the server answers, out of JSON."""
    status, output = run(
        program("curl"), "-sS", "--fail-with-body", "--cacert", site / "ca.crt",
        "--cert", site / "client.crt", "--key", site / "client.key", *options,
        f"https://localhost:{running.port(server)}{path}",
    )  # fmt: skip
    assert status == 0, output
    return json.loads(output)


VERSIONS = [("--tls-max", "1.2"), ("--tlsv1.3",)]


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("server", ["of_starlette", "of_django", "of_quart"])
def test_frameworks_know_the_client(
    site: Path, frameworks: RunningGate, server: str, version: tuple[str, ...]
) -> None:
    (site / "body").write_bytes(bytes(300_000))
    assert curl(site, frameworks, server, "/", *version) == {"name": "client", "size": 0}
    sent = curl(site, frameworks, server, "/", "--data-binary", f"@{site / 'body'}", *version)
    assert sent == {"name": "client", "size": 300_000}


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="installed without its docs")
def test_the_example_of_the_documentation_works(site: Path, frameworks: RunningGate) -> None:
    """docs/examples/asgi: a FastAPI application whose dependency is the client."""
    me = curl(site, frameworks, "of_fastapi", "/me")
    assert (me["name"], me["rule"]) == ("client", "clients")
    for number in (1, 2):
        found = curl(site, frameworks, "of_fastapi", "/orders?what=tea", "-X", "POST")
        assert found == ["tea"] * number

    async def talk() -> str:
        context = ssl.create_default_context(cafile=site / "ca.crt")
        context.load_cert_chain(site / "client.crt", site / "client.key")
        url = f"wss://localhost:{frameworks.port('of_fastapi')}/chat"
        async with websockets.connect(url, ssl=context, proxy=None) as socket:
            await socket.send("hello")
            return str(await socket.recv())

    assert asyncio.run(talk()) == "client: hello"


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="installed without its docs")
def test_the_configuration_of_the_documentation_is_right(site: Path) -> None:
    config = site / "documented.hcl"
    config.write_text((EXAMPLE / "gate.hcl").read_text())
    (site / "orders.py").write_text(MODULES["of_fastapi"])
    status, output = run(BIN / "mtlsgate", "check", "--config", config)
    assert status == 0, output


def test_an_application_lives_as_long_as_its_block(site: Path) -> None:
    """A reload that changes nothing of it leaves it alone.  One that names another starts
    that, and ends the first; one that fails changes nothing.  The gate ends with it."""
    config, broken = site / "lifespan.hcl", site / "broken"
    config.write_text("# one\n" + block("of_lifespan", "first"))
    with gate(config) as running:
        assert any("first starts" in line for line in running.lines)
        config.write_text("# one, elsewhere\n\n" + block("of_lifespan", "first"))
        running.process.send_signal(SIGHUP)
        running.read_until("epoch 2 is in force")
        broken.write_text("")
        config.write_text("# another\n" + block("of_lifespan", "second"))
        running.process.send_signal(SIGHUP)
        line = running.read_until("failed to start")
        assert "of_lifespan: the application failed to start: RuntimeError: no database" in line
        broken.unlink()
        running.process.send_signal(SIGHUP)
        running.read_until("second starts")
        running.read_until("first ends")
        rest = running.stop()
    said = "".join(running.lines) + rest
    assert [said.count(f"first {what}") for what in ("starts", "ends")] == [1, 1]
    assert [said.count(f"second {what}") for what in ("starts", "ends")] == [1, 1]
    assert rest.index("second ends") < rest.index("Server Shut Down")


def start_in_vain(site: Path, module: str, settings: str) -> str:
    """:returns: the last line of a gate that ends with status 1."""
    config = site / f"{module}_in_vain.hcl"
    config.write_text(f"settings {{\n  {settings}\n}}\n" + block(module, "first"))
    status, output = run(BIN / "twistd", "-n", "--pidfile=", "mtlsgate", "--config", config)
    assert status == 1, output
    last = output.strip().splitlines()[-1]
    return last[last.index(config.name) :].removeprefix(f"{config.name}: ")


@pytest.mark.parametrize("settings", ["workers = 1", "workers = 2"])
def test_a_gate_whose_application_fails_does_not_start(site: Path, settings: str) -> None:
    """One process and several end alike: with its reason, and status 1."""
    broken = site / "broken"
    broken.write_text("")
    try:
        said = start_in_vain(site, "of_lifespan", settings)
    finally:
        broken.unlink()
    assert said == "of_lifespan: the application failed to start: RuntimeError: no database"


def test_workers_that_cannot_load_an_application_end_the_gate(site: Path) -> None:
    """Also if the process that tried the configuration before could."""
    said = start_in_vain(site, "of_one_process", "workers = 2")
    assert "RuntimeError: it runs elsewhere" in said
