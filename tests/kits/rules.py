"""Rules, paths and conditions to combine, for tests of what a policy decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import strategies as st

from mtlsgate.admission import AdmissionPolicy, Admitted, Path, Pin, Rule
from mtlsgate.admission.conditions import Condition, clause, read_value
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import views
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.certificates.development_ca import key_usage
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, self_signed
from tests.kits.revocation import crl

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)

SECOND, TICK = timedelta(seconds=1), timedelta(microseconds=1)

#: What lets a CA be a pinned client as well.
SIGNS: Any = {
    "extra_extensions": [(key_usage("digital_signature", "key_cert_sign", "crl_sign"), True)]
}

ROOT, OTHER = Authority.create("root", now=NOW), Authority.create("other", now=NOW)

MIDDLE = ROOT.intermediate("middle", now=NOW)

LOWER = MIDDLE.intermediate("lower", now=NOW, **SIGNS)

#: Issued by its own former key: the same name above and below.
RENEWED = ROOT.intermediate("root", now=NOW)

A = LOWER.issue("a", organization="Acme", now=NOW)

B = LOWER.issue("b", organization="Acme", now=NOW)

C = ROOT.issue("c", now=NOW)

PINNED_CA = Credential(LOWER.certificate, LOWER.private_key)

LONE = self_signed("lone", now=NOW)


def path(credential: Credential, *above: Authority) -> Path:
    return views((credential.certificate, *(one.certificate for one in above)))


def block(**stated: str) -> Condition:
    return Condition(
        tuple(clause(name, {text: read_value(name, text)}) for name, text in stated.items())
    )


FULL = path(A, LOWER, MIDDLE, ROOT)

IS_A, IS_B, IS_C = (block(common_names=one) for one in "abc")

IS_ACME = block(organizations="Acme")


def rule(name: str, *authorities: Authority, **options: object) -> Rule:
    return Rule(name, tuple(one.certificate for one in authorities), **options)  # type: ignore[arg-type]


def outcome(
    rules: Sequence[Rule], of: Path = FULL, now: datetime = NOW, deny: Sequence[Condition] = ()
) -> str | Reason:
    """:returns: the name of the rule that admits, or the reason of the rejection."""
    verdict = AdmissionPolicy(tuple(rules), tuple(deny)).judge(of, now)
    if isinstance(verdict, Admitted):
        return verdict.rule.name
    assert verdict.detail.isprintable()
    return verdict.reason


def pinned(begin: datetime | None, end: datetime | None, name: str | None = "p") -> Pin:
    return Pin(A.certificate, name, begin, end)


def lists(*revoked: int, of: Authority = LOWER) -> Revocation:
    made = crl(of, revoked, now=NOW)
    return Revocation(parse_crls(made.public_bytes(Encoding.DER)))


SERIAL = A.certificate.serial_number

CONDITIONS = st.lists(st.sampled_from([IS_A, IS_B, IS_C, IS_ACME]), max_size=2, unique_by=id)

TIMES = st.sampled_from([None, NOW - SECOND, NOW, NOW + SECOND])

PINS = st.lists(
    st.builds(
        Pin,
        st.sampled_from([one.certificate for one in (A, B, C, LONE, PINNED_CA)]),
        st.none(),
        TIMES,
        TIMES,
    ),
    max_size=2,
)

RULES = st.builds(
    Rule,
    st.uuids().map(str),
    st.lists(
        st.sampled_from([one.certificate for one in (ROOT, MIDDLE, LOWER, OTHER)]), max_size=2
    ).map(tuple),
    PINS.map(tuple),
    CONDITIONS.map(tuple),
    CONDITIONS.map(tuple),
    st.sampled_from([None, None, 0, 1, 2]),
    st.sampled_from([None, None, lists(), lists(SERIAL), lists(of=OTHER)]),
).filter(lambda one: bool(one.authorities or one.pins))

PATHS = st.sampled_from(
    [
        FULL,
        path(A),
        path(A, LOWER),
        path(B, LOWER, MIDDLE),
        path(C, ROOT),
        path(LONE),
        path(PINNED_CA),
        path(PINNED_CA, MIDDLE, ROOT),
    ]
)

FILES = st.lists(RULES, max_size=5, unique_by=lambda one: one.name)


def is_admitted(rules: Sequence[Rule], of: Path, deny: Sequence[Condition] = ()) -> bool:
    return isinstance(AdmissionPolicy(tuple(rules), tuple(deny)).judge(of, NOW), Admitted)
