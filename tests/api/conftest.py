from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.application import Certificates, Loop, certificates, loop


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that no test changes."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def here(shared: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """The certificates, in the current directory."""
    monkeypatch.chdir(shared.directory)
    return shared


@pytest.fixture
def running() -> Iterator[Loop]:
    with loop() as made:
        yield made


@pytest.fixture
def scratch(tmp_path: Path, shared: Certificates, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the test's own, with the certificates in it; the current one."""
    for path in shared.directory.iterdir():
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode)
    monkeypatch.chdir(tmp_path)
    return tmp_path
