"""
The Debian package of contrib/debian: built, installed below a directory, used, and removed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlsgate.load.loading import load
from tests.kits.contrib import CONTRIB, sample
from tests.kits.programs import lacking, program, run

DEBIAN = CONTRIB / "debian"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CONTRIB.is_dir(), reason="installed without contrib"),
]
PYTHON = "/usr/bin/python3"


def dpkg(root: Path, *words: str | Path) -> str:
    """Ask a dpkg that knows that directory only."""
    # What the package depends on is on the machine, and not in the directory.
    options = ("--force-script-chrootless", "--force-depends", f"--log={root}/dpkg.log")
    status, said = run(program("dpkg"), f"--root={root}", *options, *words)
    assert status == 0, said
    return said


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package."""
    program("dpkg-deb")
    if os.getuid() != 0:
        lacking("only root installs packages")
    if run(PYTHON, "-c", "import venv, ensurepip")[0] != 0:
        lacking(f"{PYTHON} has no venv")
    out = tmp_path_factory.mktemp("deb")
    done = subprocess.run(
        [DEBIAN / "build", out],
        # What is compressed is not looked at here.
        env={**os.environ, "DPKG_DEB_COMPRESSOR_TYPE": "none"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which it is installed."""
    made = tmp_path_factory.mktemp("root")
    for name in ("info", "updates"):
        (made / "var/lib/dpkg" / name).mkdir(parents=True)
    (made / "var/lib/dpkg/status").touch()
    dpkg(made, "--install", package)
    yield made
    dpkg(made, "--remove", "mtlsgate")
    left = [path for path in (made / "usr").rglob("*") if path.is_file()]
    assert left == []


def test_it_says_what_it_is(package: Path) -> None:
    """The version is the project's, and it depends on the Python that it was made with."""
    _, said = run("dpkg-deb", "--field", package, "Package", "Version", "Depends")
    fields = dict(line.split(": ", 1) for line in said.splitlines())
    assert fields["Package"] == "mtlsgate"
    assert fields["Version"] in package.name
    _, minor = run(PYTHON, "-c", "import sys; print(sys.version_info.minor)")
    # Of the unit's ExecReload.
    assert "procps" in fields["Depends"]
    assert f"python3 (>= 3.{int(minor)}), python3 (<< 3.{int(minor) + 1})" in fields["Depends"]


def test_nothing_names_the_place_where_it_was_made(root: Path) -> None:
    """Programs start from where they are installed; files are whole, and root's."""
    assert dpkg(root, "--verify", "mtlsgate") == ""
    for path in (root / "usr/lib/mtlsgate/bin").iterdir():
        if not path.is_symlink():
            assert path.read_bytes().startswith(b"#!/usr/lib/mtlsgate/bin/python"), path
        assert path.lstat().st_uid == 0
    assert os.readlink(root / "usr/bin/mtlsgate") == "/usr/lib/mtlsgate/bin/mtlsgate"
    assert not (root / "usr/bin/twistd").exists()


def test_files_are_where_a_system_looks(root: Path) -> None:
    """Man pages, completion, an example, and the units of systemd."""
    for name in (
        "usr/share/man/man1/mtlsgate.1.gz",
        "usr/share/man/man1/mtlsgate-ctl-status.1.gz",
        "usr/share/bash-completion/completions/mtlsgate",
        "usr/share/zsh/vendor-completions/_mtlsgate",
        "usr/share/fish/vendor_completions.d/mtlsgate.fish",
        "usr/share/doc/mtlsgate/copyright",
        "usr/share/doc/mtlsgate/changelog.gz",
        "usr/share/doc/mtlsgate/examples/gate.hcl",
    ):
        assert (root / name).is_file(), name
    units = {path.name for path in (CONTRIB / "systemd").glob("mtlsgate*.*")}
    installed = root / "usr/lib/systemd/system"
    for name in units:
        text = (installed / name).read_text()
        assert "/opt/" not in text
        for line in text.splitlines():
            if line.startswith("ExecStart"):
                started = line.partition("=")[2].split()[0]
                assert os.path.lexists(root / started.lstrip("-+:@!/")), line


def test_it_runs(root: Path, tmp_path: Path) -> None:
    """The command and the gate are there: a configuration is made, and is in order."""
    library = root / "usr/lib/mtlsgate/bin"
    command = (library / "python", "-B", library / "mtlsgate")
    status, said = run(*command, "init", tmp_path / "demo")
    assert status == 0, said
    status, said = run(*command, "check", "--config", tmp_path / "demo/gate.hcl")
    assert (status, "protocol whoami" in said) == (0, True), said
    status, said = run(library / "python", "-B", library / "twistd", "--help")
    assert (status, "mtlsgate" in said) == (0, True), said


def test_it_has_what_registries_and_acme_need(root: Path) -> None:
    """Nobody can install more into its environment."""
    library = root / "usr/lib/mtlsgate/bin"
    status, said = run(library / "python", "-B", "-c", "import acme, josepy, psycopg, redis")
    assert status == 0, said


def test_the_example_loads(tmp_path: Path) -> None:
    """gate.hcl needs the three files that it names, and is without a warning."""
    assert load(str(sample("debian/gate.hcl", tmp_path))).warnings == ()
