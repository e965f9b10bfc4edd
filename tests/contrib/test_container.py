"""
The image under contrib/container: what can be told of it without an engine to build it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mtlsgate.load.loading import load
from tests.kits.contrib import CONTRIB, parses, sample
from tests.kits.docs import DOCS, ROOT

CONTAINER = CONTRIB / "container"
pytestmark = pytest.mark.skipif(not CONTRIB.is_dir(), reason="installed without contrib")


def instructions() -> list[tuple[str, str]]:
    """:returns: the Containerfile's instructions, each a word and the rest."""
    text = (CONTAINER / "Containerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    lines = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in lines]


def of(word: str) -> list[str]:
    """:returns: the rest of all instructions of a kind."""
    return [rest for name, rest in instructions() if name == word]


def test_both_stages_have_one_base() -> None:
    """The interpreter that the environment was made with is the one that runs it."""
    assert of("FROM") == ["${BASE} AS build", "${BASE}"]
    assert len(of("ARG")) == 1


def test_everything_that_is_copied_exists() -> None:
    """Everything that a build copies from the checkout is in it, and is all it takes."""
    (environment,) = (one for one in of("COPY") if one.startswith("--from="))
    assert environment == "--from=build /opt/mtlsgate /opt/mtlsgate"
    copied = {
        name
        for one in of("COPY")
        if one != environment
        for name in one.split()[:-1]
    }  # fmt: skip
    for name in copied:
        assert (ROOT / name).exists(), name
    assert {
        "pyproject.toml",
        "setup.cfg",
        "setup.py",
        "README.md",
        "LICENSE",
        "mtlsgate",
        "twisted",
    } <= copied


def test_it_has_what_registries_and_acme_need() -> None:
    """Nobody can install more into it. The Debian package has the same."""
    extras = "[acme,postgresql,redis]"
    assert any(f'".{extras}"' in what for what in of("RUN"))
    assert f'"$checkout{extras}"' in (CONTAINER.parent / "debian" / "build").read_text()


def test_it_runs_as_a_number_other_than_roots() -> None:
    """The user is a number other than root's, which runAsNonRoot can read, and is the last."""
    (user,) = of("USER")
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    last = [name for name, _ in instructions() if name in ("USER", "RUN", "COPY")][-1]
    assert last == "USER"


def test_the_health_check_asks_the_gates_socket(tmp_path: Path) -> None:
    """It is a command that there is, about the socket that the sample names."""
    (check,) = of("HEALTHCHECK")
    words = json.loads(check.partition("CMD")[2])
    assert parses(words)
    assert f'listen = "unix:{words[-1]}"' in (CONTAINER / "gate.hcl").read_text()


def test_it_starts_what_is_installed() -> None:
    """The command is one of the environment's, and reads what people mount."""
    (command,) = of("CMD")
    words = json.loads(command)
    assert parses(words)
    assert words[-2:] == ["--config", "/etc/mtlsgate/gate.hcl"]


def test_the_sample_loads(tmp_path: Path) -> None:
    """gate.hcl is without a warning, and ends before an engine loses patience."""
    epoch = load(str(sample("container/gate.hcl", tmp_path)))
    assert epoch.warnings == ()
    # podman stop and docker stop kill after ten seconds.
    assert epoch.settings.drain_timeout < 10


def test_the_page_says_what_is_tried() -> None:
    """The options of container.md are those with which ``try`` builds and runs the image."""
    tried = (CONTAINER / "try").read_text()
    (text,) = re.findall(
        r"^\$ (podman run -d .*?)^\$", (DOCS / "container.md").read_text(), re.M | re.S
    )
    options = re.findall(r"--(?!name)[\w-]+(?:[= ][\w/:=]+)?", text)
    assert len(options) >= 4
    for option in options:
        assert option.strip() in tried, option
    assert "-f contrib/container/Containerfile -t mtlsgate ." in tried
