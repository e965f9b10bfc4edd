"""
StatusTaker: every number and name that the admin endpoint shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from twisted.internet.address import IPv4Address, UNIXAddress
from zope.interface.verify import verifyObject

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import view
from mtlsgate.gate.events import RejectedConnection, Reload
from mtlsgate.gate.terms import Terms
from mtlsgate.interfaces import IGate
from mtlsgate.load.loading import load
from mtlsgate.observe.connection_status import ConnectionSelection
from mtlsgate.observe.recent_rejections import KEPT, RecentRejections
from mtlsgate.reasons import Reason
from mtlsgate.run.control import GateHandle
from mtlsgate.testing import Authority, Version, self_signed
from tests.kits.admin import Running
from tests.kits.gate import Log
from tests.kits.pki import NOW, pki, server

ALL = ConnectionSelection()
TWO = server(
    'client_certificate "pinned" {\nca_certificate_file = "issuing.crt"\n'
    'leaf_certificate_file = "clients.crt"\n}\n'
    'client_certificate "root" {\nca_certificate_file = "root.crt"\n}\n'
    'server_certificate {\npublic_key_file = "server.crt"\nprivate_key_file = "server.key"\n}',
    label='"door"',
    hosts='["127.0.0.1:8443"]',
) + server(
    'client_authentication = "none"',
    label='"window"',
    hosts='["127.0.0.1:8444"]',
)


@pytest.fixture
def running(tmp_path: Path, log: Log) -> Iterator[Running]:
    limits = 'settings {\nmax_connections = 7\nidle_timeout = "8s"\n}\n'
    made = Running(tmp_path, limits + TWO)
    yield made
    made.stop()


def test_the_status_has_what_was_loaded(running: Running) -> None:
    """Servers, rules, pins, protocols, certificates with the days they have left, limits."""
    running.clock.advance(61)
    status = running.control.status().service
    assert (status.version, status.config) == ("1.2.3", str(running.site.config))
    assert (status.uptime, status.epoch, status.epoch_age) == (61, 1, 61)
    assert (status.ready, status.not_ready, status.draining) == (True, None, False)
    assert status.last_reload is None
    gate, window = status.servers
    assert (gate.name, gate.protocol, gate.hosts) == ("door", "echo", ("127.0.0.1:8443",))
    assert [(rule.name, rule.pins) for rule in gate.rules] == [("pinned", 2), ("root", 0)]
    first = min(one.certificate.not_valid_after_utc for one in (pki().client, pki().other))
    assert gate.rules[0].pins_days_left == (first - NOW).days
    assert (gate.rules[1].pins_days_left, gate.rules[1].crl_days_left) == (None, None)
    [issuing] = gate.rules[0].authorities
    assert issuing.subject == "CN=Issuing CA"
    assert issuing.sha256 == view(pki().issuing.certificate).sha256.hex()
    [shown] = gate.certificates
    assert shown.days_left == (pki().server.certificate.not_valid_after_utc - NOW).days
    assert gate.limits.max_connections == 7
    assert gate.limits.idle_timeout == 8
    assert gate.limits.max_handshakes is None
    assert gate.limits.handshake_timeout == 10
    assert (window.client_authentication, window.rules) == ("none", ())


def test_an_expired_certificate_has_negative_days(tmp_path: Path) -> None:
    """It is the days that are left, below zero once it is over."""
    late = pki().server.certificate.not_valid_after_utc + timedelta(days=2, hours=1)
    running = Running(tmp_path, TWO, now=late)
    assert running.control.status().service.servers[0].certificates[0].days_left == -3
    running.stop()


def test_connections_are_counted_and_told(running: Running, version: Version) -> None:
    """For each: whose it is, by which rule, what TLS, how many bytes."""
    bounds: Any = {"min_version": version, "max_version": version}
    client = running.client(pki().client, server_name="localhost", **bounds)
    anyone = running.client(None, 1, **bounds)
    client.send(b"knock")
    assert client.receive() == b"knock"
    running.clock.advance(3)
    found = running.control.status(ALL)
    first, second = found.connections
    assert (first.number, first.state, first.server) == (1, "admitted", "door")
    assert (first.rule, first.pin, first.subject) == ("pinned", None, "CN=client")
    assert first.sha256 == view(pki().client.certificate).sha256.hex()
    assert first.not_after == pki().client.certificate.not_valid_after_utc
    assert (first.received, first.sent) == (5, 5)
    assert (first.server_name, first.resumed, first.seconds) == ("localhost", False, 3)
    assert first.tls_version == second.tls_version == f"TLSv{version}"
    assert first.cipher
    assert second.cipher
    assert first.since == NOW
    assert first.idle is not None
    assert (second.server, second.rule, second.subject) == ("window", None, None)
    status = found.service
    assert (status.admitted, status.handshakes) == (2, 0)
    assert [(one.admitted, one.handshakes) for one in status.servers] == [(1, 0), (1, 0)]
    for one in (client, anyone):
        one.close()
    assert running.control.status().service.admitted == 0


def test_idleness_is_measured_from_the_last_byte(running: Running) -> None:
    """To a quarter of the idle timeout, and only where there is one."""
    client = running.client(pki().client)
    for _ in range(6):
        running.clock.advance(1)
        running.service.runner.connections.sweep()
    [told] = running.control.status(ALL).connections
    assert told.idle == 6
    client.send(b"knock")
    for _ in range(2):
        running.clock.advance(1)
        running.service.runner.connections.sweep()
    [told] = running.control.status(ALL).connections
    assert told.idle is not None
    assert told.idle <= 2
    client.close()


def test_a_handshake_is_a_connection_too(running: Running) -> None:
    """Who has said nothing yet is counted, and told as what it is."""
    connections = running.service.runner.connections
    entry = connections.arrive("x", "door", Terms(), IPv4Address("TCP", "192.0.2.1", 1))
    assert entry is not None
    [told] = running.control.status(ALL).connections
    assert (told.state, told.address, told.tls_version) == ("handshake", "192.0.2.1:1", None)
    assert (told.idle, told.received) == (None, 0)
    assert running.control.status().service.handshakes == 1
    connections.leave(entry)


def test_a_rejection_has_the_leaf_and_a_pin_to_paste(running: Running) -> None:
    """What was presented, and HCL that would pin it, which loads and then admits it."""
    running.client(pki().stranger)
    [told] = running.control.status().rejections
    assert (told.reason, told.server, told.number, told.depth) == ("unknown_ca", "door", 1, 0)
    assert told.leaf is not None
    assert told.leaf.subject == told.leaf.issuer == "CN=stranger"
    assert told.leaf.sha256 == view(pki().stranger.certificate).sha256.hex()
    assert told.leaf.serial_number == f"{pki().stranger.certificate.serial_number:x}"
    assert told.pin_block is not None
    running.site.write("gate.hcl", server(f"client_certificate {{\n{told.pin_block}\n}}"))
    [loaded] = load(str(running.site.config), now=lambda: NOW).servers
    admission = loaded.gate.context.admission
    assert admission is not None
    assert [pin.digest.hex() for pin in admission.rules[0].pins] == [told.leaf.sha256]


def test_no_certificate_no_leaf(running: Running) -> None:
    """Who presents none has none."""
    running.client(None)
    [told] = running.control.status().rejections
    assert (told.reason, told.leaf, told.pin_block) == ("no_certificate", None, None)


def rejection_of(
    leaf: x509.Certificate | None = None, detail: str = "", **more: Any
) -> RejectedConnection:
    return RejectedConnection(
        at=NOW,
        server="door",
        address=UNIXAddress(None),
        rejection=Rejection(Reason.UNKNOWN_CA, detail, 0),
        leaf=None if leaf is None else view(leaf),
        **more,
    )


def test_only_the_latest_are_remembered() -> None:
    """The oldest goes when there are too many; all are counted."""
    recent = RecentRejections()
    for number in range(KEPT + 5):
        recent.rejected(rejection_of(detail=str(number)))
    assert len(recent) == len(list(recent)) == KEPT
    assert recent.count == KEPT + 5
    details = [one.detail for one in recent]
    assert (details[0], details[-1]) == (str(KEPT + 4), "5")


def test_what_is_remembered_is_small() -> None:
    """Of a large leaf there is the digest; details are cut; connections are let go."""
    recent = RecentRejections()
    large = self_signed("x", dns_names=[f"{number}.example" for number in range(1000)])
    recent.rejected(rejection_of(large.certificate, "d" * 100_000, number=3))
    [told] = recent
    assert told.leaf is not None
    assert told.leaf.sha256 == view(large.certificate).sha256.hex()
    assert (told.leaf.subject, told.leaf.dns_names, told.pin_block) == (None, (), None)
    assert len(told.detail) == 1000
    assert told.number == 3
    [kept] = recent._kept
    assert kept.connection.leaf is None


def test_health_checks_are_not_worth_remembering_if_quiet() -> None:
    """As in the log."""
    recent = RecentRejections(quiet=True)
    gone = evolve(rejection_of(number=3), rejection=Rejection(Reason.PEER_GONE, "", None))
    recent.rejected(gone)
    assert (len(recent), recent.count) == (0, 0)
    recent.set_quiet(False)
    recent.rejected(gone)
    assert (len(recent), recent.count) == (1, 1)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\u202egnp", "[bold]x[/bold]", "\ud800"])
def test_names_are_safe_to_print(running: Running, name: str) -> None:
    """No control character and no direction override of a certificate or a
    client comes through."""
    if name != "\ud800":
        running.client(Authority.create("Other").issue(name))
    running.recent.rejected(rejection_of(detail=name, server_name=name))
    text = json.dumps(running.control.status(ALL).to_dict(), ensure_ascii=False)
    assert text.isprintable()


def test_a_broken_leaf_is_told_as_far_as_it_goes() -> None:
    """Of a certificate that does not parse on closer look, what does is shown."""
    leaf = x509.load_der_x509_certificate(_with_broken_subject())
    recent = RecentRejections()
    recent.rejected(rejection_of(leaf))
    [told] = recent
    assert told.leaf is not None
    assert told.leaf.subject == "CN=#ffffffffffffffffffffff"
    assert told.leaf.serial_number == f"{leaf.serial_number:x}"


def _with_broken_subject() -> bytes:
    der = self_signed("broken-name").der
    # The common name's second occurrence is the subject's: no UTF-8 any more.
    head, _, tail = der.rpartition(b"broken-name")
    return head + b"\xff" * 11 + tail


def test_reloads_are_told(running: Running) -> None:
    """The last attempt, with its problems."""
    failed = Reload(at=NOW, number=1, problems=("gate.hcl:1:1: x: y\x1b",))
    running.service.reloader._reloads.ended(failed)
    told = running.control.status().service.last_reload
    assert told is not None
    assert (told.succeeded, told.epoch, told.problems) == (False, 1, ("gate.hcl:1:1: x: y\\x1b",))


def test_all_of_it_is_json(running: Running) -> None:
    """to_dict is plain, with times as RFC 3339."""
    client = running.client(pki().client)
    running.client(pki().stranger)
    told = json.loads(json.dumps(running.control.status(ALL).to_dict()))
    assert set(told) == {"at", "service", "connections", "next", "rejections"}
    assert re.fullmatch(r"2026-06-15T12:00:00\+00:00", told["connections"][0]["since"])
    assert told["rejections"][0]["leaf"]["dns_names"] == []
    client.close()


def test_a_handle_without_a_gate() -> None:
    """Before the gate runs there is none to be had."""
    with pytest.raises(LookupError):
        GateHandle()()


def test_the_control_is_what_the_interface_says(running: Running) -> None:
    """So that a protocol of anybody's may rely on it."""
    assert verifyObject(IGate, running.control)
