"""Whom rules admit that name trust domains, by handshakes of both versions of TLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mtlsgate.admission import Rule
from mtlsgate.admission.near_miss import near_misses
from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.certificates.svid import parse_spiffe_id, parse_trust_domain, spiffe_id_of
from mtlsgate.clock import utc_now
from mtlsgate.errors import CredentialError
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version
from tests.kits.gate import VERSIONS, Log, MemoryGate, admitted, condition, rejected
from tests.kits.svids import OTHER, PLANTS, SIGNS, bundle, ca_svid, mesh, svid

OURS = bundle("plants.example", PLANTS)
FEDERATED = bundle("other.example", OTHER)
ID = "spiffe://plants.example/press/7"

#: Who comes, and what a rule on plants.example, with other.example federated, answers.
TABLE: dict[str, tuple[Callable[[], Credential], Reason | None]] = {
    "a workload": (svid, None),
    "one below an intermediate": (lambda: svid(authority=PLANTS.intermediate("m")), None),
    "one of the federated trust domain": (lambda: svid("spiffe://other.example/x", OTHER), None),
    "another name by our CA": (lambda: svid("spiffe://other.example/x"), Reason.WRONG_TRUST_DOMAIN),
    "our name by the other CA": (lambda: svid(ID, OTHER), Reason.WRONG_TRUST_DOMAIN),
    "a third trust domain": (lambda: svid("spiffe://third.example/x"), Reason.WRONG_TRUST_DOMAIN),
    "a name that only begins like ours": (
        lambda: svid("spiffe://plants.example.evil/x"),
        Reason.WRONG_TRUST_DOMAIN,
    ),
    "an unknown CA": (lambda: svid(authority=Authority.create("plants")), Reason.UNKNOWN_CA),
    "no URI": (lambda: PLANTS.issue("press"), Reason.SVID_INVALID),
    "two URIs": (lambda: svid(uris=[ID, "spiffe://plants.example/b"]), Reason.SVID_INVALID),
    "a second URI that is no SPIFFE ID": (
        lambda: svid(uris=[ID, "https://plants.example/"]),
        Reason.SVID_INVALID,
    ),
    "another scheme": (lambda: svid("https://plants.example/a"), Reason.SVID_INVALID),
    "the trust domain itself": (lambda: svid("spiffe://plants.example"), Reason.SVID_INVALID),
    "upper case": (lambda: svid("spiffe://PLANTS.example/a"), Reason.SVID_INVALID),
    "a port": (lambda: svid("spiffe://plants.example:1/a"), Reason.SVID_INVALID),
    "a way up": (lambda: svid("spiffe://plants.example/a/../b"), Reason.SVID_INVALID),
    "escapes": (lambda: svid("spiffe://plants.example/a%2fb"), Reason.SVID_INVALID),
    "may sign revocation lists": (lambda: svid(**SIGNS), Reason.PROFILE_VIOLATION),
    "a CA": (ca_svid, Reason.CA_AS_LEAF),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", TABLE)
def test_who_is_admitted(case: str, version: Version, log: Log) -> None:
    make, reason = TABLE[case]
    gate = MemoryGate([mesh(OURS, FEDERATED)], log)
    verdict = gate.try_in(make(), version)
    assert verdict.reason is reason, case
    assert verdict.rule == ("mesh" if reason is None else None)


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_bundle_nobody_is_admitted(version: Version, log: Log) -> None:
    """Whether it never came, or the agent has taken it away; a pin does not help."""
    client = svid()
    missing = bundle("plants.example")
    for rule in (mesh(missing), mesh(missing, pins=(client.certificate,))):
        gate = MemoryGate([rule], log)
        assert gate.try_in(client, version).reason is Reason.BUNDLE_MISSING
    gate = MemoryGate([mesh(missing, FEDERATED)], log)
    assert gate.try_in(client, version).reason is Reason.BUNDLE_MISSING
    assert gate.try_in(svid("spiffe://other.example/x", OTHER), version) == admitted("mesh")


@pytest.mark.parametrize("version", VERSIONS)
def test_other_conditions_count_as_well(version: Version, log: Log) -> None:
    press, saw = svid(), svid("spiffe://plants.example/saw/1")
    only = {"allow": (condition(spiffe_ids=["spiffe://plants.example/press/*"]),)}
    gate = MemoryGate([mesh(OURS, **only)], log)
    assert gate.try_in(press, version) == admitted("mesh")
    assert gate.try_in(saw, version).reason is Reason.NOT_ALLOWED
    gate = MemoryGate([mesh(OURS, pins=(press.certificate,))], log)
    assert gate.try_in(press, version) == admitted("mesh")
    assert gate.try_in(svid(), version).reason is Reason.LEAF_MISMATCH


@pytest.mark.parametrize("version", VERSIONS)
def test_the_rules_of_one_server_do_not_lend_each_other_their_cas(
    version: Version, log: Log
) -> None:
    """Two rules for two trust domains: each with its own bundle."""
    rules = [mesh(OURS), Rule("there", ()).with_bundles((FEDERATED,))]
    gate = MemoryGate(rules, log)
    assert gate.try_in(svid(), version) == admitted("mesh")
    assert gate.try_in(svid("spiffe://other.example/x", OTHER), version) == admitted("there")
    for wrong in (svid(ID, OTHER), svid("spiffe://other.example/x", PLANTS)):
        assert gate.try_in(wrong, version).reason is Reason.WRONG_TRUST_DOMAIN


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rule_on_the_same_ca_asks_for_no_spiffe_id(version: Version, log: Log) -> None:
    gate = MemoryGate([mesh(OURS), Rule("plain", (PLANTS.certificate,))], log)
    assert gate.try_in(PLANTS.issue("press"), version) == admitted("plain")
    assert gate.try_in(svid(), version) == admitted("mesh")
    assert gate.try_in(OTHER.issue("x"), version) == rejected(Reason.UNKNOWN_CA, 0)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_ours_first", [True, False])
def test_a_path_to_its_own_bundle_is_found_if_there_is_one(
    version: Version, is_ours_first: bool, log: Log
) -> None:
    """An intermediate that CAs of both trust domains have signed: OpenSSL may go to the wrong
    one first."""
    ours = PLANTS.intermediate("m")
    theirs = OTHER.intermediate("m", key=ours.private_key)
    leaf = svid(authority=ours)
    both = [ours.certificate, theirs.certificate]
    chain = tuple(both if is_ours_first else reversed(both))
    client = Credential(leaf.certificate, leaf.private_key, chain)
    for bundles in ((OURS, FEDERATED), (FEDERATED, OURS)):
        gate = MemoryGate([mesh(*bundles)], log)
        assert gate.try_in(client, version) == admitted("mesh")
    gate = MemoryGate([mesh(FEDERATED)], log)
    # Which it is depends on the path that OpenSSL takes.
    reasons = (Reason.WRONG_TRUST_DOMAIN, Reason.UNKNOWN_CA)
    assert gate.try_in(client, version).reason in reasons
    # Only the other's signature is sent along: it does not count.
    lone = Credential(leaf.certificate, leaf.private_key, (theirs.certificate,))
    gate = MemoryGate([mesh(OURS, FEDERATED)], log)
    assert gate.try_in(lone, version).reason is Reason.WRONG_TRUST_DOMAIN


@pytest.mark.parametrize("version", VERSIONS)
def test_the_checks_of_svids_do_not_depend_on_the_profile(version: Version, log: Log) -> None:
    gate = MemoryGate([mesh(OURS)], log, strict=False)
    assert gate.try_in(svid(**SIGNS), version) == rejected(Reason.SVID_INVALID)


def test_hints_do_not_repeat_the_verdict() -> None:
    """Nor do they speak of CAs that are not there."""
    for credential in (svid("spiffe://third.example/x"), svid(), PLANTS.issue("x")):
        rule = mesh(bundle("plants.example"))
        assert list(near_misses(rule, [view(credential.certificate)], utc_now())) == []


@pytest.mark.parametrize(
    "text",
    [
        "plants.example/a",
        "spiffe:/plants.example/a",
        "SPIFFE://plants.example/a",
        "spiffe://",
        "spiffe:///a",
        "spiffe://plants.example/",
        "spiffe://plants.example//a",
        "spiffe://plants.example/a/",
        "spiffe://plants.example/.",
        "spiffe://plants.example/ä",
        "spiffe://plants.example/a?b",
        "spiffe://plants.example/a#b",
        "spiffe://user@plants.example/a",
        "spiffe://plants.example/" + "a" * 2048,
        "spiffe://" + "a" * 256 + "/a",
    ],
)
def test_what_is_no_spiffe_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) "):
        parse_spiffe_id(text)


def test_a_trust_domain_is_written_in_two_ways() -> None:
    assert parse_trust_domain("spiffe://a.b-c_d") == parse_trust_domain("a.b-c_d") == "a.b-c_d"
    assert str(parse_spiffe_id(ID)) == ID
    with pytest.raises(ValueError, match="no trust domain"):
        parse_trust_domain("spiffe://plants.example/a")


def test_garbage_is_no_svid() -> None:
    with pytest.raises(CredentialError, match="does not parse"):
        spiffe_id_of(Certificate(b"\x30\x03\x02\x01\x01"))
