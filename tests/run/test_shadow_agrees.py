"""What the shadow says of a client is what the configuration does when it is in force."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.certificates.certificate import view
from mtlsgate.clock import utc_now
from mtlsgate.gate.shadow import ShadowVerdict
from mtlsgate.observe.shadow_tally import ShadowTally
from mtlsgate.run.shadow import PAUSE
from mtlsgate.testing import Authority, Credential, Version, self_signed
from tests.kits.gate import Log
from tests.kits.revocation import crl, pem
from tests.kits.service import AUDITED, ROOT, MemoryService, server, today

MIDDLE = ROOT.intermediate("Middle")
OTHER = Authority.create("Other")
#: Of the same name and key as the root, but issued by another CA.
ALICE, BOB = ROOT.issue("alice"), ROOT.issue("bob", dns_names=["bob.example"])
BELOW, CAROL = MIDDLE.issue("below"), OTHER.issue("carol")
PINNED = self_signed("pinned")

#: Clients, with what they send after their leaf.
CLIENTS: dict[str, tuple[Credential | None, dict[str, Any]]] = {
    "alice": (ALICE, {}),
    "bob": (BOB, {}),
    "below, with its CA": (BELOW, {}),
    "below, alone": (BELOW, {"chain": []}),
    "carol": (CAROL, {}),
    "pinned": (PINNED, {}),
    "nobody": (None, {}),
    "expired": (ROOT.issue("late", not_after=utc_now() - timedelta(hours=1)), {}),
    "of a server": (ROOT.issue("server", usages=["server_auth"]), {}),
    "alice, with another's": (ALICE, {"chain": [CAROL.certificate]}),
    "a forged alice": (Authority.create("Root").issue("alice"), {"chain": [ROOT.certificate]}),
}


def ca(name: str, more: str = "") -> str:
    return f'client_certificate "{name}" {{\nca_certificate_file = "{name}.crt"\n{more}\n}}\n'


RULES = {
    "root": ca("ca"),
    "middle": ca("middle"),
    "other": ca("other"),
    "both": ca("middle") + ca("ca"),
    "both, the root first": ca("ca") + ca("middle") + ca("other"),
    "no depth": ca("ca", "max_depth = 0"),
    "names": ca("ca", 'allow { dns_names = ["*.example"] }'),
    "denied": 'deny { common_names = ["bob", "below"] }\n' + ca("ca") + ca("other"),
    "pins": 'client_certificate "pins" { leaf_certificate_file = "pins.crt" }\n',
    "pins of a CA": ca("ca", 'leaf_certificate_file = "pins.crt"'),
    "revoked": ca("ca", 'crl_file = "ca.crl"\ncrl_scope = "leaf"'),
    "lenient": ca("ca") + 'verification = "compatible"\n',
    "twice": ca("ca") + 'verification = "double"\n',
    "anyone": 'client_authentication = "none"\n',
    "new TLS": ca("ca") + 'min_version = "1.3"\n',
}


def started(directory: Path, rules: str) -> MemoryService:
    directory.mkdir()
    for name, content in {
        "middle.crt": MIDDLE.pem,
        "other.crt": OTHER.pem,
        "pins.crt": PINNED.pem + ALICE.pem,
        "ca.crl": pem(crl(ROOT, [BOB], now=utc_now())),
    }.items():
        (directory / name).write_bytes(content)
    return today(directory, AUDITED + server(tls=rules))


def met(running: MemoryService, name: str, version: Version) -> tuple[int, dict[str, Any]]:
    """:returns: the number of a client's connection, and what the audit log says of it."""
    who, more = CLIENTS[name]
    client = running.connect(who, min_version=version, max_version=version, **more)
    client.send(b"knock")
    told = [one for one in running.audited() if one["event"] in ("admitted", "rejected")][-1]
    assert client.established == (told["event"] == "admitted")
    client.close()
    running.reactor.pump([0.0] * 3)
    return told["connection"], told


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[int | None, ShadowVerdict]:
    """:returns: the shadow's verdicts, by the numbers of connections."""
    found: dict[int | None, ShadowVerdict] = {}
    note = ShadowTally.note

    def noting(self: ShadowTally, verdict: ShadowVerdict) -> bool:
        found[verdict.connection] = verdict
        return note(self, verdict)

    monkeypatch.setattr(ShadowTally, "note", noting)
    return found


class InForce:
    """What becomes of the clients when a configuration is in force; tried once for each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told: dict[tuple[str, Version], dict[str, dict[str, Any]]] = {}

    def of(self, rules: str, version: Version) -> dict[str, dict[str, Any]]:
        """:returns: what the audit log says of each client."""
        key = rules, version
        if key not in self._told:
            running = started(self._directory / f"{rules} {version}", RULES[rules])
            self._told[key] = {name: met(running, name, version)[1] for name in CLIENTS}
        return self._told[key]


@pytest.fixture(scope="module")
def in_force(tmp_path_factory: pytest.TempPathFactory) -> InForce:
    return InForce(tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize(
    ("now", "version"),
    [
        ("root", "1.2"),
        ("root", "1.3"),
        ("both", "1.2"),
        ("middle", "1.3"),
        ("pins", "1.3"),
        ("lenient", "1.3"),
        ("anyone", "1.2"),
    ],
)
def test_the_shadow_says_what_would_happen(
    tmp_path: Path,
    log: Log,
    verdicts: dict[int | None, ShadowVerdict],
    in_force: InForce,
    now: str,
    version: Version,
) -> None:
    """For each client, whatever is in force, and whatever is in the shadow."""
    running = started(tmp_path / "now", RULES[now])
    for then, rules in RULES.items():
        (tmp_path / "now" / "next.hcl").write_text(AUDITED + server(tls=rules))
        attempts: list[Any] = []
        running.shadow.put("next.hcl").addCallback(attempts.append)
        assert attempts[0].problems == ()
        numbers = {name: met(running, name, version) for name in CLIENTS}
        running.reactor.advance(PAUSE)
        for name, (number, told) in numbers.items():
            verdict = verdicts.pop(number, None)
            if verdict is None:
                # It is not about the certificate.
                assert told["event"] == "rejected", (then, name)
                continue
            assert verdict.then is not None, (then, name)
            real = in_force.of(then, version)[name]
            _check(verdict, told, real, f"{name}: {now}, then {then}")


def _check(verdict: ShadowVerdict, told: dict[str, Any], real: dict[str, Any], what: str) -> None:
    then = verdict.then
    assert then is not None
    if told["subject"] is None and real["event"] == "admitted" and real["rule"] is not None:
        # Nobody asked it for its certificate so far.
        assert then.rejection is not None, what
        assert then.rejection.reason.value == "no_certificate", what
        return
    if then.rejection is not None and "unless the client sends more" in then.rejection.detail:
        return
    if then.rejection is None:
        assert (real["event"], real.get("rule")) == ("admitted", then.rule), what
    else:
        assert real["event"] == "rejected", what
        # Without its CA it is both unknown and, perhaps, denied.
        is_whole = told["subject"] is not None and "alone" not in what
        if verdict.now.rejection is None and is_whole:
            assert real["reason"] == then.rejection.reason.value, what


def test_every_client_is_told_from_the_others() -> None:
    """... by its leaf and by what it sends."""
    leaves = {name: view(who.certificate) for name, (who, _) in CLIENTS.items() if who is not None}
    assert len(set(leaves.values())) == len(leaves) - 2
