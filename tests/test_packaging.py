"""
The package as people install it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mtlsgate.commands.cli import main
from tests.kits.programs import BIN, program, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
#: As in pyproject.toml; the wheel's build shows that these suffice.
BUILD = ("setuptools >= 77", "click-man")


def ok(*command: str | Path, cwd: Path) -> str:
    status, output = run(*command, cwd=cwd)
    assert status == 0, output
    return output


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this checkout, without what was built or generated in it."""
    target = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns(
        ".git", "venv", "build", "dist", "*.egg-info", "__pycache__", "_build", ".*_cache",
        ".hypothesis", "demo",
    )  # fmt: skip
    return Path(shutil.copytree(ROOT, target / "mtlsgate", ignore=ignored))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The interpreter of a fresh environment with the dependencies in it, and with what it
    takes to build."""
    venv = tmp_path_factory.mktemp("fresh") / "venv"
    ok(sys.executable, "-m", "venv", venv, cwd=venv.parent)
    python = venv / "bin" / "python"
    ok(python, "-m", "pip", "install", "-q", wheel, *BUILD, cwd=venv.parent)
    return python


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    out = tmp_path_factory.mktemp("wheel")
    ok(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, checkout, cwd=out)
    (found,) = out.glob("mtlsgate-*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(checkout: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    out = tmp_path_factory.mktemp("sdist")
    ok(python, "setup.py", "-q", "sdist", "-d", out, cwd=checkout)
    (found,) = out.glob("mtlsgate-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def share(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel installs below ``share``."""
    out = tmp_path_factory.mktemp("share")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)
    (found,) = out.glob("mtlsgate-*.data/data/share")
    return found


def test_what_the_wheel_holds(wheel: Path) -> None:
    """The packages, the plugin and the type marker; no tests, and nothing of Twisted's own."""
    names = [
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/" not in name and ".data/data/share/" not in name
    ]
    assert "mtlsgate/py.typed" in names
    assert "mtlsgate/protocols/echo.py" in names
    assert [name for name in names if not name.startswith("mtlsgate/")] == [
        "twisted/plugins/mtlsgate_plugin.py"
    ]


def every_command(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command of the command line, by its words."""
    yield "-".join(words), command
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from every_command(one, *words, name)


def test_every_command_has_a_man_page(share: Path) -> None:
    """A page tells all of the command's help: the summary uncut, and each option."""
    found = {page.stem: page.read_text() for page in (share / "man" / "man1").iterdir()}
    commands = dict(every_command(main, "mtlsgate"))
    assert set(found) == set(commands)
    for name, command in commands.items():
        plain = re.sub(r"\\f.|\\", "", found[name])
        summary = " ".join((command.help or "").split("\n\n")[0].split())
        assert summary
        assert f"\n{name} - {summary}\n" in plain
        if isinstance(command, click.Group):
            for one in command.commands:
                assert f"See {name}-{one}(1)" in plain
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[-1] in plain


def test_man_pages_render(share: Path) -> None:
    """man shows them without a complaint, and apropos finds their summaries."""
    pages = sorted((share / "man" / "man1").iterdir())
    for page in pages:
        done = subprocess.run(
            [program("man"), "--warnings", "-l", page], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        assert "SYNOPSIS" in done.stdout
    status, summaries = run(program("lexgrog"), *pages)
    assert status == 0
    assert len(summaries.splitlines()) == len(pages)


def test_bash_completes(share: Path, tmp_path: Path) -> None:
    """What the wheel installs for bash completes commands and options."""
    script = share / "bash-completion" / "completions" / "mtlsgate"
    for words, expected in (
        ("ctl re", "ready rejections reload"),
        ("probe --serv", "--server-name"),
    ):
        code = (
            f"source {script}; PATH={BIN}:$PATH; COMP_WORDS=(mtlsgate {words}); COMP_CWORD=2; "
            '_mtlsgate_completion mtlsgate; echo "${COMPREPLY[@]}"'
        )
        assert run(program("bash"), "-c", code) == (0, f"{expected}\n")


def test_other_shells_find_theirs(share: Path) -> None:
    """zsh and fish look for them there, by these names."""
    assert (share / "zsh/site-functions/_mtlsgate").read_text().startswith("#compdef mtlsgate")
    fish = (share / "fish/vendor_completions.d/mtlsgate.fish").read_text()
    assert "complete --no-files --command mtlsgate" in fish


def test_an_index_would_take_them(wheel: Path, sdist: Path) -> None:
    """Their metadata is whole, and the README renders."""
    status, said = run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    assert status == 0, said


def test_what_the_sdist_holds(sdist: Path) -> None:
    """Everything that it takes to test and document the project."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "tests/test_packaging.py",
        "docs/conf.py", "docs/examples/keyvalue/setup.cfg",
        "docs/examples/keyvalue/gate_keyvalue/py.typed", "benchmarks/gate.py", ".ci/run",
        "benchmarks/peers.py", "docs/images/peers.svg",
        "ruff.toml", "pyproject.toml", "contrib/kubernetes/gate/deployment.yaml",
        "twisted/plugins/mtlsgate_plugin.py", "mtlsgate/py.typed",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith((".pyc", ".key", ".crt"))]


def test_somebody_elses_plugin_works_beside_it(
    python: Path, wheel: Path, checkout: Path, tmp_path: Path
) -> None:
    """The example is a distribution of its own: installed beside the wheel, away from this
    checkout, it passes its tests."""
    example = Path(shutil.copytree(checkout / "docs/examples/keyvalue", tmp_path / "keyvalue"))
    pip = (python, "-m", "pip", "install", "-q", "--no-build-isolation")
    ok(*pip, "--no-deps", "--force-reinstall", wheel, cwd=tmp_path)
    ok(*pip, f"{example}[test]", cwd=tmp_path)
    shutil.rmtree(example / "gate_keyvalue")
    said = ok(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=example)
    assert " passed" in said
    ok(python, "-m", "pip", "uninstall", "-q", "-y", "gate-keyvalue", cwd=tmp_path)


@pytest.mark.parametrize("mode", ["wheel", "sdist", "editable"])
def test_every_way_of_installing_it_works(
    mode: str, python: Path, checkout: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """twistd and twist list the gate, its protocols are found, and its command runs."""
    pip = (python, "-m", "pip")
    ok(*pip, "uninstall", "-q", "-y", "mtlsgate", cwd=tmp_path)
    what: list[str | Path] = (
        ["-e", checkout] if mode == "editable" else [request.getfixturevalue(mode)]
    )
    ok(*pip, "install", "--no-build-isolation", "-q", "--no-deps", *what, cwd=tmp_path)
    scripts = python.parent
    for command in ("twistd", "twist"):
        listed = [
            line.split()[0]
            for line in ok(scripts / command, "--help", cwd=tmp_path).splitlines()
            if line.strip()
        ]
        assert "mtlsgate" in listed
    ok(scripts / "mtlsgate", "init", tmp_path / "demo", cwd=tmp_path)
    checked = ok(scripts / "mtlsgate", "check", "-c", tmp_path / "demo/gate.hcl", cwd=tmp_path)
    assert "protocol whoami" in checked


def test_uninstalling_leaves_twisted_whole(python: Path, tmp_path: Path) -> None:
    """Nothing of Twisted's goes away with the gate."""
    ok(python, "-m", "pip", "uninstall", "-q", "-y", "mtlsgate", cwd=tmp_path)
    listed = ok(python.parent / "twistd", "--help", cwd=tmp_path)
    assert "mtlsgate" not in listed
    assert "web" in listed


def test_nothing_imports_the_reactor() -> None:
    """Importing every module leaves the choice of the reactor to the program."""
    code = (
        "import importlib, pkgutil, sys, mtlsgate\n"
        "for one in pkgutil.walk_packages(mtlsgate.__path__, 'mtlsgate.'):\n"
        "    importlib.import_module(one.name)\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)
