"""
Configurations that are made of several files.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mtlsgate.commands.cli import main
from mtlsgate.errors import ConfigError
from mtlsgate.load.admin_endpoint import endpoint_of
from mtlsgate.load.loading import load
from tests.kits.pki import NOW, Site, pki

SERVER = """\
server "x" {
  hosts = ["127.0.0.1:0"]
  protocol "echo" {}
  tls {
    client_certificate "fleet" {
      ca_certificate_file = "ca.crt"
    }
  }
}
"""
MORE = """\
server "x" {
  tls {
    client_certificate "pins" {
      leaf_certificate_file = "client.crt"
    }
  }
}
"""


@pytest.fixture
def two(here: Site) -> Site:
    """:returns: a directory with two parts, each with the files that it names beside it."""
    conf = here.directory / "conf.d"
    conf.mkdir()
    here.write("conf.d/10-server.hcl", SERVER)
    here.write("conf.d/ca.crt", pki().issuing.pem)
    here.write("conf.d/ignored.txt", "{")
    here.write("more.hcl", MORE)
    here.write("client.crt", pki().client.pem)
    return here


def rules(*paths: Path) -> list[str | None]:
    epoch = load(paths, {}, lambda: NOW)
    return [rule.label for rule in epoch.servers[0].model.tls.client_certificate]


def test_files_and_directories_are_merged_in_order(two: Site) -> None:
    """Relative paths start at the directory of the file that they stand in."""
    assert rules(two.directory / "conf.d") == ["fleet"]
    assert rules(two.directory / "conf.d", two.directory / "more.hcl") == ["fleet", "pins"]
    assert rules(two.directory / "more.hcl", two.directory / "conf.d") == ["pins", "fleet"]


def test_paths_may_be_relative(two: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the files, too, from wherever they are named."""
    monkeypatch.chdir(two.directory)
    assert rules(Path("conf.d"), Path("more.hcl")) == ["fleet", "pins"]
    monkeypatch.chdir(two.directory / "conf.d")
    assert rules(Path("../more.hcl"), Path()) == ["pins", "fleet"]
    two.write("more.hcl", MORE + 'x = file("client.crt")\n')
    with pytest.raises(ConfigError) as caught:
        load(["../more.hcl", "."], {}, lambda: NOW)
    assert str(caught.value) == '../more.hcl:8:1: configuration: unknown attribute "x"'


def test_the_files_of_a_directory_come_by_name(two: Site) -> None:
    two.write("conf.d/05.hcl", SERVER.replace("fleet", "first"))
    two.write("conf.d/20.hcl", MORE.replace("pins", "fleet").replace("client.crt", "../client.crt"))
    assert rules(two.directory / "conf.d") == ["first", "fleet"]


def test_problems_name_the_file(two: Site) -> None:
    two.write("conf.d/20.hcl", MORE + "nonsense = 1\n")
    two.write("more.hcl", MORE + 'server "y" {\n')
    with pytest.raises(ConfigError) as caught:
        load([two.directory / "conf.d"], {}, lambda: NOW)
    assert str(caught.value).split("\n") == [
        f'{two.directory}/conf.d/20.hcl:4:7: client_certificate "pins": leaf_certificate_file: '
        f'"{two.directory}/conf.d/client.crt" no such file',
        f'{two.directory}/conf.d/20.hcl:8:1: configuration: unknown attribute "nonsense"',
    ]
    with pytest.raises(ConfigError) as caught:
        load([two.directory / "conf.d", two.directory / "more.hcl"], {}, lambda: NOW)
    assert str(caught.value) == (
        f'{two.directory}/more.hcl:8:12: syntax: this "{{" is not closed; a "}}" is missing'
    )


def test_what_cannot_be_read_is_told_with_its_name(two: Site) -> None:
    empty = two.directory / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError) as caught:
        load([empty, two.directory / "gone.hcl", two.directory / "conf.d"], {}, lambda: NOW)
    assert str(caught.value).split("\n") == [
        f"{empty}:1:1: configuration: has no file in it that ends in .hcl",
        f"{two.directory}/gone.hcl:1:1: configuration: no such file",
    ]


def test_every_file_and_directory_is_watched(two: Site) -> None:
    """A new file in a directory is a change."""
    seen: dict[Path, object] = {}
    load([two.directory / "conf.d", two.directory / "more.hcl"], {}, lambda: NOW, seen=seen)  # type: ignore[arg-type]
    names = {str(path.relative_to(two.directory)) for path in seen}
    assert names >= {"conf.d", "conf.d/10-server.hcl", "more.hcl", "conf.d/ca.crt", "client.crt"}


def test_commands_take_several(two: Site) -> None:
    parts = ["-c", str(two.directory / "conf.d"), "-c", str(two.directory / "more.hcl")]
    checked = CliRunner().invoke(main, ["check", *parts])
    assert "rule pins" in checked.output
    explained = CliRunner().invoke(
        main, ["explain", *parts, "--at", NOW.isoformat(), str(two.directory / "client.crt")]
    )
    assert explained.exit_code == 0, explained.output


def test_the_admin_block_may_stand_in_any(two: Site) -> None:
    two.write("admin.hcl", 'admin { listen = "unix:admin.sock" }\n')
    endpoint = endpoint_of([two.directory / "conf.d", two.directory / "admin.hcl"])
    assert endpoint is not None
    assert endpoint.path is not None
