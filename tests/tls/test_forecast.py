"""
The forecast says what a handshake would: for every pair of rules and clients, with and without a
signature to check.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from OpenSSL.crypto import X509StoreFlags

from mtlsgate.admission import AdmissionPolicy, Admitted, Path, Rejection, Rule
from mtlsgate.certificates.certificate import view
from mtlsgate.clock import utc_now
from mtlsgate.testing import Authority, Credential
from mtlsgate.tls.forecast import Forecast
from mtlsgate.tls.judge import Judge
from tests.kits.gate import condition, rule

ROOT = Authority.create("Root")
ISSUING = ROOT.intermediate("Issuing")
OTHER = Authority.create("Other")
DEVICE = ISSUING.issue("device")
DIRECT = ROOT.issue("direct")
FLAGS = X509StoreFlags.PARTIAL_CHAIN | X509StoreFlags.X509_STRICT


def path_of(*found: Credential | Authority) -> Path:
    return tuple(view(one.certificate) for one in found)


def forecast(*rules: Rule, strict: bool = True, twice: bool = False) -> Forecast:
    judge = Judge(AdmissionPolicy(rules), utc_now, strict=strict, always_ask_twice=twice)
    return Forecast(judge, always_ask_twice=twice)


WHOLE = path_of(DEVICE, ISSUING, ROOT)
SHORT = path_of(DEVICE, ISSUING)
IN = "rule"


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ([rule(ca=ROOT)], WHOLE, IN),
        ([rule(ca=ISSUING)], WHOLE, IN),
        ([rule(ca=OTHER)], WHOLE, "unknown_ca"),
        ([rule(pins=DEVICE)], WHOLE, IN),
        ([rule(ca=ROOT, pins=DEVICE)], WHOLE, IN),
        ([rule(ca=ROOT, pins=DIRECT)], WHOLE, "leaf_mismatch"),
        ([rule(pins=DIRECT)], WHOLE, "unknown_ca"),
        # OpenSSL stops at the first anchor, so the rule on the CA below it admits.
        ([rule("root", ca=ROOT), rule(ca=ISSUING)], WHOLE, IN),
        # The CA is above what was verified: a path must be verified.
        ([rule(ca=ROOT)], SHORT, None),
        ([rule(ca=OTHER)], SHORT, "unknown_ca"),
    ],
)
def test_at_sight(rules: list[Rule], path: Path, expected: str | None) -> None:
    """What the rules say of a verified path, and None if another path decides."""
    found = forecast(*rules).at_sight(path, FLAGS, utc_now())
    if expected is None:
        assert found is None
    elif expected == IN:
        assert isinstance(found, Admitted)
        assert found.rule.name == IN
    else:
        assert isinstance(found, Rejection)
        assert found.reason.value == expected


@pytest.mark.parametrize("path", [WHOLE, SHORT, path_of(DEVICE), path_of(DIRECT, ROOT)])
@pytest.mark.parametrize(
    "rules",
    [
        [rule(ca=ROOT)],
        [rule(ca=ISSUING)],
        [rule(ca=OTHER)],
        [rule(pins=DEVICE)],
        [rule(ca=ISSUING, pins=DEVICE), rule("rest", ca=ROOT)],
        [rule("root", ca=ROOT), rule(ca=ISSUING)],
    ],
)
@pytest.mark.parametrize("flags", [0, X509StoreFlags.PARTIAL_CHAIN, FLAGS])
def test_it_agrees_with_the_search(rules: list[Rule], path: Path, flags: int) -> None:
    """At sight and after a search the verdict is the same."""
    found, now = forecast(*rules), utc_now()
    sight, search = found.at_sight(path, flags, now), found.searched(path, now)
    if sight is None:
        return
    assert isinstance(sight, Admitted) == isinstance(search, Admitted)
    if isinstance(sight, Admitted) and isinstance(search, Admitted):
        assert sight.rule.name == search.rule.name
    if isinstance(sight, Rejection) and isinstance(search, Rejection):
        assert sight.reason == search.reason


def test_a_path_that_was_not_verified_admits_nobody_at_sight() -> None:
    """Anybody can send somebody's certificate with the CA's after it."""
    forged = path_of(OTHER.issue("device"), ROOT)
    found = forecast(rule(ca=ROOT))
    assert found.at_sight(WHOLE, 0, utc_now()) is None
    assert found.at_sight(forged, 0, utc_now()) is None
    verdict = found.searched(forged, utc_now())
    assert isinstance(verdict, Rejection)


def test_stricter_rules_verify_again() -> None:
    """A path that was verified leniently may break the profile."""
    assert forecast(rule(ca=ROOT)).at_sight(WHOLE, X509StoreFlags.PARTIAL_CHAIN, utc_now()) is None
    lenient = forecast(rule(ca=ROOT), strict=False)
    assert isinstance(lenient.at_sight(WHOLE, FLAGS, utc_now()), Admitted)
    assert forecast(rule(ca=ROOT), twice=True).at_sight(WHOLE, FLAGS, utc_now()) is None


def test_time_goes_on() -> None:
    """A path is verified again once one of its certificates has expired."""
    now = utc_now()
    brief = ROOT.intermediate("Brief", not_after=now + timedelta(days=1))
    leaf = brief.issue("leaf", not_after=now + timedelta(days=30))
    found = forecast(rule(ca=ROOT))
    path = path_of(leaf, brief, ROOT)
    assert isinstance(found.at_sight(path, FLAGS, now), Admitted)
    assert found.at_sight(path, FLAGS, now + timedelta(days=2)) is None
    verdict = found.searched(path, now + timedelta(days=2))
    assert isinstance(verdict, Rejection)
    assert verdict.reason.value == "expired"


def test_what_is_not_known_is_said() -> None:
    """A client may send an intermediate that was not kept: its rejection is not certain."""
    found = forecast(rule(ca=ROOT))
    verdict = found.searched(path_of(DEVICE), utc_now())
    assert isinstance(verdict, Rejection)
    assert "unless the client sends more certificates" in verdict.detail
    sure = forecast(rule(ca=OTHER)).at_sight(WHOLE, FLAGS, utc_now())
    assert isinstance(sure, Rejection)
    assert "unless" not in sure.detail


def test_deny_decides_at_sight() -> None:
    """Without looking for any path."""
    judge = Judge(AdmissionPolicy((rule(ca=ROOT),), (condition(common_names=["device"]),)), utc_now)
    verdict = Forecast(judge).at_sight(SHORT, 0, utc_now())
    assert isinstance(verdict, Rejection)
    assert verdict.reason.value == "denied"
