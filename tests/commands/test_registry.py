"""``mtlsgate registry`` on a registry in memory: single devices."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.admission.key_kinds import KeyKind, RegistryName
from mtlsgate.admission.listings import listed, question_of
from mtlsgate.admission.verdicts import Rejection
from mtlsgate.certificates.development_ca import Authority, Credential
from mtlsgate.certificates.parsing import parse_certificates
from mtlsgate.commands.registry.answers import standing
from mtlsgate.commands.registry.naming import Named
from mtlsgate.commands.registry.session import choose
from mtlsgate.commands.registry.work import watched
from mtlsgate.registry.store import StoreError, StoreOptions, StoreUnavailable, WriteUnconfirmed
from tests.kits.memory_stores import ScriptedStore
from tests.kits.registry_command import CONFIG, Site, site_in

TIME = datetime(2027, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return site_in(tmp_path, monkeypatch)


@cache
def sensor() -> Credential:
    return Authority.create("CA").issue("sensor", dns_names=["One.example", "two.example"])


def identity(of: Credential | None = None) -> str:
    (leaf,) = parse_certificates((of or sensor()).certificate.public_bytes(Encoding.PEM))
    return leaf.identity.hex()


def test_a_device_is_listed_by_its_certificate(site: Site) -> None:
    cert = site.write("sensor.crt", sensor().pem)
    result = site.run(
        *("allow", cert, "--note", "in hall 7", "--attribute", "tenant=north"),
        *("--attribute", "a=b=c", "--not-after", "2027-01-31T13:00:00+01:00"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    key = identity()
    assert result.stdout == (
        f'{key}: not listed -> active, not_after 2027-01-31T12:00:00Z, note "in hall 7", '
        'attributes.a "b=c", attributes.tenant "north"  (CN=sensor)\n'
    )
    assert site.store.listed == {
        key: Device(
            key, not_after=TIME, note="in hall 7", attributes={"tenant": "north", "a": "b=c"}
        )
    }
    assert site.store.closed == 1


def test_the_same_again_changes_nothing(site: Site) -> None:
    cert = site.write("sensor.crt", sensor().pem)
    site.run("allow", cert)
    result = site.run("allow", cert)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{identity()}: active, as before  (CN=sensor)\n",
    )
    assert len(site.audited()) == 1


@pytest.mark.parametrize("command", ["allow", "deny", "remove"])
def test_the_same_again_is_done_only_if_the_store_has_it_for_good(site: Site, command: str) -> None:
    """What somebody wrote a moment ago is there, and could still be lost."""
    cert = site.write("sensor.crt", sensor().pem)
    site.run(command, cert)
    audited = site.audited()
    # The device is found; what is written fails.
    site.store.calls_left = 1
    site.store.then = WriteUnconfirmed("r:1 has it, but a failover could lose it: write it again")
    result = site.run(command, cert)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "could lose it: write it again" in result.stderr
    assert site.audited() == audited


def test_a_denial_keeps_what_is_known_of_the_device(site: Site) -> None:
    cert = site.write("sensor.crt", sensor().pem)
    site.run("allow", cert, "--note", "in hall 7", "--attribute", "tenant=north")
    result = site.run("deny", cert, "--note", "stolen")
    assert result.stdout == (
        f'{identity()}: active -> denied, note "in hall 7" -> "stolen"  (CN=sensor)\n'
    )
    (device,) = site.store.listed.values()
    assert device.state is DeviceState.DENIED
    assert device.attributes == {"tenant": "north"}
    assert site.run("allow", cert).stdout.startswith(f"{identity()}: denied -> active  ")
    assert site.store.listed[identity()].note == "stolen"


def test_a_device_that_nobody_knew_can_be_denied(site: Site) -> None:
    cert = site.write("sensor.crt", sensor().pem)
    assert site.run("deny", cert).exit_code == 0
    assert site.store.listed == {identity(): Device(identity(), DeviceState.DENIED)}


def test_fields_can_be_cleared(site: Site) -> None:
    key = identity()
    site.store.listed[key] = Device(
        key, DeviceState.ACTIVE, TIME, TIME, "note", {"a": "1", "b": "2"}
    )
    result = site.run(
        *("allow", "--key", key, "--not-before", "never", "--not-after", "never"),
        *("--note", "", "--without-attribute", "a", "--without-attribute", "gone"),
    )
    assert site.store.listed[key] == Device(key, attributes={"b": "2"})
    assert result.stdout == (
        f"{key}: active, no not_before, no not_after, no note, no attributes.a\n"
    )


def test_what_a_store_has_and_nobody_understands_is_replaced(site: Site) -> None:
    key = identity()
    site.store.listed[key] = Device.unreadable(key, "state: is no state")
    assert "  problem  state: is no state\n" in site.run("show", "--key", key).stdout
    assert site.run("check", "--key", key).exit_code == 1
    site.run("allow", "--key", key)
    assert site.store.listed == {key: Device(key)}


def test_a_device_is_removed(site: Site) -> None:
    cert = site.write("sensor.crt", sensor().pem)
    site.run("allow", cert)
    result = site.run("remove", cert)
    assert result.stdout == f"{identity()}: active -> not listed  (CN=sensor)\n"
    assert site.store.listed == {}
    result = site.run("remove", cert)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{identity()}: not listed, as before  (CN=sensor)\n",
    )


@pytest.mark.parametrize(
    "form",
    ["PEM", "DER", "with its key", "with its chain", "standard input"],
)
def test_a_certificate_comes_in_any_form(site: Site, form: str) -> None:
    """A key in the same file is left alone and never shown."""
    ca = Authority.create("CA")
    device = ca.issue("sensor")
    content = {
        "PEM": device.pem,
        "DER": device.certificate.public_bytes(Encoding.DER),
        "with its key": device.key_pem + device.pem,
        "with its chain": device.pem + ca.pem,
        "standard input": device.pem,
    }[form]
    name = "-" if form == "standard input" else site.write("sensor.crt", content)
    assert site.run("allow", name, data=content).exit_code == 0
    assert list(site.store.listed) == [identity(device)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"no sense!", "is neither PEM nor DER nor base64 of DER"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "does not parse"),
    ],
)
def test_what_is_no_certificate_is_refused_with_its_name(
    site: Site, content: bytes, why: str
) -> None:
    name = site.write("bad.crt", content)
    result = site.run("allow", name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{name}: ")
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert site.run("allow", str(site.directory / "gone.crt")).stderr.endswith("no such file\n")
    key = site.write("only.key", sensor().key_pem)
    assert site.run("allow", key).exit_code == 2


def test_a_file_with_several_devices_is_for_import(site: Site) -> None:
    name = site.write("both.crt", sensor().pem + Authority.create("CA").issue("other").pem)
    result = site.run("deny", name)
    assert (result.exit_code, site.store.listed) == (2, {})
    assert "the certificates of 2 devices: import it" in result.stderr


def test_a_certificate_with_several_names_is_listed_by_each(site: Site) -> None:
    site.configure("dns_name")
    cert = site.write("sensor.crt", sensor().pem)
    result = site.run("allow", cert)
    assert result.stdout == (
        "one.example: not listed -> active  (CN=sensor)\n"
        "two.example: not listed -> active  (CN=sensor)\n"
    )
    site.run("deny", "--key", "Two.EXAMPLE")
    result = site.run("check", cert)
    assert (result.exit_code, result.stdout) == (
        1,
        "registry_denied: two.example is denied  (CN=sensor)\n",
    )
    assert site.run("check", "--key", "one.example").exit_code == 0


def test_a_certificate_without_such_a_name_is_refused(site: Site) -> None:
    site.configure("spiffe_id")
    result = site.run("allow", site.write("sensor.crt", sensor().pem))
    assert result.exit_code == 2
    assert "the certificate has no spiffe_id" in result.stderr


def test_without_a_certificate_the_key_will_do(site: Site) -> None:
    colons = ":".join(identity()[at : at + 2] for at in range(0, 64, 2)).upper()
    site.run("deny", "--key", colons, "--key", "ab" * 32)
    assert set(site.store.listed) == {identity(), "ab" * 32}
    result = site.run("deny", "--key", "sensor-1")
    assert (result.exit_code, result.stderr) == (
        2,
        "--key: is no identity: 64 hex digits\n",
    )
    assert "name a device by its certificate" in site.run("deny").stderr


@pytest.mark.parametrize(
    ("device", "status", "answer"),
    [
        (None, 1, "not_registered: KEY is not listed"),
        (Device("KEY"), 0, "active: KEY is listed"),
        (Device("KEY", DeviceState.DENIED, note="x"), 1, "registry_denied: KEY is denied"),
        (Device("KEY", not_before=TIME), 0, "active: KEY is listed"),
        (Device("KEY", not_after=TIME), 0, "active: KEY is listed"),
        (
            Device("KEY", not_before=TIME.replace(microsecond=1)),
            1,
            "not_registered: is listed only as KEY from 2027-01-31T12:00:00.000001Z",
        ),
        (
            Device("KEY", not_after=TIME.replace(hour=11)),
            1,
            "not_registered: is listed only as KEY until 2027-01-31T11:00:00Z",
        ),
        (
            Device("KEY", DeviceState.DENIED, not_after=TIME.replace(hour=11)),
            1,
            "registry_denied: KEY is denied",
        ),
    ],
)
def test_check_says_what_the_gate_would(
    site: Site, device: Device | None, status: int, answer: str
) -> None:
    site.configure("common_name")
    if device is not None:
        site.store.listed["KEY"] = device
    words = ("check", "--key", "KEY", "--at", "2027-01-31T12:00:00Z")
    result = site.run(*words)
    assert (result.exit_code, result.stdout) == (status, f"{answer}\n")
    found = json.loads(site.run(*words, "--json").stdout)
    assert found["active"] is (status == 0)
    assert answer == f"{found['reason'] or 'active'}: {found['detail']}"


def test_check_and_the_gate_agree_whatever_is_listed() -> None:
    """With two names in a certificate, and everything that each may be listed as."""
    (leaf,) = parse_certificates(sensor().pem)
    name = RegistryName("devices", KeyKind.DNS_NAME)
    question = question_of(name, leaf)
    past, future = TIME.replace(hour=11), TIME.replace(hour=13)
    limits = (None, past, TIME, future)
    for ones in product((None, *product(DeviceState, limits, limits)), repeat=2):
        found = {
            key: Device(key, *fields)
            for key, fields in zip(question.keys, ones, strict=True)
            if fields is not None
        }
        verdict = listed(name, leaf, TIME, {question: tuple(found.values())})
        reason = verdict.reason.value if isinstance(verdict, Rejection) else None
        assert standing(Named(question.keys), found, TIME).reason == reason


def test_show_shows_everything(site: Site) -> None:
    key = identity()
    device = Device(key, DeviceState.ACTIVE, TIME, TIME, "a\x1b[31mb\nc", {"tenant": '"\u202e'})
    site.store.listed[key] = device
    cert = site.write("sensor.crt", sensor().pem)
    result = site.run("show", cert)
    assert result.stdout == (
        f"{key}  (CN=sensor)\n"
        "  state              active\n"
        "  not_before         2027-01-31T12:00:00Z\n"
        "  not_after          2027-01-31T12:00:00Z\n"
        '  note               "a\\x1b[31mb\\nc"\n'
        '  attributes.tenant  ""\\u202e"\n'
    )
    assert json.loads(site.run("show", cert, "--json").stdout) == {
        "key": key,
        "state": "active",
        "not_before": "2027-01-31T12:00:00Z",
        "not_after": "2027-01-31T12:00:00Z",
        "note": device.note,
        "attributes": {"tenant": '"\u202e'},
    }
    result = site.run("show", "--key", "ab" * 32)
    assert (result.exit_code, result.stdout) == (1, f"{'ab' * 32}\n  state  not listed\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--attribute", "tenant"), "write it as KEY=VALUE"),
        (("--attribute", "a b=c"), "a name has letters"),
        (("--attribute", "a=1", "--attribute", "a=2"), "one is given twice"),
        (("--note", "x" * 4097), "longer than 4096"),
        (("--not-after", "tomorrow"), "write it as 2027-01-31T12:00:00Z"),
    ],
)
def test_options_that_are_not_clear_are_refused(
    site: Site, words: tuple[str, ...], why: str
) -> None:
    result = site.run("allow", "--key", "ab" * 32, *words)
    assert (result.exit_code, site.store.listed) == (2, {})
    assert why in result.stderr.replace("\n", " ")


def test_what_can_never_come_in_is_refused(site: Site) -> None:
    words = ("--not-before", "2027-01-31T12:00:00Z", "--not-after", "2026-01-31T12:00:00Z")
    result = site.run("allow", "--key", "ab" * 32, *words)
    assert (result.exit_code, site.store.listed) == (2, {})
    assert "not_after: is before not_before" in result.stderr


# The registry and its store.


TWO = CONFIG + 'registry "stolen" { url = "redis://:very-secret@127.0.0.1/1" }\n'


def test_where_there_are_several_registries_one_is_named(site: Site) -> None:
    site.configure(text=TWO.replace("KIND", "identity"))
    words = ("allow", "--key", "ab" * 32)
    result = site.run(*words)
    assert (result.exit_code, site.store.listed) == (2, {})
    assert 'several registries: name one by --registry: "devices", "stolen"' in result.stderr
    assert site.run(*words, "--registry", "stolen").exit_code == 0
    assert site.audited()[0]["registry"] == "stolen"
    assert 'no registry "stole"; did you mean "stolen"?' in (
        site.run(*words, "--registry", "stole").stderr
    )


def test_what_is_wrong_elsewhere_in_the_configuration_does_not_matter(site: Site) -> None:
    """A device can be denied while somebody edits the file, and by who may not read keys."""
    site.configure(
        text=TWO
        + """
server "a" {
  nonsense = 1
  tls {
    server_certificate { private_key_file = "may-not-be-read.key" }
  }
}
registry "broken" { url = "nonsense" }
"""
    )
    assert site.run("deny", "--key", "ab" * 32, "--registry", "stolen").exit_code == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("settings {}", "has no registry"),
        ("registry {", "gate.hcl:1"),
        ('registry "a" { url = "nonsense://" }', 'gate.hcl:1:22: registry "a": url: '),
        ('registry "a" { nonsense = 1 }', "gate.hcl:1:"),
    ],
)
def test_a_configuration_that_does_not_say_where_is_refused(
    site: Site, text: str, why: str
) -> None:
    site.configure(text=text)
    result = site.run("deny", "--key", "ab" * 32)
    assert result.exit_code == 2
    assert why in result.stderr


def test_without_a_configuration_the_remedy_is_said(site: Site) -> None:
    result = site.run("check", "--key", "ab" * 32, "--config", str(site.directory / "gone.hcl"))
    assert result.exit_code == 2
    assert "no such file; name the configuration by --config" in result.stderr


@pytest.mark.parametrize("command", ["allow", "deny", "remove", "show", "check"])
def test_a_store_that_is_down_is_named_without_its_password(site: Site, command: str) -> None:
    site.store.problem = StoreUnavailable("no answer within 10 s")
    result = site.run(command, "--key", "ab" * 32)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == ('registry "devices", redis://127.0.0.1:1/0: no answer within 10 s\n')
    assert site.store.closed == 1


def test_a_client_library_that_is_missing_is_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(options: StoreOptions) -> ScriptedStore:
        raise StoreError("pip install 'mtlsgate[redis]'")

    monkeypatch.setattr("mtlsgate.commands.registry.session.open_store", missing)
    result = site.run("check", "--key", "ab" * 32)
    assert result.exit_code == 2
    assert result.stderr.endswith("pip install 'mtlsgate[redis]'\n")


def test_a_person_waits_longer_than_a_client_and_watching_waits_as_a_gate(site: Site) -> None:
    """Or an outage would be told ten seconds late."""
    site.run("show", "--key", identity())
    with pytest.raises(AssertionError, match="nothing more is to be followed"):
        asyncio.run(watched(choose([str(site.directory / "gate.hcl")], None), False, print))
    assert [one.timeout for one in site.opened] == [10, 1]


# The audit log.


def test_each_change_has_a_line_in_the_audit_log(site: Site) -> None:
    cert = site.write("sensor.crt", sensor().pem)
    site.run("allow", cert)
    site.run("deny", cert, "--note", "stolen")
    site.run("remove", "--key", identity(), "--note", "scrapped")
    lines = site.audited()
    assert [(one["action"], one["before"], one["after"]) for one in lines] == [
        ("allow", None, "active"),
        ("deny", "active", "denied"),
        ("remove", "denied", None),
    ]
    assert [one["subject"] for one in lines] == ["CN=sensor", "CN=sensor", None]
    assert [one["details"] for one in lines] == [[], ['note "stolen"'], ['note "scrapped"']]
    for one in lines:
        assert (one["event"], one["key"], one["registry"]) == ("registry", identity(), "devices")
        assert (one["epoch"], one["complete"]) == (None, True)
        assert str(one["who"]).startswith(f"user {os.getuid()}")
    assert len({one["run"] for one in lines}) == 3


def test_a_change_that_cannot_be_recorded_is_not_made(site: Site) -> None:
    (site.directory / "audit.log").mkdir()
    result = site.run("allow", "--key", "ab" * 32)
    assert (result.exit_code, site.store.listed) == (2, {})
    assert "gate.hcl:2:18: audit: file:" in result.stderr
    assert "or name another file by --audit-log" in result.stderr
    other = site.directory / "other.log"
    assert site.run("allow", "--key", "ab" * 32, "--audit-log", str(other)).exit_code == 0
    assert '"action":"allow"' in other.read_text()


def test_a_change_of_which_nobody_knows_whether_it_was_made_is_recorded(site: Site) -> None:
    site.store.calls_left = 1
    result = site.run("deny", "--key", "ab" * 32)
    assert result.exit_code == 2
    (line,) = site.audited()
    assert (line["action"], line["after"], line["complete"]) == ("deny", "denied", False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file for another user")
def test_an_audit_log_that_root_makes_belongs_to_whoever_has_the_directory(site: Site) -> None:
    """The gate, which is not root, must be able to open it."""
    os.chown(site.directory, 65534, 65534)
    assert site.run("allow", "--key", "ab" * 32).exit_code == 0
    assert (site.directory / "audit.log").stat().st_uid == 65534


def test_an_audit_log_that_the_gate_could_not_open_is_not_made(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: site.directory.stat().st_uid + 1)
    result = site.run("allow", "--key", "ab" * 32)
    assert (result.exit_code, site.store.listed) == (2, {})
    assert "audit.log: is not there yet: run the command as the gate's user" in result.stderr
    assert site.audited() == []


def test_without_an_audit_log_there_is_none(site: Site) -> None:
    site.configure(text='registry "a" { url = "redis://:very-secret@127.0.0.1" }')
    assert site.run("allow", "--key", "ab" * 32).exit_code == 0
    assert [one.name for one in site.directory.iterdir()] == ["gate.hcl"]


def test_who_asks_leaves_no_line(site: Site) -> None:
    site.run("check", "--key", "ab" * 32)
    site.run("show", "--key", "ab" * 32)
    assert site.audited() == []


def test_a_registry_in_redis_needs_no_sql(site: Site) -> None:
    for words in (("schema",), ("schema", "--apply")):
        result = site.run(*words)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "registry devices is in Redis, which needs none\n"


def test_the_sql_of_a_registry_is_printed_without_the_database(site: Site) -> None:
    site.configure(text='registry "a" { url = "postgresql://gate:very-secret@127.0.0.1:1/a" }')
    result = site.run("schema")
    assert result.exit_code == 0
    assert result.stdout.startswith("BEGIN;\n")
    assert "\nCOMMIT;\n" in result.stdout
    assert '"mtlsgate_a"' in result.stdout
    site.configure(
        text='registry "a" {\n  url   = "postgresql://127.0.0.1:1/a"\n  table = "a b"\n}'
    )
    assert site.run("schema").exit_code == 2
