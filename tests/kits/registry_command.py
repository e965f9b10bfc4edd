"""``mtlsgate registry``, in this process and on a registry in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import field, frozen
from click.testing import CliRunner, Result

from mtlsgate.commands.cli import main
from mtlsgate.registry.store import StoreOptions
from tests.kits.memory_stores import ScriptedStore

#: Its store is never connected to.
CONFIG = """\
settings {
  audit { file = "audit.log" }
}
registry "devices" {
  url = "redis://:very-secret@127.0.0.1:1/0"
  key = "KIND"
}
"""


@frozen
class Site:
    """
    A directory with a configuration, and the store that it names.

    :ivar directory: where everything is.
    :ivar store: what every command works on.
    :ivar opened: how each command has opened it.
    """

    directory: Path
    store: ScriptedStore
    opened: list[StoreOptions] = field(factory=list)

    def run(self, *words: str, data: bytes = b"") -> Result:
        """:returns: what a command said; a traceback is never said."""
        result = CliRunner().invoke(main, self.words(*words), input=data)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        assert "very-secret" not in result.output
        assert "-----" not in result.output
        return result

    def words(self, *words: str) -> list[str]:
        """:returns: the words of a command on the site's registry."""
        config = () if "--config" in words else ("--config", str(self.directory / "gate.hcl"))
        return ["registry", *words, *config]

    def configure(self, kind: str = "identity", text: str = CONFIG) -> None:
        (self.directory / "gate.hcl").write_text(text.replace("KIND", kind))

    def write(self, name: str, content: bytes | str) -> str:
        """:returns: the path of a new file."""
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def audited(self) -> list[dict[str, object]]:
        """:returns: the lines of the audit log."""
        path = self.directory / "audit.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


def site_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """:returns: a configuration in a directory, whose store is in memory."""
    found = Site(directory, ScriptedStore())

    def opened(options: StoreOptions) -> ScriptedStore:
        assert options.url.startswith("redis://:very-secret@")
        found.opened.append(options)
        return found.store

    monkeypatch.setattr("mtlsgate.commands.registry.session.open_store", opened)
    found.configure()
    return found
