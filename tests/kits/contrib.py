"""
What the files under contrib need around them: commands that parse, and volumes as Kubernetes
mounts them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from attrs import field, frozen
from click.testing import CliRunner

from mtlsgate.commands.cli import main
from mtlsgate.testing import Authority
from tests.kits.docs import ROOT

CONTRIB = ROOT / "contrib"


def parses(words: Sequence[str]) -> bool:
    """:returns: whether the words are a command of mtlsgate, with options that it has."""
    name, *rest = words
    return name == "mtlsgate" and CliRunner().invoke(main, [*rest, "--help"]).exit_code == 0


def sample(name: str, directory: Path) -> Path:
    """
    :param name: a configuration below contrib that names server.crt, server.key and ca.crt.
    :returns: a copy in the directory, with those files beside it and its socket among them.
    """
    authority = Authority.create("Clients")
    server = authority.issue("gate", dns_names=["gate.example"], usages=["server_auth"])
    files = {"ca.crt": authority.pem, "server.crt": server.pem, "server.key": server.key_pem}
    for file, content in files.items():
        (directory / file).write_bytes(content)
        (directory / file).chmod(0o600)
    config = directory / "gate.hcl"
    config.write_text((CONTRIB / name).read_text().replace("/run/mtlsgate", str(directory)))
    return config


@frozen
class Volume:
    """
    A ConfigMap or a Secret, mounted: each file is a link through `..data`, which is a link
    to a directory. An update makes another directory and turns `..data` to it.

    :ivar path: where it is mounted.
    :ivar mode: the mode of the files.
    """

    path: Path
    mode: int = 0o644
    _numbers: count[int] = field(factory=count, repr=False)

    def update(self, files: Mapping[str, bytes]) -> None:
        """Replace what it holds, in one step."""
        self.path.mkdir(parents=True, exist_ok=True)
        data = self.path / "..data"
        before = data.resolve() if data.exists() else None
        made = self.path / f"..{next(self._numbers)}"
        made.mkdir()
        for name, content in files.items():
            (made / name).write_bytes(content)
            (made / name).chmod(self.mode)
        turned = self.path / "..data_tmp"
        turned.symlink_to(made.name)
        os.replace(turned, data)
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(Path("..data") / name)
        if before is not None:
            for one in before.iterdir():
                one.unlink()
            before.rmdir()
