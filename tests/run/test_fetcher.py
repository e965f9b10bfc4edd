"""Revocation lists by URL: when they are fetched, what is accepted, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from zope.interface import directlyProvides, providedBy

from mtlsgate.clock import utc_now
from mtlsgate.interfaces import IRetirable
from mtlsgate.load.state import KeptDocuments
from mtlsgate.reasons import Reason
from mtlsgate.run.fetcher import LONGEST_DELAY, SHORTEST
from mtlsgate.testing import Authority
from mtlsgate.tls.client import system_store
from tests.kits.gate import Log
from tests.kits.ocsp import REVOKED, response, with_responder
from tests.kits.revocation import crl, der, pem
from tests.kits.service import Documents, MemoryService, a_server

URL = "http://ca.example/fleet.crl"
#: OpenSSL judges certificates by the real time.
NOW = utc_now().replace(microsecond=0)
CA = Authority.create("Fleet")
ALICE, BOB = CA.issue("alice"), CA.issue("bob")
HOUR = timedelta(hours=1)
LONGEST = 3600.0


def rules(more: str = f'crl_url = "{URL}"') -> str:
    return f'client_certificate "fleet" {{\nca_certificate_file = "fleet.crt"\n{more}\n}}'


def fleet_list(*revoked: Any, age: timedelta = HOUR, number: int = 1, **options: Any) -> bytes:
    """:returns: a list of the fleet's CA, issued so long before now."""
    return der(crl(CA, revoked, now=NOW, this_update=NOW - age, number=number, **options))


class Gate:
    """
    A service whose clock a test moves.

    :ivar documents: what can be fetched.
    """

    def __init__(self, directory: Path, kept: KeptDocuments | None = None, more: str = "") -> None:
        (directory / "fleet.crt").write_bytes(CA.pem)
        self.documents = Documents(kept=kept or KeptDocuments())
        self._directory, self._more = directory, more
        self.at = NOW

    def start(self, **documents: bytes | Exception) -> MemoryService:
        self.service = MemoryService(
            self._directory,
            self._more + a_server(rules=rules()),
            now=lambda: self.at,
            documents=self.documents,
        )
        self.service.service.fetcher.startService()
        return self.service

    def offer(self, document: bytes | Exception) -> None:
        self.documents.found[URL] = document

    def advance(self, seconds: float) -> None:
        """Let time pass, of both clocks."""
        self.at += timedelta(seconds=seconds)
        self.service.reactor.advance(seconds)
        self.service.reactor.pump([0.0] * 20)

    def fetch(self) -> None:
        """Let time pass until it is fetched again."""
        before = len(self.documents.asked)
        for _ in range(200):
            if len(self.documents.asked) > before:
                return
            self.advance(30)
        raise AssertionError("nothing was fetched")

    def waits(self, count: int) -> list[float]:
        """:returns: the seconds between fetches, the next ones."""
        found = []
        for _ in range(count):
            before, waited = len(self.documents.asked), 0.0
            while len(self.documents.asked) == before:
                self.advance(15)
                waited += 15
            found.append(waited)
        return found

    def reason(self, who: Any = ALICE) -> Reason | None:
        """:returns: why a client is rejected, or None if it is admitted."""
        client = self.service.connect(who)
        client.send(b"knock")
        if client.receive() == b"knock":
            client.close()
            return None
        return Reason(next(iter(self.service.service.observers.recent)).reason)

    @property
    def problem(self) -> str | None:
        [state] = self.service.service.fetcher.states()
        return state.problem


@pytest.fixture
def gate(tmp_path: Path, log: Log) -> Gate:
    return Gate(tmp_path)


def test_it_fails_closed_until_the_first_list_has_come(gate: Gate) -> None:
    """The gate starts, rejects the rule's clients as `crl_missing`, and is not ready; when
    the list comes, it admits whom the list does not name."""
    service = gate.start()
    assert gate.reason() is Reason.CRL_MISSING
    assert service.service.not_ready == "waiting for a revocation list"
    [waiting] = gate.documents.waiting
    waiting.callback(fleet_list(BOB))
    assert service.service.not_ready is None
    assert gate.reason(ALICE) is None
    assert gate.reason(BOB) is Reason.REVOKED


def test_an_unreachable_url_keeps_closed_but_not_unready(gate: Gate) -> None:
    """After the first attempt the gate is ready: other rules may admit clients."""
    gate.offer(OSError("connection refused"))
    service = gate.start()
    assert service.service.not_ready is None
    assert gate.reason() is Reason.CRL_MISSING
    assert gate.problem == "connection refused"
    gate.offer(fleet_list())
    gate.fetch()
    assert gate.problem is None
    assert gate.reason() is None


def test_a_list_is_kept_over_a_restart(gate: Gate, tmp_path: Path) -> None:
    """It is in force from the start, without a network; in the state directory there is
    nothing else."""
    document = fleet_list(BOB)
    gate.offer(document)
    gate.start()
    [kept] = (tmp_path / "state").iterdir()
    assert kept.read_bytes() == document
    assert kept.stat().st_mode & 0o777 == 0o644
    again = Gate(tmp_path)
    again.offer(OSError("no network"))
    again.start()
    assert again.service.service.not_ready is None
    assert again.reason(ALICE) is None
    assert again.reason(BOB) is Reason.REVOKED


def test_what_was_kept_is_in_force_after_a_reload(gate: Gate) -> None:
    gate.offer(fleet_list(BOB))
    service = gate.start()
    assert not service.reload().problems
    assert gate.reason(BOB) is Reason.REVOKED
    assert gate.reason(ALICE) is None


@pytest.mark.parametrize("what", ["garbage", "a delta"])
def test_a_kept_file_that_is_damaged_is_as_none(gate: Gate, tmp_path: Path, what: str) -> None:
    """The gate starts, and fetches another."""
    gate.offer(fleet_list())
    gate.start()
    [kept] = (tmp_path / "state").iterdir()
    kept.write_bytes(REFUSED[what][0]())
    again = Gate(tmp_path)
    again.start()
    assert again.reason() is Reason.CRL_MISSING
    again.documents.waiting[0].callback(fleet_list())
    assert again.reason() is None


def test_revoked_clients_are_ejected_at_once(gate: Gate) -> None:
    """Connected clients are judged by the new list in the turn in which it comes; the others
    do not notice, and the application is neither retired nor started again."""
    gate.offer(fleet_list())
    service = gate.start()
    alice, bob = service.enter(ALICE), service.enter(BOB)
    epoch = service.service.runner.number
    gate.offer(fleet_list(BOB, age=HOUR / 2, number=2))
    gate.fetch()
    assert bob.disconnected
    alice.send(b"still here")
    assert alice.receive() == b"still here"
    assert gate.reason(BOB) is Reason.REVOKED
    assert service.service.runner.number == epoch
    assert service.service.reloader.last is None


def test_an_application_goes_on(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new list is no new configuration: the application hears nothing of it."""
    calls: list[str] = []
    gate.offer(fleet_list())
    service = gate.start()
    application: Any = service.service.runner.epoch.servers[0].gate.application
    monkeypatch.setattr(application, "startFactory", lambda: calls.append("start"))
    monkeypatch.setattr(application, "stopFactory", lambda: calls.append("stop"))
    ports = application.numPorts
    gate.offer(fleet_list(age=HOUR / 2, number=2))
    gate.fetch()
    assert (calls, application.numPorts) == ([], ports)


def test_an_application_that_does_not_start_again_goes_on(
    gate: Gate, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing has changed: the list is tried again later, and nobody is retired."""
    calls: list[str] = []
    gate.offer(fleet_list())
    service = gate.start()
    applications = [one.gate.application for one in service.service.runner.epoch.servers]
    application: Any = applications[0]
    directlyProvides(application, providedBy(application), IRetirable)
    application.retire = lambda: calls.append("retire")

    def fail() -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(application, "doStart", fail)
        gate.offer(fleet_list(BOB, age=HOUR / 2, number=2))
        gate.fetch()
    log.expect_failure(ZeroDivisionError)
    assert "a protocol failed to start" in (gate.problem or "")
    assert calls == []
    assert gate.reason(BOB) is None
    gate.fetch()
    assert gate.reason(BOB) is Reason.REVOKED
    assert calls == []


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "garbage": (lambda: b"<html>", "what came is neither PEM nor DER"),
    "older": (lambda: fleet_list(age=2 * HOUR), "is older than"),
    "lower number": (lambda: fleet_list(number=0), "is older than"),
    "forged": (
        lambda: der(crl(Authority.create("Fleet"), now=NOW, this_update=NOW - HOUR / 2, number=9)),
        "is by another CA of that name",
    ),
    "of another CA": (
        lambda: der(crl(Authority.create("Other"), now=NOW, this_update=NOW - HOUR / 2)),
        "is by none of the rule's CAs",
    ),
    "expired": (
        lambda: fleet_list(age=HOUR / 2, number=2, next_update=NOW - HOUR / 4),
        "expired at",
    ),
    "of tomorrow": (
        lambda: fleet_list(age=-24 * HOUR, number=2, next_update=NOW + 9 * 24 * HOUR),
        "is not yet valid",
    ),
    "a delta": (
        lambda: fleet_list(age=HOUR / 2, number=2, extensions=[(x509.DeltaCRLIndicator(1), True)]),
        "a complete one is needed",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_must_not_replace_a_list_does_not(gate: Gate, tmp_path: Path, kind: str) -> None:
    """The one in force stays, here and on disk, and the log, the status and the metrics say
    why."""
    document = fleet_list(BOB)
    gate.offer(document)
    service = gate.start()
    make, words = REFUSED[kind]
    gate.offer(make())
    gate.fetch()
    assert words in (gate.problem or "")
    assert gate.reason(BOB) is Reason.REVOKED
    assert gate.reason(ALICE) is None
    [kept] = (tmp_path / "state").iterdir()
    assert kept.read_bytes() == document
    [status] = service.taker.take().service.fetches
    assert (status.url, status.failures) == (URL, 1)
    assert words in (status.problem or "")
    assert service.metrics()[f'mtlsgate_fetch_failures{{url="{URL}"}}'] == 1


def test_the_last_good_one_counts_to_its_own_end(gate: Gate) -> None:
    """While nothing can be fetched it stays in force; after its nextUpdate it fails
    closed."""
    gate.offer(fleet_list(next_update=NOW + 3 * HOUR))
    gate.start()
    gate.offer(OSError("no network"))
    gate.advance(2.9 * 3600)
    assert gate.reason() is None
    gate.advance(0.2 * 3600)
    assert gate.reason() is Reason.CRL_EXPIRED


def test_it_is_fetched_before_its_end_and_every_hour(gate: Gate) -> None:
    """After half of the remaining time, but neither more often than every minute nor more
    seldom than every hour."""
    gate.offer(fleet_list())
    gate.start()
    asked = gate.documents.asked
    gate.advance(LONGEST - 1)
    assert len(asked) == 1
    gate.advance(1)
    assert len(asked) == 2


def test_the_end_of_a_list_hastens_its_fetches(gate: Gate) -> None:
    gate.offer(fleet_list(next_update=NOW + timedelta(minutes=40)))
    gate.start()
    assert gate.waits(5) == [1200, 600, 300, 150, 75]
    assert gate.waits(1) == [SHORTEST]


def test_failures_are_tried_again_with_growing_delays(gate: Gate) -> None:
    """After a minute, two, four, and so on, up to a quarter of an hour."""
    gate.offer(OSError("no network"))
    gate.start()
    assert gate.waits(7) == [60, 120, 240, 480, 900, 900, 900]
    assert (SHORTEST, LONGEST_DELAY) == (60, 900)


def test_a_reload_fetches_at_once(gate: Gate) -> None:
    """Whoever has just revoked a certificate need not wait for an hour."""
    gate.offer(fleet_list())
    service = gate.start()
    gate.offer(fleet_list(BOB, age=HOUR / 2, number=2))
    assert not service.reload().problems
    gate.advance(1)
    assert gate.reason(BOB) is Reason.REVOKED


def test_the_same_list_again_changes_nothing(gate: Gate, log: Log) -> None:
    gate.offer(fleet_list())
    service = gate.start()
    epoch = service.service.runner.epoch
    gate.fetch()
    assert service.service.runner.epoch is epoch
    assert gate.problem is None


def test_a_disk_that_is_full_does_not_keep_a_list_from_counting(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in memory, over reloads, too, and the log says what a restart means."""
    (tmp_path / "state").write_text("a file where the directory should be")
    gate.offer(fleet_list(BOB))
    service = gate.start()
    assert gate.reason(BOB) is Reason.REVOKED
    assert not service.reload().problems
    assert gate.reason(BOB) is Reason.REVOKED
    assert gate.reason(ALICE) is None


def test_a_reload_that_brings_an_older_list_back_is_mended(gate: Gate) -> None:
    """An epoch that was loaded before the latest list came takes over after it."""
    gate.offer(fleet_list())
    service = gate.start()
    before = service.service.runner.epoch
    gate.offer(fleet_list(BOB, age=HOUR / 2, number=2))
    gate.fetch()
    service.service.runner.take_over(before)
    gate.advance(1)
    assert gate.reason(BOB) is Reason.REVOKED


def test_an_older_list_that_cannot_be_mended_is_no_reason_to_ask_on_and_on(gate: Gate) -> None:
    """The server is down: it is asked with growing delays, as ever."""
    gate.offer(fleet_list())
    service = gate.start()
    before = service.service.runner.epoch
    gate.offer(fleet_list(BOB, age=HOUR / 2, number=2))
    gate.fetch()
    gate.offer(OSError("no network"))
    service.service.runner.take_over(before)
    gate.advance(1)
    assert gate.waits(3) == [60, 120, 240]


def test_a_rule_that_goes_takes_its_document_with_it(gate: Gate) -> None:
    """It is not fetched any more, and what comes late does no harm."""
    service = gate.start()
    assert not service.reload(a_server(rules=rules(""))).problems
    gate.documents.waiting[0].callback(fleet_list())
    asked = len(gate.documents.asked)
    gate.advance(2 * LONGEST)
    assert len(gate.documents.asked) == asked
    assert service.service.fetcher.states() == ()


def test_lists_of_intermediates_come_by_https(tmp_path: Path, log: Log) -> None:
    """Nothing verifies them before a client brings the intermediate, so by http anybody
    could keep its clients out."""
    gate = Gate(tmp_path)
    issuing = CA.intermediate("Issuing")
    carol = issuing.issue("carol")
    document = pem(crl(CA, now=NOW)) + pem(crl(issuing, [carol], now=NOW))
    gate.offer(document)
    gate.start()
    assert "fetch it by https" in (gate.problem or "")
    https = URL.replace("http:", "https:")
    gate.documents.found[https] = document
    text = a_server(rules=rules(f'crl_url = ["{https}"]'))
    assert not gate.service.reload(text).problems
    gate.advance(1)
    assert gate.reason(carol) is Reason.REVOKED
    assert gate.reason(issuing.issue("dave")) is None


def test_settings_say_where_lists_are_kept(tmp_path: Path, log: Log) -> None:
    (tmp_path / "elsewhere").mkdir()
    gate = Gate(tmp_path, more='settings {\nstate_dir = "elsewhere"\n}\n')
    gate.offer(fleet_list())
    gate.start()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    assert not (tmp_path / "state").exists()


RESPONDER = "http://ocsp.example/"
WEB = with_responder(CA, RESPONDER)


def stapling_server(directory: Path) -> str:
    """:returns: a server whose certificate is to be stapled."""
    (directory / "web.crt").write_bytes(WEB.pem)
    (directory / "web.key").write_bytes(WEB.key_pem)
    (directory / "web.key").chmod(0o600)
    (directory / "fleet.crt").write_bytes(CA.pem)
    text = a_server(rules=rules(""), certificate="web")
    return text.replace('"web.key"', '"web.key"\nocsp_stapling = true')


def staple(service: MemoryService) -> bytes | None:
    """:returns: the response in force."""
    [credential] = service.service.runner.epoch.servers[0].gate.context.policy.credentials
    assert credential.stapling is not None
    found = credential.stapling.response
    return None if found is None else found.der


def test_an_ocsp_response_is_fetched_and_kept(tmp_path: Path, log: Log) -> None:
    """It never keeps anybody waiting: the gate is ready, and admits clients, without one."""
    documents = Documents()
    service = MemoryService(
        tmp_path, stapling_server(tmp_path), now=lambda: NOW, documents=documents
    )
    service.service.fetcher.startService()
    assert documents.asked == [RESPONDER]
    assert service.service.not_ready is None
    assert staple(service) is None
    service.enter(ALICE)
    document = response(WEB, CA, now=NOW)
    documents.waiting[0].callback(document)
    service.reactor.pump([0.0] * 20)
    assert staple(service) == document
    service.enter(ALICE)
    [kept] = (tmp_path / "state").iterdir()
    assert (kept.suffix, kept.read_bytes()) == (".ocsp", document)
    again = MemoryService(tmp_path, stapling_server(tmp_path), now=lambda: NOW)
    assert staple(again) == document
    [status] = again.taker.take().service.fetches
    assert (status.url, status.until) == (RESPONDER, NOW - HOUR + timedelta(days=4))


def test_a_responder_that_says_revoked_is_reported(tmp_path: Path, log: Log) -> None:
    """The gate goes on without a response, and says why."""
    documents = Documents({RESPONDER: response(WEB, CA, now=NOW, status=REVOKED)})
    service = MemoryService(
        tmp_path, stapling_server(tmp_path), now=lambda: NOW, documents=documents
    )
    service.service.fetcher.startService()
    assert staple(service) is None
    [status] = service.taker.take().service.fetches
    assert "the gate's own certificate is revoked" in (status.problem or "")


def test_stapling_needs_a_responder_and_an_issuer(tmp_path: Path, log: Log) -> None:
    """What cannot work is an error at load, with the remedy; a certificate that demands it
    is a warning without it."""
    text = stapling_server(tmp_path)
    service = MemoryService(tmp_path, text, now=lambda: NOW)
    (tmp_path / "web.crt").write_bytes(WEB.certificate.public_bytes(Encoding.PEM))
    assert "has no issuer after it" in service.reload().problems[0]
    plain = CA.issue("server", usages=["server_auth"])
    for name, content in (("web.crt", plain.pem), ("web.key", plain.key_pem)):
        (tmp_path / name).write_bytes(content)
    assert "remove ocsp_stapling" in service.reload().problems[0]
    demanding = with_responder(CA, RESPONDER, must_staple=True)
    for name, content in (("web.crt", demanding.pem), ("web.key", demanding.key_pem)):
        (tmp_path / name).write_bytes(content)
    assert not service.reload(text.replace("ocsp_stapling = true", "")).problems
    assert "set ocsp_stapling = true" in service.taker.take().service.warnings[0]


def test_an_epoch_says_what_fetching_needs_of_the_machine(tmp_path: Path, log: Log) -> None:
    """Where it is kept, which ports are dialled, and for https what verifies the server."""
    (tmp_path / "fleet.crt").write_bytes(CA.pem)
    urls = ("http://ca.example/x", "https://ca.example:8443/x")
    for count in (1, 2):
        listed = ", ".join(f'"{one}"' for one in urls[:count])
        text = a_server(rules=rules(f"crl_url = [{listed}]"))
        reach = MemoryService(tmp_path, text, now=lambda: NOW).service.runner.epoch.reach
        assert reach.ports == {80, 8443} if count == 2 else {80}
        kept = {path for path in reach.writes if path.suffix == ".crl"}
        assert {path.parent for path in kept} == {tmp_path / "state"}
        trusted = {Path(one) for one in system_store() if one}
        assert (trusted <= reach.reads) is (count == 2)


def test_urls_that_look_alike_share_a_metric(tmp_path: Path, log: Log) -> None:
    """Queries are not shown, so the worst of such URLs counts."""
    (tmp_path / "fleet.crt").write_bytes(CA.pem)
    documents = Documents({f"{URL}?a": fleet_list(), f"{URL}?b": OSError("no network")})
    text = a_server(rules=rules(f'crl_url = ["{URL}?a", "{URL}?b"]'))
    service = MemoryService(tmp_path, text, now=lambda: NOW, documents=documents)
    service.service.fetcher.startService()
    assert [one.url for one in service.taker.take().service.fetches] == [URL, URL]
    assert service.metrics()[f'mtlsgate_fetch_failures{{url="{URL}"}}'] == 1
