from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.admission import AdmissionPolicy, Admitted
from mtlsgate.certificates.certificate import views
from mtlsgate.run.selftest import SelfTestError, holes, intruders, self_test
from mtlsgate.testing import Authority
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.server import GateContext
from tests.kits.gate import Log, MemoryGate, rule
from tests.kits.pki import site
from tests.kits.service import ISSUING, PINNED, MemoryService, a_server

CA, OTHER = Authority.create("Root"), Authority.create("Other")
ALICE = CA.issue("alice")


def test_who_is_sent() -> None:
    """Nobody, a namesake of each CA, and a stranger with a pin of each rule that has pins."""
    policy = AdmissionPolicy(
        (rule("a", CA), rule("b", CA, ALICE), rule("c", OTHER), rule("d", pins=ALICE))
    )
    found = list(intruders(policy))
    assert [one.words for one in found] == [
        "without a certificate",
        "with an unknown CA that has the name of the CA of rule a",
        "as a stranger who sends the pin of rule b along",
        "with an unknown CA that has the name of the CA of rule c",
        "as a stranger who sends the pin of rule d along",
    ]
    forged = found[1].credential
    assert forged is not None
    assert forged.certificate.issuer == CA.certificate.subject
    assert found[2].chain == (ALICE.certificate,)


def test_a_sound_server_has_no_holes(log: Log) -> None:
    """... and neither the log nor the application hears of it."""
    gate = MemoryGate((rule("a", CA), rule("b", CA, ALICE), rule("d", pins=ALICE)), log)
    assert list(holes(gate.server)) == []
    assert log.events == []
    assert gate.recorder.protocols == []


def test_a_server_for_anyone_is_not_tried(log: Log) -> None:
    assert list(holes(MemoryGate(None, log).server)) == []


def everybody(self: GateContext, connection: EngineConnection) -> Admitted:
    """The verdict of a gate that does not look."""
    assert self.admission is not None
    connection.handshake.judged_at = self.now()
    return Admitted(self.admission.rules[0], views((ALICE.certificate,)))


@pytest.fixture
def open_house(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a certificate comes in."""
    monkeypatch.setattr(GateContext, "verify", lambda *_: True)
    monkeypatch.setattr(GateContext, "conclude", everybody)


@pytest.mark.usefixtures("open_house")
def test_holes_are_found(log: Log) -> None:
    """A gate that verifies nothing lets in all but those whom OpenSSL turns away."""
    gate = MemoryGate((rule("a", CA), rule("b", CA, ALICE)), log)
    assert list(holes(gate.server)) == [
        "with an unknown CA that has the name of the CA of rule a",
        "as a stranger who sends the pin of rule b along",
    ]


@pytest.mark.usefixtures("open_house")
def test_an_epoch_with_a_hole_is_not_run(tmp_path: Path) -> None:
    epoch = site(tmp_path).load(a_server(rules=PINNED))
    with pytest.raises(SelfTestError) as caught:
        self_test(epoch)
    assert str(caught.value).splitlines() == [
        f'{epoch.path}: server "door": the self-test got in {words}'
        for words in (
            "with an unknown CA that has the name of the CA of rule pinned",
            "as a stranger who sends the pin of rule pinned along",
        )
    ]


def test_an_epoch_with_a_hole_never_takes_over(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one in force stays."""
    running = MemoryService(tmp_path, a_server())

    with monkeypatch.context() as patch:
        patch.setattr(GateContext, "verify", lambda *_: True)
        patch.setattr(GateContext, "conclude", everybody)
        problems = running.reload(a_server(rules=ISSUING)).problems
    assert problems
    assert all("the self-test got in" in line for line in problems)
    assert running.service.runner.number == 1
