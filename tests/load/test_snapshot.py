"""
The files of a load, kept as they were read.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mtlsgate.errors import ConfigError, CredentialError
from mtlsgate.load.disk import DISK
from mtlsgate.load.loading import load
from mtlsgate.load.snapshot import Recording, Snapshot
from tests.kits.pki import NOW, site
from tests.kits.service import ISSUING, a_server


def recorded(directory: Path) -> tuple[Path, int]:
    """:returns: a configuration, and a descriptor of what a load of it read."""
    here = site(directory)
    pins = here.directory / "pins"
    pins.mkdir()
    shutil.copy(here.directory / "client.crt", pins)
    rules = f'{ISSUING}\nclient_certificate "d" {{\nleaf_certificate_dir = "pins"\n}}'
    here.write("gate.hcl", a_server(rules=rules))
    recording = Recording(DISK)
    load(str(here.config), {}, lambda: NOW, source=recording)
    return here.config, recording.save()


def test_a_load_from_a_snapshot_needs_no_file(tmp_path: Path) -> None:
    """Whatever has become of them: directories of pins, too."""
    directory = tmp_path / "site"
    directory.mkdir()
    config, descriptor = recorded(directory)
    shutil.rmtree(directory)
    epoch = load(str(config), {}, lambda: NOW, source=Snapshot(descriptor))
    os.close(descriptor)
    policy = epoch.servers[0].gate.context.policy
    assert policy.admission is not None
    assert [len(rule.pins) for rule in policy.admission.rules] == [0, 1]


def test_nobody_can_change_a_snapshot(tmp_path: Path) -> None:
    """It passes from process to process."""
    _, descriptor = recorded(tmp_path)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_readers_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    """Several processes read the same open file at the same time, wherever one of them has
    left it, and none moves it."""
    config, descriptor = recorded(tmp_path)
    pin = config.parent / "pins" / "client.crt"
    for position in (0, 5, os.fstat(descriptor).st_size):
        os.lseek(descriptor, position, os.SEEK_SET)
        snapshot = Snapshot(descriptor)
        assert snapshot.read(pin) == pin.read_bytes()
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == position
    os.close(descriptor)


def test_what_was_not_read_is_not_there(tmp_path: Path) -> None:
    """Another configuration cannot be loaded from it."""
    config, descriptor = recorded(tmp_path)
    snapshot = Snapshot(descriptor)
    os.close(descriptor)
    with pytest.raises(CredentialError):
        snapshot.read(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        snapshot.list(tmp_path)
    assert snapshot.stamp(tmp_path / "other") is None
    with pytest.raises(ConfigError):
        load(str(config.with_name("other.hcl")), {}, lambda: NOW, source=snapshot)
