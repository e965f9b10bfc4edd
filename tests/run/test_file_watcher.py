from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from mtlsgate.errors import ConfigError
from mtlsgate.load.file_state import Stamp, stamp
from mtlsgate.load.loading import load
from mtlsgate.run.file_watcher import INTERVAL, FileWatcher
from tests.kits.gate import Log
from tests.kits.pki import NOW, Site, server, site


class Watch:
    """
    A watcher of one directory.

    :ivar calls: how often it said that something changed.
    """

    def __init__(self, *paths: Path) -> None:
        self.clock = Clock()
        self.read: dict[Path, Stamp] = {path: stamp(path) for path in paths}
        self.calls = 0
        self.watcher = FileWatcher(lambda: self.read, self.changed, self.clock, maybeDeferred)
        self.watcher.startService()

    def changed(self) -> None:
        self.calls += 1

    def reads_again(self) -> None:
        """What loading anew does."""
        self.read = {path: stamp(path) for path in self.read}

    def calls_after(self, looks: int) -> int:
        for _ in range(looks):
            self.clock.advance(INTERVAL)
        return self.calls


def put(path: Path, text: str) -> None:
    """Write beside it and rename, as one should."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "one"
    path.write_text("1")
    return path


def test_nothing_changes(one: Path) -> None:
    assert Watch(one).calls_after(10) == 0


def test_a_change_is_told_once_it_is_settled(one: Path) -> None:
    """When it has been the same for two looks; and once."""
    watch = Watch(one)
    for number in range(5):
        put(one, f"{number} of many")
        assert watch.calls_after(1) == 0
    assert watch.calls_after(1) == 1
    assert watch.calls_after(10) == 1


def test_after_loading_anew_it_watches_on(one: Path) -> None:
    watch = Watch(one)
    put(one, "two")
    assert watch.calls_after(2) == 1
    watch.reads_again()
    assert watch.calls_after(5) == 1
    put(one, "three")
    assert watch.calls_after(2) == 2


def test_what_could_not_be_loaded_is_tried_again_when_it_changes(one: Path) -> None:
    """... and not before."""
    watch = Watch(one)
    put(one, "broken")
    assert watch.calls_after(10) == 1
    put(one, "mended")
    assert watch.calls_after(2) == 2


def test_what_is_not_there_yet(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    watch = Watch(missing)
    missing.write_text("1")
    assert watch.calls_after(2) == 1


def test_what_is_there_no_more(one: Path) -> None:
    watch = Watch(one)
    one.unlink()
    assert watch.calls_after(2) == 1


def test_a_link_that_is_turned_elsewhere(tmp_path: Path) -> None:
    """As Kubernetes does with its volumes."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    link = tmp_path / "data"
    link.symlink_to("old")
    watch = Watch(link / "file")
    beside = tmp_path / "beside"
    beside.symlink_to("new")
    os.replace(beside, link)
    assert watch.calls_after(2) == 1


def test_a_directory_gets_a_file(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    os.utime(tmp_path, ns=(1, 1))
    watch.reads_again()
    (tmp_path / "another").write_text("1")
    assert watch.calls_after(2) == 1


def test_a_key_that_becomes_readable(one: Path) -> None:
    """Its mode is a part of its state: what was wrong may be right now."""
    one.chmod(0o000)
    watch = Watch(one)
    one.chmod(0o640)
    assert watch.calls_after(2) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_key_that_gets_another_owner(one: Path) -> None:
    """The same by chown, and by chgrp."""
    watch = Watch(one)
    os.chown(one, 12345, -1)
    assert watch.calls_after(2) == 1
    watch.reads_again()
    os.chown(one, -1, 12345)
    assert watch.calls_after(2) == 2


def test_a_change_that_leaves_size_and_time_as_they_were(one: Path) -> None:
    """As cp --preserve and rsync --times do it: the change time tells."""
    watch, before = Watch(one), one.stat()
    one.write_text("2")
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (one.stat().st_mtime_ns, one.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert watch.calls_after(2) == 1


def test_it_stops(one: Path) -> None:
    watch = Watch(one)
    watch.watcher.stopService()
    put(one, "two")
    assert watch.calls_after(5) == 0
    assert watch.clock.getDelayedCalls() == []


RULE = """
client_certificate {
  ca_certificate_file = "issuing.crt"
  leaf_certificate_dir = "pins"
}
server_certificate {
  public_key_file = "server.crt"
  private_key_file = "server.key"
}
"""


@pytest.fixture
def here(tmp_path: Path) -> Site:
    found = site(tmp_path)
    (tmp_path / "pins").mkdir()
    found.write("pins/client.crt", (tmp_path / "client.crt").read_bytes())
    return found


def test_all_that_a_configuration_reads_is_known(here: Site) -> None:
    """The file, certificates, keys, directories and what is in them."""
    here.write("gate.hcl", server(RULE))
    seen: dict[Path, Stamp] = {}
    load(str(here.config), {}, lambda: NOW, seen=seen)
    names = {str(path.relative_to(here.directory)) for path in seen}
    assert names == {
        "gate.hcl",
        "issuing.crt",
        "pins",
        "pins/client.crt",
        "server.crt",
        "server.key",
    }
    assert seen == {path: stamp(path) for path in seen}


def test_also_if_it_is_in_error(here: Site) -> None:
    """So that the gate notices when what was missing is there."""
    here.write("gate.hcl", server(RULE.replace("issuing.crt", "missing.crt")))
    seen: dict[Path, Stamp] = {}
    with pytest.raises(ConfigError):
        load(str(here.config), {}, lambda: NOW, seen=seen)
    assert seen[here.directory / "missing.crt"] is None


def test_a_look_that_fails_is_not_the_last(one: Path, log: Log) -> None:
    """Whatever goes wrong, the next look is a second later."""
    watch = Watch(one)

    def fail() -> None:
        raise RuntimeError("boom")

    watch.watcher._changed = fail
    put(one, "22")
    watch.calls_after(3)
    log.expect_failure(RuntimeError)
    watch.watcher._changed = Watch.changed.__get__(watch)
    put(one, "333")
    assert watch.calls_after(3) == 1
