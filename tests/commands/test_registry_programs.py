"""``mtlsgate registry`` as a program, on a real store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mtlsgate.certificates.development_ca import Authority
from tests.kits import postgresql as postgresql_kit
from tests.kits.programs import BIN, run
from tests.kits.redis import Server, server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture
def config(redis: Server, tmp_path: Path) -> Path:
    redis.do("FLUSHALL")
    path = tmp_path / "gate.hcl"
    path.write_text(f'registry "devices" {{ url = "{redis.url}" }}\n')
    (tmp_path / "sensor.crt").write_bytes(Authority.create("CA").issue("sensor").pem)
    return path


def mtlsgate(config: Path, *words: str | Path) -> tuple[int, str]:
    return run(BIN / "mtlsgate", "registry", *words, "--config", config, cwd=config.parent)


def test_changes_are_watched_until_ctrl_c(config: Path) -> None:
    watching = [BIN / "mtlsgate", "registry", "watch", "--json", "--config", config]
    with subprocess.Popen(
        [str(word) for word in watching],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert json.loads(process.stdout.readline())["event"] == "following"
            status, said = mtlsgate(config, "deny", "sensor.crt", "--note", "stolen")
            assert status == 0, said
            event = json.loads(process.stdout.readline())
            assert (event["event"], event["device"]["state"]) == ("changed", "denied")
            assert said.startswith(f"{event['key']}: not listed -> denied")
            process.send_signal(signal.SIGINT)
            assert (process.stdout.read(), process.stderr.read()) == ("", "")
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_a_file_goes_in_and_comes_out_the_same(config: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {
                "key": f"{n:064x}",
                "state": "denied" if n % 3 else "active",
                "not_before": None,
                "not_after": "2030-01-01T00:00:00.5Z" if n % 2 else None,
                "note": f'"{n}"\n\x1b',
                "attributes": {"tenant": str(n), "town": "ü"},
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for n in range(500)
    ]
    before = "".join(f"{line}\n" for line in lines).replace("00.5Z", "00.500000Z")
    (tmp_path / "before.jsonl").write_text(before)
    assert mtlsgate(config, "import", "before.jsonl")[0] == 0
    for name in ("after.csv", "after.jsonl"):
        assert mtlsgate(config, "export", name)[0] == 0
        status, said = mtlsgate(config, "import", name, "--replace")
        assert status == 0
        assert "500 devices: 0 added, 0 changed, 500 as before" in said
    assert (tmp_path / "after.jsonl").read_text() == before


def read_terminal(master: int) -> str:
    """:returns: all that is written to a terminal, until nobody has it open."""
    found = b""
    # Linux says EIO then, and no end.
    with suppress(OSError):
        while piece := os.read(master, 4096):
            found += piece
    return found.decode()


def test_a_long_import_shows_on_a_terminal_how_far_it_is(config: Path) -> None:
    """And nothing of it elsewhere."""
    digests = [f"{number:064x}" for number in range(3000)]
    (config.parent / "devices.csv").write_text("\n".join(["key", *digests]) + "\n")
    command = [BIN / "mtlsgate", "registry", "import", "devices.csv", "--config", config]
    master, slave = os.openpty()
    with (
        os.fdopen(master, "rb", buffering=0),
        subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
            cwd=config.parent,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        ) as process,
    ):
        os.close(slave)
        shown = read_terminal(master)
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(timeout=60) == 0
    assert re.search(r"writing .*\d+%", shown)
    assert "3,000 added" in said
    # Neither in what is printed, nor where nobody looks.
    assert "%" not in said + mtlsgate(config, "import", "devices.csv")[1]


def test_who_stops_reading_ends_an_export(config: Path, tmp_path: Path) -> None:
    (tmp_path / "many.csv").write_text("key\n" + "".join(f"{n:064x}\n" for n in range(2000)))
    assert mtlsgate(config, "import", "many.csv")[0] == 0
    words = f"{BIN}/mtlsgate registry export - --config {config} | head -n 1"
    status, said = run("sh", "-c", words)
    assert (status, said.count("\n")) == (0, 1)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[postgresql_kit.Server]:
    with postgresql_kit.server() as running:
        yield running


def test_a_registry_in_postgresql_is_made_and_kept(
    postgresql: postgresql_kit.Server, config: Path, tmp_path: Path
) -> None:
    text = f"""\
settings {{
  audit {{ file = "audit.log" }}
}}
registry "a" {{ url = "{postgresql.url()}" }}
"""
    config.write_text(text)
    status, said = mtlsgate(config, "allow", "sensor.crt")
    assert status == 2
    assert "mtlsgate registry schema --apply" in said
    status, sql = mtlsgate(config, "schema")
    assert (status, sql.count("CREATE TABLE IF NOT EXISTS")) == (0, 1)
    for _ in range(2):
        status, said = mtlsgate(config, "schema", "--apply")
        assert (status, said.count("\n")) == (0, 1), said
    status, said = mtlsgate(config, "deny", "sensor.crt", "--note", "stolen")
    assert status == 0, said
    assert mtlsgate(config, "export", "all.csv")[0] == 0
    assert mtlsgate(config, "remove", "sensor.crt")[0] == 0
    assert "1 added" in mtlsgate(config, "import", "all.csv")[1]
    assert mtlsgate(config, "check", "sensor.crt")[0] == 1
    lines = map(json.loads, (tmp_path / "audit.log").read_text().splitlines())
    actions = ["schema", "schema", "deny", "remove", "import", "import"]
    # Of a small import also each of its devices has a line.
    assert [one["action"] for one in lines] == actions
