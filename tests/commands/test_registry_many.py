"""``mtlsgate registry import`` and ``export``, on a registry in memory."""

from __future__ import annotations

import gc
import hashlib
import json
import sqlite3
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.certificates.development_ca import Authority
from mtlsgate.commands.cli import main
from mtlsgate.commands.registry import importing, many
from mtlsgate.commands.registry.key_index import KeyIndex
from mtlsgate.registry.store import StoreUnavailable
from tests.kits.registry_command import Site, site_in


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = site_in(tmp_path, monkeypatch)
    found.configure("common_name")
    return found


def listed(site: Site, *devices: Device) -> None:
    site.store.listed.update({device.key: device for device in devices})


DENIED = DeviceState.DENIED


def test_a_file_is_listed(site: Site) -> None:
    listed(site, Device("same"), Device("other", note="before"), Device("kept"))
    content = "key,state,note\nsame,active,\nother,denied,after\nnew,,\n"
    name = site.write("devices.csv", content)
    result = site.run("import", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("devices: 3 devices: 1 added, 1 changed, 1 as before, in ")
    assert site.store.listed == {
        "same": Device("same"),
        "other": Device("other", DENIED, note="after"),
        "kept": Device("kept"),
        "new": Device("new"),
    }
    other, new, line = site.audited()
    for one, key, before, after in (
        (other, "other", "active", "denied"),
        (new, "new", None, "active"),
    ):
        assert (one["key"], one["before"], one["after"]) == (key, before, after)
        assert (one["action"], one["file"], one["sha256"]) == ("import", name, None)
    assert other["details"] == ['note "before" -> "after"']
    assert (line["action"], line["file"], line["key"]) == ("import", name, None)
    assert line["sha256"] == hashlib.sha256(content.encode()).hexdigest()
    assert [line[name] for name in ("devices", "added", "changed", "removed")] == [3, 1, 1, 0]
    assert line["complete"] is True


def test_what_is_wrong_in_a_file_keeps_all_of_it_out(site: Site) -> None:
    name = site.write(
        "devices.jsonl", '{"key": "a"}\n{"key": "b", "state": "?"}\n{"key": "c"}\n{"key": "a"}\n'
    )
    result = site.run("import", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f'{name}:2: state: must be "active" or "denied"',
        f"{name}:4: key: is that of line 1, too",
        "nothing has been written",
    ]
    assert (site.store.listed, site.audited()) == ({}, [])


def test_of_very_many_faults_the_first_are_told(site: Site) -> None:
    name = site.write("devices.jsonl", "nonsense\n" * 1000)
    lines = site.run("import", name).stderr.splitlines()
    assert len(lines) == importing.MOST_TOLD + 2
    assert lines[-2:] == [f"and {1000 - importing.MOST_TOLD} more", "nothing has been written"]


def test_a_key_that_is_there_twice_is_found_among_many(site: Site) -> None:
    keys = [f"device {n}" for n in range(2 * importing.BATCH + 1)]
    name = site.write("devices.csv", "key\n" + "\n".join([*keys, keys[1]]) + "\n")
    assert site.run("import", name).stderr.splitlines()[0] == (
        f"{name}:{len(keys) + 2}: key: is that of line 3, too"
    )


def test_a_dry_run_says_what_would_change_and_changes_nothing(site: Site) -> None:
    listed(site, Device("same"), Device("stolen", DENIED), Device("left"))
    before = dict(site.store.listed)
    name = site.write("devices.csv", "key,note\nsame,\nstolen,\nnew,\x1b[31m\n")
    result = site.run("import", name, "--dry-run", "--replace")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "stolen: denied -> active",
        'new: not listed -> active, note "\\x1b[31m"',
        "devices: 3 devices: 1 added, 1 changed, 1 as before, 1 removed; 1 of these are denied "
        "now and would be active (dry run, nothing is written)",
    ]
    assert (site.store.listed, site.audited()) == (before, [])


def test_a_dry_run_of_many_tells_the_first_changes(site: Site) -> None:
    name = site.write("devices.csv", "key\n" + "".join(f"device {n}\n" for n in range(1000)))
    lines = site.run("import", name, "--dry-run").stdout.splitlines()
    assert len(lines) == importing.MOST_TOLD + 2
    assert lines[-2] == f"and {1000 - importing.MOST_TOLD} more"


def test_many_are_written_in_batches(site: Site) -> None:
    count = 2 * importing.BATCH + 1
    name = site.write("devices.csv", "key\n" + "".join(f"device {n}\n" for n in range(count)))
    assert f"{count:,} added" in site.run("import", name).stdout
    assert site.store.batches == [importing.BATCH, importing.BATCH, 1]
    assert len(site.store.listed) == count


def test_what_the_file_does_not_have_is_removed_if_asked_for(site: Site) -> None:
    listed(site, *(Device(f"old {n}") for n in range(importing.BATCH + 1)), Device("same"))
    name = site.write("devices.csv", "key\nsame\nnew\n")
    result = site.run("import", name, "--replace")
    assert (result.exit_code, len(site.store.listed)) == (2, importing.BATCH + 2)
    assert result.stderr == (
        f"2,001 devices of registry devices not in {name}: confirm the removal by --yes\n"
    )
    result = site.run("import", name, "--replace", "--yes")
    assert "1 added, 0 changed, 1 as before, 2,001 removed" in result.stdout
    assert set(site.store.listed) == {"same", "new"}
    assert [line["removed"] for line in site.audited()] == [2001]


def test_an_import_of_a_few_has_a_line_for_each_change(site: Site) -> None:
    """Also for whom it removes, and if nobody knows whether it was done."""
    listed(site, Device("same"), Device("old", DENIED))
    name = site.write("devices.csv", "key\nsame\nnew\n")
    site.run("import", name, "--replace", "--yes")
    story = [(one["key"], one["before"], one["after"]) for one in site.audited()]
    assert story == [("new", None, "active"), ("old", "denied", None), (None, None, None)]
    site.write("devices.csv", "key,state\nnew,denied\n")
    site.store.calls_left = 1
    assert site.run("import", name).exit_code == 2
    one, whole = site.audited()[3:]
    assert (one["key"], one["after"], one["complete"]) == ("new", "denied", False)
    assert (whole["key"], whole["complete"]) == (None, False)


def test_who_is_asked_may_say_no(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(site, Device("old"))
    name = site.write("devices.csv", "key\nnew\n")
    monkeypatch.setattr(many, "_is_asked", lambda file: True)
    result = site.run("import", name, "--replace", data=b"n\n")
    assert (result.exit_code, set(site.store.listed)) == (2, {"old"})
    assert result.stderr.endswith("nothing has been written\n")
    assert site.run("import", name, "--replace", data=b"y\n").exit_code == 0
    assert set(site.store.listed) == {"new"}


def test_nothing_is_removed_before_everything_is_written(site: Site) -> None:
    """While it runs, nobody is out who is in before and after."""
    listed(site, Device("old"))
    name = site.write("devices.csv", "key\nnew\n")
    # It looks for others, which takes two calls, and then writes.
    site.store.calls_left = 2
    result = site.run("import", name, "--replace", "--yes")
    assert (result.exit_code, set(site.store.listed)) == (2, {"old"})


def test_an_import_that_fails_on_the_way_says_how_far_it_came(site: Site) -> None:
    count = 2 * importing.BATCH
    name = site.write("devices.csv", "key\n" + "".join(f"device {n}\n" for n in range(count)))
    site.store.calls_left = 1
    result = site.run("import", name)
    assert result.exit_code == 2
    assert result.stderr == (
        'registry "devices", redis://127.0.0.1:1/0: the connection is lost\n'
        "at least 2,000 of 4,000 devices are written; the same import again does the rest\n"
    )
    (line,) = site.audited()
    assert (line["complete"], line["added"], line["devices"]) == (False, 2000, 4000)
    site.store.calls_left = site.store.problem = None
    assert "2,000 added, 0 changed, 2,000 as before" in site.run("import", name).stdout


def test_an_import_of_which_nobody_knows_what_is_written_is_recorded(site: Site) -> None:
    """Of many devices the first batch, which has failed, may be in the store."""
    count = 2 * importing.BATCH
    name = site.write("devices.csv", "key\n" + "".join(f"device {n}\n" for n in range(count)))
    site.store.calls_left = 0
    assert site.run("import", name).exit_code == 2
    (line,) = site.audited()
    assert (line["complete"], line["added"], line["devices"]) == (False, 0, 4000)


def test_ctrl_c_in_an_import_says_how_far_it_came(site: Site) -> None:
    count = 2 * importing.BATCH
    name = site.write("devices.csv", "key\n" + "".join(f"device {n}\n" for n in range(count)))
    site.store.calls_left, site.store.then = 1, KeyboardInterrupt()
    result = site.run("import", name)
    assert (result.exit_code, site.store.closed) == (2, 1)
    assert result.stderr == (
        "interrupted\n"
        "at least 2,000 of 4,000 devices are written; the same import again does the rest\n"
    )
    assert [line["complete"] for line in site.audited()] == [False]


def test_a_full_disk_is_told_as_such(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: KeyIndex, rows: object) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(KeyIndex, "add", full)
    for words in (("import", site.write("devices.csv", "key\na\n")), ("export", "-")):
        result = site.run(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("the temporary file with the keys, in /")
        assert result.stderr.endswith(": database or disk is full\n")


def test_a_store_that_is_down_leaves_no_line(site: Site) -> None:
    site.store.problem = StoreUnavailable("no answer within 10 s")
    name = site.write("devices.csv", "key\na\n")
    assert site.run("import", name).exit_code == 2
    assert site.audited() == []


def test_a_directory_of_certificates_is_listed(site: Site) -> None:
    """Once for each device, however often it is there; keys and chains are left alone."""
    ca = Authority.create("CA")
    one, two = ca.issue("one"), ca.issue("two")
    directory = site.directory / "certificates"
    directory.mkdir()
    (directory / "one.crt").write_bytes(one.key_pem + one.pem + ca.pem)
    (directory / "both.PEM").write_bytes(one.pem + two.pem)
    (directory / "read.me").write_text("nothing")
    result = site.run("import", str(directory), "--note", "by hand", "--attribute", "tenant=north")
    assert result.stdout.startswith("devices: 2 devices: 2 added, 0 changed, 0 as before")
    assert site.store.listed == {
        key: Device(key, note="by hand", attributes={"tenant": "north"}) for key in ("one", "two")
    }
    *each, line = site.audited()
    assert [(one["key"], one["after"]) for one in each] == [("one", "active"), ("two", "active")]
    assert (line["sha256"], line["devices"]) == (None, 2)
    (directory / "zero.crt").write_bytes(b"nonsense")
    result = site.run("import", str(directory))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{directory / 'zero.crt'}: ")


def test_what_the_file_does_not_say_can_be_said(site: Site) -> None:
    name = site.write("stolen.csv", "key,state,note\na,,\nb,active,found\n")
    site.run("import", name, "--state", "denied", "--note", "stolen")
    assert site.store.listed == {
        "a": Device("a", DENIED, note="stolen"),
        "b": Device("b", note="found"),
    }


def test_a_file_may_come_by_a_pipe(site: Site) -> None:
    result = site.run("import", "-", data=b'{"key": "a"}\n')
    assert (result.exit_code, set(site.store.listed)) == (0, {"a"})
    assert site.run("import", "-", "--format", "csv", data=b"key\nb\n").exit_code == 0
    pem = Authority.create("CA").issue("c").pem
    assert site.run("import", "-", "--format", "certificates", data=pem).exit_code == 0
    assert set(site.store.listed) == {"a", "b", "c"}
    assert site.run("import", "-", data=b"nonsense").stderr.startswith("standard input:1: ")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gone.csv", "gone.csv: cannot be read: No such file or directory"),
        ("devices.txt", "devices.txt: name the format: --format csv, jsonl or certificates"),
        ("empty", "empty: holds no file that ends in .pem, .crt, .cer, .der"),
    ],
)
def test_what_cannot_be_imported_is_named(site: Site, name: str, why: str) -> None:
    (site.directory / "empty").mkdir()
    site.write("devices.txt", "key\na\n")
    result = site.run("import", str(site.directory / name))
    assert (result.exit_code, result.stderr) == (2, f"{site.directory}/{why}\n")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_export_can_be_imported(site: Site, ending: str) -> None:
    listed(
        site,
        Device("b", DENIED, note='two\r\nlines, "quoted" \x1b[31m'),
        Device("a", attributes={"tenant": "ü"}),
        Device("c"),
    )
    before = dict(site.store.listed)
    name = str(site.directory / f"export.{ending}")
    result = site.run("export", name)
    assert (result.exit_code, result.stdout) == (0, "devices: 3 devices\n")
    assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert site.run("export", "-", "--format", ending).stdout_bytes == Path(name).read_bytes()
    site.store.listed.clear()
    assert "3 added" in site.run("import", name).stdout
    assert site.store.listed == before


def test_an_export_is_sorted_and_has_each_device_once(site: Site) -> None:
    """A store may tell of a device twice while others come and go."""
    listed(site, *(Device(str(n)) for n in range(3000, 0, -1)))
    site.store.repeats = True
    lines = site.run("export", "-").stdout.splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert keys == sorted(map(str, range(1, 3001)))


def test_an_export_that_fails_leaves_the_old_file(site: Site) -> None:
    name = site.write("export.csv", "the one before")
    site.store.calls_left = 1
    assert site.run("export", name).exit_code == 2
    assert Path(name).read_text() == "the one before"
    assert sorted(one.name for one in site.directory.iterdir()) == ["export.csv", "gate.hcl"]
    result = site.run("export", str(site.directory / "gone" / "export.csv"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("export.csv: cannot be written: No such file or directory\n")


def test_an_export_says_what_nobody_understands_or_finds(site: Site) -> None:
    """In it, a device that is not understood is denied, as the gate has it."""
    site.configure("identity")
    odd, good, capital = "0d" * 32, "90" * 32, "AB" * 32
    listed(site, Device.unreadable(odd, "state: is no state"), Device(good), Device(capital))
    result = site.run("export", "-")
    assert set(result.stderr.splitlines()) == {
        f"{odd}: what is listed cannot be understood; here it is denied",
        f"{capital}: no client is found by it: key: write it as {capital.lower()}",
    }
    found = {
        (line := json.loads(text))["key"]: line["state"] for text in result.stdout.splitlines()
    }
    assert found == {good: "active", odd: "denied", capital: "active"}


def test_what_lasts_collects_garbage(site: Site) -> None:
    """Other commands are too short for it."""
    seen: list[bool] = []
    site.store.called = lambda: seen.append(gc.isenabled())
    site.run("import", site.write("devices.csv", "key\na\n"))
    site.run("export", "-")
    site.store.problem = AssertionError("enough")
    assert CliRunner().invoke(main, site.words("watch")).exception is site.store.problem
    assert len(seen) >= 3
    assert all(seen)
