"""
``protocol "web"`` in the real twistd: real threads, real curl.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner

from mtlsgate.commands.cli import main
from tests.kits.programs import RunningGate, gate, program, run

pytestmark = pytest.mark.slow

SIZE = 20_000_000

MODULE = f'''
import hashlib
import threading
from flask import Flask, Response, request

app = Flask(__name__)
both = threading.Barrier(2)

@app.get("/who")
def who():
    return request.environ["mtlsgate.peer"].common_name + " " + threading.current_thread().name

@app.get("/meet")
def meet():
    """Answers once two requests are here at once."""
    both.wait(60)
    return "met"

@app.get("/large")
def large():
    return Response((b"x" * 1000 for _ in range({SIZE} // 1000)), mimetype="text/plain")

@app.post("/digest")
def digest():
    found = hashlib.sha256()
    while piece := request.stream.read(1 << 16):
        found.update(piece)
    return found.hexdigest()

@app.get("/hang")
def hang():
    app.logger.error("hanging")
    threading.Event().wait()
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo whose servers are an application and a directory."""
    directory = tmp_path_factory.mktemp("web")
    done = CliRunner().invoke(main, ["init", str(directory)])
    assert done.exit_code == 0, done.output
    (directory / "served_by_test.py").write_text(dedent(MODULE))
    (directory / "public").mkdir()
    (directory / "public" / "large").write_bytes(os.urandom(SIZE))
    config = directory / "gate.hcl"
    text = config.read_text().replace("localhost:8443", "127.0.0.1:0")
    whoami = 'protocol "whoami" {}'
    assert whoami in text
    wsgi = 'protocol "web" {\nwsgi = "served_by_test:app"\nmax_body_size = "32MiB"\n}'
    files = 'protocol "web" {\nroot = "public"\n}'
    start = re.search(r"^server ", text, re.MULTILINE)
    assert start is not None
    other = text[start.start() :].replace('"demo"', '"files"')
    config.write_text(text.replace(whoami, wsgi) + "\n" + other.replace(whoami, files))
    return directory


@pytest.fixture(scope="module")
def running(site: Path) -> Iterator[RunningGate]:
    with gate(site / "gate.hcl") as running:
        yield running


def curl(site: Path, running: RunningGate, *more: str | Path, server: str = "demo") -> str:
    status, output = run(
        program("curl"), "-sS", "--cacert", site / "ca.crt", "--cert", site / "client.crt",
        "--key", site / "client.key", *more[1:],
        f"https://localhost:{running.port(server)}{more[0]}",
    )  # fmt: skip
    assert status == 0, output
    return output


def test_the_application_is_told_who_asks(site: Path, running: RunningGate) -> None:
    assert curl(site, running, "/who").startswith("client PoolThread-demo-")


def test_requests_are_answered_at_once(site: Path, running: RunningGate) -> None:
    """Two that wait for each other are, each on a connection of its own."""
    config = site / "curl.config"
    config.write_text(f'parallel\nurl = "https://localhost:{running.port("demo")}/meet"\n')
    options = ("-K", config, "--parallel-immediate", "--no-progress-meter", "--max-time", "60")
    assert curl(site, running, "/meet", *options) == "metmet"


def test_large_answers_and_uploads_are_whole(site: Path, running: RunningGate) -> None:
    """With a length, in chunks, and through 100-continue."""
    large = site / "public" / "large"
    expected = hashlib.sha256(large.read_bytes()).hexdigest()
    for options in ((), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue")):
        assert curl(site, running, "/digest", "--data-binary", f"@{large}", *options) == expected
    got = site / "got"
    curl(site, running, "/large", "-o", got)
    assert got.stat().st_size == SIZE
    curl(site, running, "/large", "-o", got, server="files")
    assert got.read_bytes() == large.read_bytes()
    curl(site, running, "/large", "-o", got, "-r", "1000-1999", server="files")
    assert got.read_bytes() == large.read_bytes()[1000:2000]


def test_too_large_an_upload_is_refused(site: Path, running: RunningGate) -> None:
    """And curl hears so, whether it waits for 100-continue or not."""
    more = site / "more"
    with more.open("wb") as file:
        file.truncate(40 << 20)
    for options in ((), ("-H", "Transfer-Encoding: chunked")):
        output = curl(
            site, running, "/digest", "-o", "/dev/null", "-w", "%{http_code}", "-T", more,
            "-X", "POST", *options,
        )  # fmt: skip
        assert output.endswith("413")


def test_curl_cannot_leave_the_directory(site: Path, running: RunningGate) -> None:
    for path in ("/../server.key", "/%2e%2e/server.key", "/..%2fserver.key"):
        options = ("--path-as-is", "-o", "/dev/null", "-w", "%{http_code}")
        assert curl(site, running, path, *options, server="files") == "404"


def test_a_gate_ends_though_its_application_hangs(site: Path) -> None:
    """What waits for ever in a thread does not keep the process."""
    with gate(site / "gate.hcl") as running:
        status, _ = run(
            program("curl"), "-sS", "--cacert", site / "ca.crt", "--cert", site / "client.crt",
            "--key", site / "client.key", "--max-time", "1",
            f"https://localhost:{running.port('demo')}/hang",
        )  # fmt: skip
        assert status == 28
        assert "Server Shut Down" in running.stop()
