"""One JSON line for each thing that happened, and no way to forge, break or swell one."""

from __future__ import annotations

import errno
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.logger import capturedLogs

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import view
from mtlsgate.errors import ConfigError
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import (
    Admission,
    AdmittedConnection,
    Arrival,
    ClosedConnection,
    Negotiated,
    RegistryChange,
    RejectedConnection,
    Reload,
)
from mtlsgate.load.loading import load
from mtlsgate.observe import audit
from mtlsgate.observe.audit import MAX_LINE, AuditLog
from mtlsgate.observe.capped import MAX_VALUE
from mtlsgate.observe.log_file import LogFile
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason
from mtlsgate.run.shadow import PAUSE
from mtlsgate.testing import Authority, Credential, Version, self_signed
from tests.kits.docs import DOCS, sections
from tests.kits.forgery import edited, present
from tests.kits.gate import Log, MemoryGate, rule
from tests.kits.service import ALICE, AUDITED, EVE, ROOT, RULE, server, today

AT = datetime(2026, 6, 15, 12, 0, 0, 7000, tzinfo=UTC)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Paper:
    """An audit log, its file, and what stands in it."""

    def __init__(self, path: Path) -> None:
        self.log = AuditLog(lambda: AT)
        self.path = path
        self.log.turn_to(LogFile(path, self.log._gap))

    def lines(self) -> list[dict[str, Any]]:
        """:returns: what each line says; each is one, and ASCII."""
        content = self.path.read_bytes()
        assert content.isascii()
        assert content.count(b"\n") == len(content.splitlines())
        assert all(len(line) < MAX_LINE for line in content.splitlines())
        return [json.loads(line) for line in content.splitlines()]


@pytest.fixture
def paper(tmp_path: Path) -> Paper:
    return Paper(tmp_path / "audit.log")


def audited(door_log: Log, paper: Paper, *rules: Any, **more: Any) -> MemoryGate:
    gate = MemoryGate(list(rules), door_log, **more)
    gate.entrance.connections = Connections(gate.clock, [*gate.entrance.connections.observers])
    gate.entrance.connections.observers += (paper.log,)
    return gate


HEAD = {"schema": 1, "epoch": 1}
LEAF = {
    "subject": "CN=alice",
    "issuer": "CN=Root,O=Example",
    "serial": "abc",
    "fingerprint": ALICE.sha256,
    "not_after": ALICE.certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
    "dns_names": ["a.example"],
    "uris": ["spiffe://td/alice"],
    "email_addresses": [],
    "ip_addresses": [],
}


def told(line: dict[str, Any]) -> dict[str, Any]:
    """:returns: a line without what differs from run to run."""
    assert TIME.fullmatch(line.pop("time"))
    assert re.fullmatch(r"[0-9a-f]{16}", line.pop("run"))
    return line


def test_in_and_out(log: Log, paper: Paper, version: Version) -> None:
    """Who came in, by what, on what terms of TLS; and how it ended, and what went through."""
    gate = audited(log, paper, rule("IOT", ca=ROOT), alpn=(b"mqtt",))
    client = gate.connect(ALICE, version, server_name="localhost", alpn=["mqtt"])
    client.send(b"knock")
    gate.clock.advance(1.5)
    client.close()
    came, went = map(told, paper.lines())
    assert came.pop("group")
    cipher = came.pop("cipher")
    assert cipher.startswith("TLS_" if version == "1.3" else "ECDHE-")
    both = {**HEAD, "connection": 1, "server": "door", "place": "", "truncated": False, **LEAF}
    both |= {"peer_address": "127.0.0.1:50000", "rule": "IOT", "pin": None}
    both |= {"target": None, "uid": None}
    assert came == both | {
        "event": "admitted",
        "sni": "localhost",
        "tls_version": f"TLSv{version}",
        "alpn": "mqtt",
        "resumed": False,
        "seconds": 0.0,
    }
    assert went == both | {
        "event": "closed",
        "cause": "client",
        "reason": None,
        "detail": "",
        "seconds": 1.5,
        "bytes_received": 5,
        "bytes_sent": 5,
    }


@pytest.mark.parametrize("who", [ALICE, EVE, None], ids=["judged", "verified", "nobody"])
def test_turned_away(log: Log, paper: Paper, version: Version, who: Credential | None) -> None:
    """Why, at which depth, and what was presented; null where nothing was."""
    gate = audited(log, paper, rule(ca=ROOT, pins=ROOT.issue("x")))
    gate.try_in(who, version, server_name="localhost")
    [line] = map(told, paper.lines())
    reason = {ALICE: "leaf_mismatch", EVE: "unknown_ca", None: "no_certificate"}[who]
    assert line.pop("detail")
    assert line["fingerprint"] == (None if who is None else who.sha256)
    assert set(line) >= set(LEAF)
    assert {name: value for name, value in line.items() if name not in LEAF} == {
        **HEAD,
        "event": "rejected",
        "connection": 1,
        "server": "door",
        "place": "",
        "peer_address": "127.0.0.1:50000",
        "reason": reason,
        "depth": None if who is None else 0,
        "sni": "localhost",
        "tls_version": f"TLSv{version}",
        "health_check": False,
        "seconds": 0.0,
        "truncated": False,
    }


def test_without_client_certificates_tls_is_still_told(
    log: Log, paper: Paper, version: Version
) -> None:
    """Where no certificate is asked for, TLS is told all the same."""
    gate = MemoryGate(None, log)
    gate.entrance.connections.observers += (paper.log,)
    gate.connect(None, version).send(b"knock")
    [line] = paper.lines()
    assert (line["rule"], line["fingerprint"], line["dns_names"]) == (None, None, None)
    assert (line["tls_version"], line["alpn"]) == (f"TLSv{version}", None)
    assert line["cipher"]
    assert line["group"]


def test_a_pin_with_a_name(paper: Paper, tmp_path: Path) -> None:
    """Is named when it lets in and when the connection ends."""
    tls = 'client_certificate "fleet" {\n pin "one" {\n leaf_certificate_file = "p.crt"\n}\n}'
    leaf = self_signed("pinned")
    (tmp_path / "p.crt").write_bytes(leaf.pem)
    running = today(tmp_path, AUDITED + server(tls=tls))
    running.handshake(leaf).close()
    assert [(one["rule"], one["pin"]) for one in running.audited()] == [("fleet", "one")] * 2


def test_health_checks_are_told_apart(log: Log, paper: Paper) -> None:
    """They are in the audit log whether or not the human log is quiet."""
    gate = audited(log, paper, rule(ca=ROOT))
    gate.connect(None).reset()
    [line] = paper.lines()
    assert (line["event"], line["reason"], line["health_check"]) == ("rejected", "peer_gone", True)


def test_kept_out_as_it_came(paper: Paper) -> None:
    """Such a client has no number, and no leaf."""
    rejection = Rejection(Reason.TOO_MANY_CONNECTIONS, "many")
    paper.log.rejected(
        RejectedConnection(at=AT, server="door", address=UNIXAddress(b"x"), rejection=rejection)
    )
    [line] = paper.lines()
    assert (line["connection"], line["place"], line["subject"]) == (None, None, None)
    assert (line["peer_address"], line["time"]) == ("unix:x", "2026-06-15T12:00:00.007Z")


def test_times_are_in_utc(paper: Paper) -> None:
    """Whatever the zone of who tells them."""
    paper.log.reloaded(Reload(at=datetime.fromisoformat("2026-06-15T14:00:00+02:00"), number=1))
    assert paper.lines()[0]["time"] == "2026-06-15T12:00:00.000Z"


def test_missing_lines_are_a_line(tmp_path: Path) -> None:
    """Who reads the log knows where it has a gap."""
    paper = Paper(tmp_path / "audit.log")
    failures = [OSError(errno.ENOSPC, "No space left on device")] * 2

    def write(descriptor: int, data: bytes) -> int:
        if failures:
            raise failures.pop()
        return os.write(descriptor, data)

    paper.log.turn_to(LogFile(paper.path, paper.log._gap, write=write))
    for number in range(1, 4):
        paper.log.reloaded(Reload(at=AT, number=number))
    gap, line = map(told, paper.lines())
    assert gap == {"schema": 1, "event": "lost", "epoch": 3, "lines": 2}
    assert (line["event"], line["epoch"]) == ("reload", 3)
    assert paper.log.lost == 2
    paper.log.turn_to(None)
    assert paper.log.lost == 2


# What strangers send


ADDRESS = IPv4Address("TCP", "127.0.0.1", 1)

hostile_text = st.text(max_size=2000) | st.sampled_from(
    ['"}\n{"event":"admitted"', "\ud800", "\udcff", "\u2028\u202e\x85\x00\x1b[2J", "\\u000a"]
)


def connection_of(text: str, peer: VerifiedPeer | None = None) -> AdmittedConnection:
    arrival = Arrival(number=1, listener=text, address=ADDRESS, at=AT, began=0.0)
    peer = peer or peer_of(ALICE, text)
    negotiated = Negotiated(server_name=text, tls_version="TLSv1.3", cipher="x", alpn=text)
    admission = Admission(peer=peer, identity=None, pin=None, negotiated=negotiated, since=0.25)
    return AdmittedConnection(arrival=arrival, server=text, admission=admission)


def peer_of(who: Credential, text: str) -> VerifiedPeer:
    return VerifiedPeer(
        path=(who.certificate,),
        rule=text,
        address=ADDRESS,
        server_name=text,
        tls_version="TLSv1.3",
        cipher="x",
        group=None,
        alpn=text,
    )


@settings(max_examples=60)
@given(hostile_text)
def test_no_text_makes_another_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Wherever it stands: each event is one line of JSON, with its own fields and bounded."""
    paper = Paper(tmp_path_factory.mktemp("audit") / "audit.log")
    connection = connection_of(text)
    rejection = Rejection(Reason.NOT_TLS, text)
    paper.log.admitted(connection)
    paper.log.rejected(
        RejectedConnection(
            at=AT,
            server=text,
            address=ADDRESS,
            rejection=rejection,
            server_name=text,
            leaf=view(EVE.certificate),
        )
    )
    paper.log.closed(
        ClosedConnection(
            at=AT,
            connection=connection,
            cause=Cause.CLIENT,
            detail=text,
            seconds=1,
            received=1,
            sent=1,
        )
    )
    lines = paper.lines()
    assert [line["event"] for line in lines] == ["admitted", "rejected", "closed"]
    sound = text.encode(errors="backslashreplace").decode()
    is_long = len(json.dumps(sound)) - 2 > MAX_VALUE
    assert {line["truncated"] for line in lines} == {is_long}
    if is_long:
        for value in (lines[0]["sni"], lines[1]["detail"], lines[2]["rule"]):
            assert len(json.dumps(value)) - 2 <= MAX_VALUE
            kept, mark, length = value.rpartition("… (")
            assert sound.startswith(kept)
            assert (mark, length) == ("… (", f"{len(text)} characters)")
    else:
        assert lines[0]["sni"] == lines[1]["detail"] == lines[2]["rule"] == sound


#: CN holds 64 bytes at most.
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)


@settings(max_examples=25)
@given(names, st.lists(st.text(st.characters(max_codepoint=127), max_size=300), max_size=12))
def test_no_certificate_makes_another_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, alternatives: list[str]
) -> None:
    """Be it a stranger's, or one that is let in."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] * 3)
    extension = x509.SubjectAlternativeName(
        [kind(one) for one in alternatives for kind in (x509.DNSName, _uri)]
    )
    leaf = ROOT.issue(None, subject=subject, extra_extensions=[(extension, False)])
    paper = Paper(tmp_path_factory.mktemp("audit") / "audit.log")
    paper.log.admitted(connection_of("x", peer_of(leaf, "rule")))
    rejection = Rejection(Reason.UNKNOWN_CA, "", 0)
    paper.log.rejected(
        RejectedConnection(
            at=AT,
            server="x",
            address=ADDRESS,
            rejection=rejection,
            leaf=view(leaf.certificate),
        )
    )
    one, other = paper.lines()
    assert one["fingerprint"] == other["fingerprint"] == leaf.sha256
    assert one["subject"] == other["subject"]
    if not one["truncated"]:
        assert one["uris"] == alternatives


def _uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def test_a_certificate_of_thousands_of_names(paper: Paper, log: Log, version: Version) -> None:
    """Its line has no more than fits, and says so; of a stranger's none are read."""
    many = [f"{number}.device.example" for number in range(1500)]
    stranger = Authority.create("Other").issue("x", dns_names=many)
    gate = audited(log, paper, rule(ca=ROOT))
    gate.connect(ROOT.issue("x", dns_names=many), version).send(b"")
    gate.connect(stranger, version).send(b"")
    came, refused = paper.lines()
    assert came["truncated"]
    assert refused["truncated"]
    assert refused["dns_names"] is None
    assert came["dns_names"] == many[: len(came["dns_names"])]
    assert 100 < len(came["dns_names"]) < 250


def test_names_can_be_empty(paper: Paper) -> None:
    """A list of thousands of nothings is bounded as well."""
    extension = x509.SubjectAlternativeName([x509.DNSName("")] * 20000)
    leaf = ROOT.issue("x", extra_extensions=[(extension, False)])
    paper.log.admitted(connection_of("x", peer_of(leaf, "rule")))
    [line] = paper.lines()
    assert line["truncated"]
    assert len(line["dns_names"]) < 1400


def test_the_longest_line(paper: Paper) -> None:
    """Of characters that take the most room, in all places at once."""
    text = "\U0001f600" * 1000
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "\U0001f600" * 15) for _ in range(40)]
    )
    general = [kind("\x01" * 900) for kind in (x509.DNSName, _uri, x509.RFC822Name)]
    extension = x509.SubjectAlternativeName(general)
    leaf = self_signed(None, subject=subject, extra_extensions=[(extension, False)])
    paper.log.admitted(connection_of(text, peer_of(leaf, text)))
    [line] = paper.lines()
    assert line["truncated"]
    for name in ("dns_names", "uris", "email_addresses"):
        [value] = line[name]
        assert value.startswith("\x01" * 600)
        assert value.endswith("… (900 characters)")


def test_names_that_do_not_parse(paper: Paper, log: Log, version: Version) -> None:
    """What of them is no text is told in hex."""
    leaf = ROOT.issue("leafleaf")
    for authority in (ROOT, Authority.create("Other")):
        gate = audited(log, paper, rule(ca=authority))
        client = gate.connect(leaf, version)
        present(client.connection, edited(ROOT, leaf, b"\x0c\x08leafleaf", b"\x03\x08\x00eafleaf"))
        client.handshake()
    for line in paper.lines():
        assert line["subject"] == "CN=#006561666c656166"
        assert line["issuer"] == "CN=Root,O=Example"
        assert line["dns_names"] == []


def test_no_key_and_no_pem(tmp_path: Path) -> None:
    """Whatever happens, nothing in the log is key material or a certificate."""
    running = today(tmp_path, AUDITED + server())
    running.handshake(ALICE).close()
    running.handshake(EVE)
    running.reload("settings {\n" + (tmp_path / "s.key").read_text())
    running.reload(AUDITED + server(tls=""))
    content = (tmp_path / "audit.log").read_text()
    assert "-----" not in content
    for secret in ((tmp_path / "s.key").read_text(), ALICE.pem.decode()):
        assert secret.splitlines()[1][:40] not in content


# Reloads


def test_a_reload_tells_what_changed_and_whom_it_dropped(tmp_path: Path) -> None:
    """What changed, who was dropped by a trial, why it failed; and under which epoch all else."""
    running = today(tmp_path, AUDITED + server())
    running.handshake(ALICE)
    running.reload("nonsense")
    running.handshake(EVE)
    denied = server(tls='deny {\n common_names = ["alice"]\n }\n' + RULE)
    running.reload(AUDITED + denied, is_trial=True)
    running.reload(AUDITED + denied)
    lines = running.audited()
    assert [(one["event"], one["epoch"]) for one in lines] == [
        ("admitted", 1),
        ("reload", 1),
        ("rejected", 1),
        ("reload", 1),
        ("reload", 2),
        ("closed", 2),
    ]
    failed, trial, done = (one for one in lines if one["event"] == "reload")
    assert (failed["result"], failed["trial"], failed["changes"]) == ("failed", False, [])
    assert failed["problems"][0].startswith(f"{tmp_path}/gate.hcl:1:")
    assert (trial["result"], trial["trial"]) == ("ok", True)
    [dropped] = trial["dropped"]
    assert re.fullmatch(r"door: \S+: denied: .*", dropped)
    assert (done["result"], done["trial"]) == ("ok", False)
    assert done["changes"] == trial["changes"] == ["server door: another deny"]
    assert (lines[-1]["cause"], lines[-1]["reason"]) == ("no_longer_admitted", "denied")
    assert lines[-1]["detail"].startswith("denied: ")


def test_a_long_reload_is_bounded(paper: Paper) -> None:
    """Ten thousand changes do not make a line of ten thousand."""
    paper.log.reloaded(Reload(at=AT, number=2, changes=("pin added" * 10,) * 10000))
    [line] = paper.lines()
    assert line["truncated"]
    assert 50 < len(line["changes"]) < 100


def test_it_follows_the_configuration(tmp_path: Path) -> None:
    """A reload turns it on, moves it, and turns it off; nothing is written to two files."""
    running = today(tmp_path, server())
    running.handshake(ALICE)
    assert not (tmp_path / "audit.log").exists()
    running.reload(AUDITED + server())
    running.handshake(ALICE)
    running.reload(AUDITED.replace("audit.log", "other.log") + server())
    running.handshake(ALICE)
    running.reload(server())
    running.handshake(ALICE)
    assert [one["event"] for one in running.audited()] == ["reload", "admitted"]
    assert [one["event"] for one in running.audited("other.log")] == ["reload", "admitted"]
    assert running.service.observers.audit.lost == 0


def test_a_reload_that_cannot_open_it_is_refused(tmp_path: Path) -> None:
    """The old epoch and its audit log stay; so they do where an address cannot be had."""
    running = today(tmp_path, AUDITED + server())
    report = running.reload(AUDITED.replace("audit.log", "no/such.log") + server())
    assert report.problems == (
        f'{tmp_path}/gate.hcl:3:12: audit: file: "no/such.log" cannot be opened for writing: '
        "No such file or directory",
    )
    taken = server("other").replace("unix:other.sock", "192.0.2.1:1")
    report = running.reload(AUDITED.replace("audit.log", "new.log") + server() + taken)
    assert "192.0.2.1:1" in report.problems[0]
    running.handshake(ALICE)
    assert [one["event"] for one in running.audited()] == ["reload", "reload", "admitted"]
    assert not (tmp_path / "new.log").exists()


def test_quiet_follows_the_configuration_too(tmp_path: Path) -> None:
    """In the human log, and in that alone."""
    quiet = AUDITED.replace("audit {", "quiet = true\n  audit {", 1)
    running = today(tmp_path, AUDITED + server())
    said = []
    for text in (AUDITED, quiet, AUDITED):
        running.reload(text + server())
        with capturedLogs() as events:
            running.connect().reset()
        said.append(sum(one.get("reason") == "peer_gone" for one in events))
    assert said == [1, 0, 1]
    assert sum(one.get("health_check", False) for one in running.audited()) == 3


def test_it_is_closed_at_the_end(tmp_path: Path) -> None:
    """After the last connection, whose end is still in it."""
    running = today(tmp_path, AUDITED + server())
    running.handshake(ALICE)
    stranger = running.connect(EVE)
    done: list[object] = []
    running.service.stopService().addCallback(done.append)
    stranger.handshake()
    assert not done
    running.reactor.advance(10)
    assert done
    running.service.observers.audit.reloaded(Reload(at=AT, number=9))
    lines = running.audited()
    assert [one["event"] for one in lines] == ["admitted", "rejected", "closed"]
    assert lines[-1]["cause"] == "drained"


# What is refused at load


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/such.log", "cannot be opened for writing: No such file or directory"),
        (".", "cannot be opened for writing: Is a directory"),
        ("a\\u0000b", "cannot be opened for writing: .*embedded null .*"),
    ],
)
def test_a_path_that_cannot_be_opened(tmp_path: Path, name: str, said: str) -> None:
    """Is a located error at start."""
    with pytest.raises(ConfigError) as caught:
        today(tmp_path, AUDITED.replace("audit.log", name) + server())
    [problem] = caught.value.problems
    assert (problem.at.line, problem.at.column, problem.where) == (3, 12, "audit")
    assert re.search(f"{said}$", problem.text)
    assert str(problem).isprintable()


@pytest.mark.parametrize("name", ["ca.crt", "./s.key", "gate.hcl", "link"])
def test_it_must_not_be_what_is_read(tmp_path: Path, name: str) -> None:
    """A key with a log at its end would be the end of the gate; `check` says so, too."""
    (tmp_path / "link").symlink_to("ca.crt")
    with pytest.raises(ConfigError, match="is read as part of the configuration"):
        today(tmp_path, AUDITED.replace("audit.log", name) + server())
    assert (tmp_path / "ca.crt").read_bytes() == ROOT.pem


def test_loading_alone_opens_nothing(tmp_path: Path) -> None:
    """`check` leaves no file behind."""
    running = today(tmp_path, server())
    running.configure(AUDITED + server())
    assert load(str(running.site.config)).settings.audit is not None
    assert not (tmp_path / "audit.log").exists()


# The page


def fields_on_the_page(heading: str) -> list[str]:
    text = sections(DOCS / "audit.md", 3)[heading]
    return [
        name
        for cell in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    ]


@pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")
def test_the_page_has_every_field(tmp_path: Path) -> None:
    """audit.md has the fields of each event, all of them and no others."""
    running = today(tmp_path, AUDITED + server())
    running.handshake(ALICE).close()
    running.handshake(EVE)
    running.reload(AUDITED + server())
    running.site.write("next.hcl", server(tls='client_authentication = "none"'))
    running.shadow.put("next.hcl")
    running.handshake(EVE)
    running.reactor.advance(PAUSE)
    log = running.service.observers.audit
    now = datetime.now(UTC)
    log.registry_changed(RegistryChange(at=now, action="deny", who="root", registry="devices"))
    with (tmp_path / "audit.log").open("ab") as file:
        file.write(log._gap(3))
    seen = {line["event"]: list(line) for line in running.audited()}
    assert set(seen) == {"admitted", "rejected", "closed", "reload", "registry", "shadow", "lost"}
    common, leaf = fields_on_the_page("All events"), fields_on_the_page("The leaf")
    for event, names in seen.items():
        own = fields_on_the_page(event)
        has_leaf = event in ("admitted", "rejected", "closed", "shadow")
        expected = common + own + (leaf if has_leaf else [])
        assert sorted(names) == sorted(expected), event
    page = (DOCS / "audit.md").read_text()
    for number in (MAX_VALUE, audit.MAX_REPORT, audit.MAX_STRANGER // 1024):
        assert re.search(rf"\b{number:,}\b", page), number
