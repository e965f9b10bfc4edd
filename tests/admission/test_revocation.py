"""Who is taken out, as decision tables without OpenSSL."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, TypedDict

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.admission import Path, Rejection, revocation
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import Certificate, view, views
from mtlsgate.certificates.crl import RevocationList, parse_crls, without_deltas
from mtlsgate.errors import CredentialError
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, self_signed
from tests.kits.counting import calls
from tests.kits.forgery import ECDSA_SHA256, edited, tlv
from tests.kits.revocation import crl, der, pem

NOW = datetime(2026, 6, 15, 12, 0, 0, tzinfo=UTC)


class At(TypedDict):
    now: datetime


AT: At = {"now": NOW}
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)

ROOT, OTHER = Authority.create("root", **AT), Authority.create("other", **AT)
NAMESAKE = Authority.create("root", **AT)
LOWER = ROOT.intermediate("lower", **AT)
A, B, C = LOWER.issue("a", **AT), LOWER.issue("b", **AT), ROOT.issue("c", **AT)

MISSING, EXPIRED = Reason.CRL_MISSING, Reason.CRL_EXPIRED
INVALID, REVOKED = Reason.CRL_INVALID, Reason.REVOKED


def loaded(authority: Authority, *serials: int | Authority | Credential, **how: Any) -> Any:
    """:returns: one list, as parsed."""
    [one] = parse_crls(der(crl(authority, serials, **{"now": NOW, **how})))
    return one


def path(credential: Credential | Authority, *above: Authority) -> Path:
    return views((credential.certificate, *(one.certificate for one in above)))


def verdict(
    lists: Iterable[RevocationList], of: Path, now: datetime = NOW, **scope: Any
) -> Rejection | None:
    found = Revocation(tuple(lists), **scope).judge(of, now)
    if found is not None:
        assert found.detail.isprintable()
    return found


def outcome(*args: Any, **kwargs: Any) -> tuple[Reason, int | None] | None:
    found = verdict(*args, **kwargs)
    return None if found is None else (found.reason, found.depth)


def partition(**what: Any) -> tuple[x509.IssuingDistributionPoint, bool]:
    """:returns: the extension that says what a list is for."""
    nothing: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**nothing, **what}), True


FULL = path(A, LOWER, ROOT)
OLD, NEW = {"this_update": NOW - 2 * DAY}, {"this_update": NOW - DAY}
PAST = {"this_update": NOW - 9 * DAY, "next_update": NOW - 8 * DAY}
ENDED = {"this_update": NOW - DAY, "next_update": NOW - SECOND}
FUTURE = {"this_update": NOW + HOUR}
GOOD_ROOT, GOOD_LOWER = loaded(ROOT), loaded(LOWER)
ROOT_LISTS_LOWER, LOWER_LISTS_A = loaded(ROOT, LOWER), loaded(LOWER, A)
FORGED = loaded(Authority(ROOT.certificate, OTHER.private_key), C)
LEAVES = partition(only_contains_user_certs=True)
AUTHORITIES = partition(only_contains_ca_certs=True)
FOR_LEAVES, FOR_CAS = {"extensions": [LEAVES]}, {"extensions": [AUTHORITIES]}
root, lower = partial(loaded, ROOT), partial(loaded, LOWER)

Verdict = tuple[Reason, int] | None

TABLE: list[tuple[str, list[RevocationList], Path, Verdict]] = [
    ("all lists are there, nothing is listed", [GOOD_ROOT, GOOD_LOWER], FULL, None),
    ("the leaf is listed", [GOOD_ROOT, LOWER_LISTS_A], FULL, (REVOKED, 0)),
    ("another leaf is listed", [GOOD_ROOT, LOWER_LISTS_A], path(B, LOWER, ROOT), None),
    ("the intermediate is listed", [ROOT_LISTS_LOWER, GOOD_LOWER], FULL, (REVOKED, 1)),
    ("both are: the leaf", [ROOT_LISTS_LOWER, LOWER_LISTS_A], FULL, (REVOKED, 0)),
    ("the anchor is not judged", [GOOD_LOWER], path(A, LOWER), None),
    ("the anchor lists itself", [loaded(ROOT, ROOT)], path(C, ROOT), None),
    ("no list at all", [], FULL, (MISSING, 0)),
    ("no list of the leaf's issuer", [GOOD_ROOT], FULL, (MISSING, 0)),
    ("no list of the intermediate's issuer", [GOOD_LOWER], FULL, (MISSING, 1)),
    ("a leaf that is its own anchor", [GOOD_ROOT], path(C), (MISSING, 0)),
    ("no path at all", [GOOD_ROOT], (), (MISSING, 0)),
    ("revoked above, unknown below", [ROOT_LISTS_LOWER], FULL, (REVOKED, 1)),
    ("revoked above, expired below", [ROOT_LISTS_LOWER, lower(**ENDED)], FULL, (REVOKED, 1)),
    ("neither is known: the lower", [root(**ENDED), lower(**FUTURE)], FULL, (INVALID, 0)),
    ("for leaves", [GOOD_ROOT, lower(A, **FOR_LEAVES)], FULL, (REVOKED, 0)),
    ("for leaves, not a CA", [root(LOWER, **FOR_LEAVES), GOOD_LOWER], FULL, (MISSING, 1)),
    ("for CAs", [root(LOWER, **FOR_CAS), GOOD_LOWER], FULL, (REVOKED, 1)),
    ("for CAs, not a leaf", [GOOD_ROOT, lower(**FOR_CAS)], FULL, (MISSING, 0)),
]

#: The same for a leaf right under the root.
SHORT_TABLE: list[tuple[str, list[RevocationList], Verdict]] = [
    ("only another CA's list", [loaded(OTHER)], (MISSING, 0)),
    ("a serial that another CA listed", [GOOD_ROOT, loaded(OTHER, C)], None),
    ("a serial that a namesake listed", [GOOD_ROOT, loaded(NAMESAKE, C)], None),
    ("only a namesake's list", [loaded(NAMESAKE)], (INVALID, 0)),
    ("only a forged list", [FORGED], (INVALID, 0)),
    ("a forged list beside a good one", [GOOD_ROOT, FORGED], None),
    ("expired", [root(**ENDED)], (EXPIRED, 0)),
    ("listed and expired", [root(C, **ENDED)], (REVOKED, 0)),
    ("not yet valid", [root(**FUTURE)], (INVALID, 0)),
    ("listed, and not yet valid", [root(C, **FUTURE)], (REVOKED, 0)),
    ("listed from the future on", [GOOD_ROOT, root(C, **FUTURE)], (REVOKED, 0)),
    ("cleared from the future on", [root(C), root(**FUTURE)], (REVOKED, 0)),
    ("expired, and the next is not yet valid", [root(**ENDED), root(**FUTURE)], (EXPIRED, 0)),
    ("the newer has it", [root(**OLD), root(C, **NEW)], (REVOKED, 0)),
    ("a hold was released", [root(C, **OLD), root(**NEW)], None),
    ("released, and the older has expired", [root(C, **PAST), GOOD_ROOT], None),
    ("the newer has expired, the older not", [root(**OLD), root(**ENDED)], (EXPIRED, 0)),
    ("the same, and the older has it", [root(C, **OLD), root(**ENDED)], (EXPIRED, 0)),
    ("one second: the number counts", [root(C, number=1), root(number=2)], None),
    ("one second: the number counts", [root(number=1), root(C, number=2)], (REVOKED, 0)),
    ("a draw: either revokes", [GOOD_ROOT, root(C)], (REVOKED, 0)),
    ("time goes before number", [root(C, number=9, **OLD), root(number=2, **NEW)], None),
    ("a newer one for CAs", [root(C, **OLD), root(**FOR_CAS, **NEW)], (REVOKED, 0)),
    ("a newer one for leaves", [root(C, **OLD), root(**FOR_LEAVES, **NEW)], None),
]
TABLE += [(name, lists, path(C, ROOT), expected) for name, lists, expected in SHORT_TABLE]


@pytest.mark.parametrize(
    ("lists", "of", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_who_is_rejected_by_which_list(
    lists: list[RevocationList], of: Path, expected: Verdict
) -> None:
    assert outcome(lists, of) == expected
    assert outcome(lists[::-1], of) == expected


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([GOOD_LOWER], None),
        ([GOOD_LOWER, ROOT_LISTS_LOWER], None),
        ([LOWER_LISTS_A], (REVOKED, 0)),
        ([GOOD_ROOT], (MISSING, 0)),
    ],
)
def test_scope_leaf(lists: list[RevocationList], expected: Verdict) -> None:
    """With ``crl_scope = "leaf"`` only depth 0 is judged."""
    assert outcome(lists, FULL, scope="leaf") == expected
    assert outcome(lists, path(A), scope="leaf") == (MISSING, 0)


def test_a_leaf_that_is_a_ca() -> None:
    """What a list for leaves covers is told by the certificate, not by its depth."""
    pinned = Credential(LOWER.certificate, LOWER.private_key)
    assert outcome([loaded(ROOT, LOWER, extensions=[LEAVES])], path(pinned, ROOT)) == (MISSING, 0)
    listed = loaded(ROOT, LOWER, extensions=[AUTHORITIES])
    assert outcome([listed], path(pinned, ROOT)) == (REVOKED, 0)


BEGIN, END = NOW - HOUR, NOW + DAY


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (BEGIN - SECOND, (INVALID, 0)),
        (BEGIN - timedelta(microseconds=1), (INVALID, 0)),
        (BEGIN, None),
        (END, None),
        (END + timedelta(microseconds=999_999), None),
        (END + SECOND, (EXPIRED, 0)),
        (END.astimezone(timezone(timedelta(hours=14))), None),
    ],
)
def test_a_list_counts_from_this_update_to_next_update(now: datetime, expected: Verdict) -> None:
    """A list counts from thisUpdate to nextUpdate, both seconds included."""
    one = loaded(ROOT, this_update=BEGIN, next_update=END)
    assert outcome([one], path(C, ROOT), now) == expected


@pytest.mark.parametrize("reason", [None, *x509.ReasonFlags])
def test_what_the_log_says(reason: x509.ReasonFlags | None) -> None:
    """A revoked certificate's rejection names date and CRL reason."""
    if reason is x509.ReasonFlags.remove_from_crl:
        return
    one = loaded(ROOT, C, reason=reason, revoked_at=datetime(2026, 6, 1, tzinfo=UTC))
    assert verdict([one], path(C, ROOT)) == Rejection(
        REVOKED,
        'revoked by "CN=root" at 2026-06-01T00:00:00+00:00, reason '
        + ("unspecified" if reason is None else reason.value),
        0,
    )


def test_a_revocation_dated_in_the_future() -> None:
    """Listed is revoked, whatever date it says."""
    assert outcome([loaded(ROOT, C, revoked_at=NOW + DAY)], path(C, ROOT)) == (REVOKED, 0)


@pytest.mark.parametrize(
    ("lists", "text"),
    [
        ([], 'there is no CRL of "CN=root"'),
        ([loaded(ROOT, extensions=[AUTHORITIES])], "covers a certificate like this"),
        ([loaded(NAMESAKE)], "is by another CA of that name, or by another key of this one"),
        ([FORGED], "is not signed by that CA"),
        ([loaded(ROOT, **FUTURE)], "is not yet valid"),
        ([loaded(ROOT, **ENDED)], "of 2026-06-14T12:00:00+00:00 expired at 2026-06-15T11:59:59"),
    ],
)
def test_the_detail_says_which_list_and_when(lists: list[RevocationList], text: str) -> None:
    found = verdict(lists, path(C, ROOT))
    assert found is not None
    assert text in found.detail


def _usage(*, crl_sign: bool) -> tuple[x509.KeyUsage, bool]:
    return x509.KeyUsage(
        False, False, False, False, False, True, crl_sign, False, False
    ), True  # fmt: skip


def test_key_usage() -> None:
    """An issuer that may not sign CRLs has none; one without a key usage may."""
    able = Authority.create("able", extra_extensions=[_usage(crl_sign=True)], **AT)
    unable = Authority.create("unable", extra_extensions=[_usage(crl_sign=False)], **AT)
    plain = self_signed("plain", is_ca=True, **AT)
    silent = Authority(plain.certificate, plain.private_key)
    for authority, expected in ((able, None), (unable, (INVALID, 0)), (silent, None)):
        leaf = authority.issue("leaf", **AT)
        assert outcome([loaded(authority)], path(leaf, authority)) == expected
        if expected:
            # Not even to revoke: nobody may be shut out by who may not say so.
            found = verdict([loaded(authority, leaf)], path(leaf, authority))
            assert found is not None
            assert "cRLSign" in found.detail


def test_without_key_identifiers() -> None:
    """Where nothing names the key, the signature alone tells."""
    [bare] = parse_crls(der(without_extensions(ROOT, C)), strict=False)
    assert bare.authority_key_identifier is None
    assert outcome([bare], path(C, ROOT)) == (REVOKED, 0)
    assert outcome([bare], path(C, NAMESAKE)) == (INVALID, 0)


def without_extensions(authority: Authority, *revoked: Credential) -> Any:
    """:returns: a list as OpenSSL 1's ``ca -gencrl`` makes it by default."""
    builder = x509.CertificateRevocationListBuilder(
        authority.certificate.subject, NOW - HOUR, NOW + DAY
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(one.certificate.serial_number)
            .revocation_date(NOW - HOUR)
            .build()
        )
    return builder.sign(authority.private_key, SHA256())


def test_the_same_name_in_another_encoding() -> None:
    """It is the same CA: the type of a string makes no difference (RFC 5280, 7.1), nor
    do case and spaces."""
    kind = x509.name._ASN1Type.PrintableString
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root", kind)])
    spelt = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, " ROOT ")])
    for subject in (name, spelt):
        twin = Authority.create("root", subject=subject, key=ROOT.private_key, **AT)
        assert outcome([loaded(twin)], path(C, ROOT)) is None
        assert outcome([loaded(twin, C)], path(C, ROOT)) == (REVOKED, 0)
    another = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ro ot")])
    stranger = Authority.create("root", subject=another, key=ROOT.private_key, **AT)
    assert outcome([loaded(stranger)], path(C, ROOT)) == (MISSING, 0)


class TestRollover:
    """A CA named the same with an old key and a new, each with its own list."""

    old = Authority.create("ca", **AT)
    new = Authority.create("ca", **AT)
    #: The new key under the old one: self-issued (RFC 5280, 3.2), for the time between.
    link = old.intermediate("ca", key=new.private_key, **AT)
    before, after = old.issue("before", **AT), new.issue("after", **AT)

    @pytest.mark.parametrize("listed", [False, True])
    def test_each_key_has_its_list(self, listed: bool) -> None:
        expected = (REVOKED, 0) if listed else None
        lists = [
            loaded(self.old, *[self.before] * listed),
            loaded(self.new, *[self.after] * listed, **FUTURE),
            loaded(self.new, *[self.after] * listed),
        ]
        assert outcome(lists, path(self.before, self.old)) == expected
        assert outcome(lists, path(self.after, self.new)) == expected
        assert outcome(lists, path(self.after, self.link, self.old)) == expected

    def test_one_keys_list_does_not_clear_the_others(self) -> None:
        """However new it is: it may hold only what its own key signed."""
        listed, newer = loaded(self.old, self.before, **OLD), loaded(self.new)
        assert outcome([listed, newer], path(self.before, self.old)) == (REVOKED, 0)
        assert outcome([newer], path(self.before, self.old)) == (INVALID, 0)
        assert outcome([listed], path(self.after, self.new)) == (INVALID, 0)

    def test_a_self_issued_intermediate_is_judged_as_any(self) -> None:
        of = path(self.after, self.link, self.old)
        assert outcome([loaded(self.new), loaded(self.old, self.link)], of) == (REVOKED, 1)
        assert outcome([loaded(self.new, self.link), loaded(self.old)], of) is None

    def test_a_ca_certificate_issued_again_for_its_key(self) -> None:
        again = Authority.create("ca", key=self.old.private_key, **AT)
        assert outcome([loaded(again, self.before)], path(self.before, self.old)) == (REVOKED, 0)


def _points(*urls: str, **how: Any) -> tuple[x509.CRLDistributionPoints, bool]:
    rest: dict[str, Any] = {"relative_name": None, "reasons": None, "crl_issuer": None, **how}
    names = [x509.UniformResourceIdentifier(url) for url in urls]
    return x509.CRLDistributionPoints([x509.DistributionPoint(full_name=names, **rest)]), False


ONE, TWO = "http://crl.example/1", "http://crl.example/2"


@pytest.mark.parametrize(
    ("stated", "names", "covered"),
    [
        (_points(ONE), [ONE], True),
        (_points(ONE), [TWO], False),
        (_points(ONE, TWO), [TWO], True),
        (_points(TWO), [ONE, TWO], True),
        (None, [ONE], False),
        (None, [ONE, ROOT.certificate.subject], True),
        (_points(ONE), [ROOT.certificate.subject], True),
        (None, [OTHER.certificate.subject], False),
        (_points(ONE, reasons=frozenset([x509.ReasonFlags.key_compromise])), [ONE], False),
        (_points(ONE, crl_issuer=[x509.DirectoryName(OTHER.certificate.subject)]), [ONE], False),
    ],
)
def test_distribution_points(stated: Any, names: list[Any], covered: bool) -> None:
    """A list for one distribution point speaks for those only that name it, or
    the sharded list of another client would clear this one (RFC 5280, 6.3.3)."""
    leaf = ROOT.issue("leaf", extra_extensions=[stated] if stated else (), **AT)
    full_name = [
        x509.UniformResourceIdentifier(one) if isinstance(one, str) else x509.DirectoryName(one)
        for one in names
    ]
    shard = loaded(ROOT, extensions=[partition(full_name=full_name)])
    assert outcome([shard], path(leaf, ROOT)) == (None if covered else (MISSING, 0))
    # A newer shard clears those only for which it speaks.
    older = loaded(ROOT, leaf, **OLD)
    assert outcome([older, shard], path(leaf, ROOT)) == (None if covered else (REVOKED, 0))


@pytest.mark.parametrize("pss", [False, True])
def test_lists_signed_with_rsa_count(pss: bool) -> None:
    key = rsa.generate_private_key(65537, 2048)
    authority = Authority.create("rsa", key=key, **AT)
    scheme = padding.PSS(padding.MGF1(SHA256()), 32) if pss else None
    leaf = authority.issue("leaf", **AT)
    one = loaded(authority, leaf, rsa_padding=scheme)
    assert outcome([one], path(leaf, authority)) == (REVOKED, 0)


def test_a_signature_that_cannot_be() -> None:
    """What the library refuses to check counts as wrong: here a salt longer than the key."""
    key = rsa.generate_private_key(65537, 2048)
    authority = Authority.create("rsa", key=key, **AT)
    leaf = authority.issue("leaf", **AT)
    whole = der(crl(authority, now=NOW, rsa_padding=padding.PSS(padding.MGF1(SHA256()), 32)))
    assert whole.count(b"\xa2\x03\x02\x01\x20") == 2
    [odd] = parse_crls(whole.replace(b"\xa2\x03\x02\x01\x20", b"\xa2\x03\x02\x01\x7f"))
    assert outcome([odd], path(leaf, authority)) == (INVALID, 0)
    assert outcome([odd, loaded(authority)], path(leaf, authority)) is None


def test_lists_signed_with_ed25519_count() -> None:
    authority = Authority.create("ed", key=ed25519.Ed25519PrivateKey.generate(), **AT)
    leaf = authority.issue("leaf", **AT)
    assert outcome([loaded(authority, leaf)], path(leaf, authority)) == (REVOKED, 0)


@pytest.mark.parametrize("signer", ["ec", "rsa", "ed"])
@pytest.mark.parametrize("holder", ["ec", "rsa", "ed"])
def test_keys_of_another_kind(signer: str, holder: str) -> None:
    """A signature that the CA's key could not have made is none, and raises nothing."""
    keys: dict[str, Any] = {
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }
    authority = Authority.create("ca", key=keys[holder], **AT)
    leaf = authority.issue("leaf", **AT)
    one = loaded(Authority(authority.certificate, keys[signer]))
    assert outcome([one], path(leaf, authority)) == (None if signer == holder else (INVALID, 0))


def test_a_malformed_certificate() -> None:
    """What does not parse is rejected, and raises nothing."""
    forged = edited(
        ROOT,
        ROOT.issue("leafleaf", **AT),
        bytes.fromhex("0603551d130101ff04023000"),
        bytes.fromhex("0603551d130101ff04023100"),
    )
    of = (Certificate(forged), view(ROOT.certificate))
    assert outcome([loaded(ROOT, extensions=[LEAVES])], of) == (Reason.MALFORMED_CERTIFICATE, 0)


def signed(authority: Authority, content: bytes) -> bytes:
    """:returns: a list of this content, signed by a P-256 CA."""
    assert isinstance(authority.private_key, ec.EllipticCurvePrivateKey)
    signature = authority.private_key.sign(content, ec.ECDSA(SHA256()))
    return tlv(0x30, content + ECDSA_SHA256 + tlv(0x03, b"\0" + signature))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_negative_serial_number() -> None:
    serial = 0x11223344556677
    old, new = serial.to_bytes(7, "big"), (serial | 1 << 55).to_bytes(7, "big")
    leaf = edited(ROOT, ROOT.issue("leaf", serial=serial, **AT), old, new)
    content = crl(ROOT, [serial], now=NOW).tbs_certlist_bytes
    lists = parse_crls(signed(ROOT, content.replace(old, new)))
    of = (Certificate(leaf), view(ROOT.certificate))
    assert outcome(lists, of) == (REVOKED, 0)
    assert outcome([loaded(ROOT, serial)], of) is None


class TestParse:
    """Bytes to lists."""

    one, two = crl(ROOT, [C], now=NOW, number=7), crl(LOWER, now=NOW)

    @pytest.mark.parametrize(
        "data",
        [
            der(one),
            pem(one),
            pem(one).replace(b"\n", b"\r\n"),
            base64.b64encode(der(one)),
            base64.encodebytes(der(one)) + b"\n",
            b"Certificate Revocation List (CRL):\n  Version 2\n" + pem(one) + b"\nthe end\n",
        ],
    )
    def test_pem_and_der_are_read(self, data: bytes) -> None:
        [found] = parse_crls(data)
        public = attrs.fields_dict(RevocationList).keys()
        told = {name: getattr(found, name) for name in public if not name.startswith("_")}
        issuer, revoked = told.pop("issuer"), told.pop("revoked")
        assert issuer.der == ROOT.certificate.subject.public_bytes()
        assert list(revoked) == [(C.certificate.serial_number, NOW - HOUR, "unspecified")]
        assert told == {
            "authority_key_identifier": x509.SubjectKeyIdentifier.from_public_key(
                ROOT.private_key.public_key()
            ).digest,
            "this_update": NOW - HOUR,
            "next_update": NOW - HOUR + 7 * DAY,
            "number": 7,
            "is_delta": False,
            "covers": "all",
            "distribution_points": None,
        }

    def test_a_file_may_hold_many_lists(self) -> None:
        found = parse_crls(b"x\n" + pem(self.one) + b"y\n" + pem(self.two) + pem(self.one))
        assert [one.issuer.rfc4514_string() for one in found] == ["CN=root", "CN=lower", "CN=root"]

    @pytest.mark.parametrize("what", ["leaves", "authorities"])
    def test_a_partition_covers_its_own_kind(self, what: str) -> None:
        extension = LEAVES if what == "leaves" else AUTHORITIES
        assert loaded(ROOT, extensions=[extension]).covers == what

    def test_never_shown(self) -> None:
        """A list prints as a line, not as its entries."""
        assert len(repr(loaded(ROOT, *range(1, 100)))) < 600
        assert str(loaded(ROOT)) == 'the CRL of "CN=root" of 2026-06-15T11:00:00+00:00'

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"nonsense!", "is neither PEM nor DER nor base64 of DER"),
            (b"bm9uc2Vuc2U=", "the CRL does not parse: "),
            (der(one)[:-1], "the CRL does not parse: "),
            (der(one) + b"\0", "the CRL does not parse: "),
            (ROOT.pem, "PEM block 1 of 1 is a CERTIFICATE, not an X509 CRL"),
            (pem(one) + ROOT.pem, "PEM block 2 of 2 is a CERTIFICATE, not an X509 CRL"),
            (
                pem(one) + pem(one)[:-9],
                "the PEM is damaged: 2 BEGIN lines and 2 END lines make 1 whole blocks",
            ),
            (C.certificate.public_bytes(Encoding.DER), "the CRL does not parse: "),
        ],
    )
    def test_what_is_no_list_is_an_error(self, data: bytes, text: str) -> None:
        with pytest.raises(CredentialError) as caught:
            parse_crls(data)
        assert str(caught.value).startswith(text)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("how", "text"),
        [
            ({"extensions": [partition(indirect_crl=True)]}, "is an indirect CRL"),
            (
                {"entry_extensions": [
                    (x509.CertificateIssuer([x509.DirectoryName(OTHER.certificate.subject)]), True)
                ]},
                "is an indirect CRL",
            ),
            (
                {"extensions": [
                    partition(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise]))
                ]},
                "is for some reasons only",
            ),
            (
                {"extensions": [partition(only_contains_attribute_certs=True)]},
                "is for attribute certificates",
            ),
            (
                {"extensions": [partition(relative_name=x509.RelativeDistinguishedName(
                    ROOT.certificate.subject
                ))]},
                "names its distribution point relative to its issuer",
            ),
            (
                {"extensions": [
                    (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)
                ]},
                "has the critical extension 1.2.3.4, which is not supported",
            ),
            (
                {"extensions": [(x509.FreshestCRL(_points(ONE)[0]), True)]},
                "has the critical extension 2.5.29.46, which is not supported",
            ),
            (
                {"entry_extensions": [
                    (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)
                ]},
                "has an entry with the critical extension 1.2.3.4",
            ),
            ({"reason": x509.ReasonFlags.remove_from_crl}, "has an entry removeFromCRL"),
            ({"number": None}, "has no CRL number"),
            ({"extensions": [(x509.CRLNumber(1), True)]}, "has a critical CRL number"),
        ],
    )  # fmt: skip
    def test_a_list_that_cannot_be_applied_in_full_is_refused(
        self, how: dict[str, Any], text: str
    ) -> None:
        """What could not be applied in full is refused, by the place in the file."""
        bad = crl(ROOT, [C], now=NOW, **how)
        with pytest.raises(CredentialError) as caught:
            parse_crls(der(bad))
        assert str(caught.value).startswith(f"the CRL {text}")
        with pytest.raises(CredentialError) as caught:
            parse_crls(pem(self.one) + pem(bad) + pem(self.one))
        assert str(caught.value).startswith(f"CRL 2 of 3 {text}")

    @pytest.mark.parametrize(
        "how",
        [
            {"extensions": [
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), False),
                (x509.FreshestCRL(_points(ONE)[0]), False),
            ]},
            {"entry_extensions": [(x509.InvalidityDate(NOW), True)]},
            {"entry_extensions": [
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), False)
            ]},
        ],
    )  # fmt: skip
    def test_harmless_extensions_are_tolerated(self, how: dict[str, Any]) -> None:
        assert outcome([loaded(ROOT, C, **how)], path(C, ROOT)) == (REVOKED, 0)

    @pytest.mark.parametrize("how", [{"number": None}, {"extensions": [(x509.CRLNumber(1), True)]}])
    def test_only_strict_demands_a_crl_number(self, how: dict[str, Any]) -> None:
        """Only the strict demand a CRL number, and that it is not critical."""
        lists = parse_crls(der(crl(ROOT, [C], now=NOW, **how)), strict=False)
        assert outcome(lists, path(C, ROOT)) == (REVOKED, 0)

    def test_no_next_update(self) -> None:
        """A list that would never expire is refused."""
        content = self.one.tbs_certlist_bytes
        begin = content.index(b"\x17\x0d")
        # The header is of 30 82 xx xx or 30 81 xx: cut it and the second time.
        body = content[content.index(b"\x02\x01\x01") : begin + 15] + content[begin + 30 :]
        with pytest.raises(CredentialError, match="the CRL has no nextUpdate"):
            parse_crls(signed(ROOT, tlv(0x30, body)))

    @pytest.mark.parametrize(("last", "name"), [(b"\x05", "sha1"), (b"\x04", "md5")])
    def test_weak_signature(self, last: bytes, name: str) -> None:
        """What OpenSSL at security level 2 refuses in a certificate, a list must not have."""
        key = rsa.generate_private_key(65537, 2048)
        good = der(crl(Authority.create("rsa", key=key, **AT), now=NOW))
        pkcs1 = bytes.fromhex("2a864886f70d0101")
        bad = good.replace(pkcs1 + b"\x0b", pkcs1 + last)
        assert bad != good
        with pytest.raises(CredentialError, match=f"the CRL is signed with {name}: OpenSSL"):
            parse_crls(bad)

    def test_unknown_signature(self) -> None:
        bad = der(self.one).replace(ECDSA_SHA256[4:], ECDSA_SHA256[4:-1] + b"\x7f")
        with pytest.raises(CredentialError, match="the CRL does not parse"):
            parse_crls(bad)

    @given(st.data())
    @settings(max_examples=300)
    def test_whatever_the_bytes_nobody_is_let_in(self, data: st.DataObject) -> None:
        """Whatever the bytes: lists or a one-line error, and a changed list
        never lets anybody in."""
        whole = bytearray(der(self.one))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        try:
            lists = parse_crls(bytes(whole))
        except CredentialError as error:
            text = str(error)
        else:
            # What is made a delta by it is left out of every rule.
            found = verdict([one for one in lists if not one.is_delta], path(C, ROOT))
            assert found is not None
            text = found.detail
        assert text.isprintable()


DELTA: dict[str, Any] = {"extensions": [(x509.DeltaCRLIndicator(1), True)]}
NEW_DELTA: dict[str, Any] = {**DELTA, "this_update": NOW - SECOND, "number": 2}


class TestDeltas:
    """A delta CRL is left out, unless that would admit whom it revokes."""

    @pytest.mark.parametrize("critical", [True, False])
    @pytest.mark.parametrize("base", [[], [loaded(LOWER)], [loaded(ROOT, extensions=[LEAVES])]])
    def test_a_delta_without_its_base_is_refused(
        self, critical: bool, base: list[RevocationList]
    ) -> None:
        """One without a complete list of the same kind cannot be applied."""
        delta = loaded(ROOT, extensions=[(x509.DeltaCRLIndicator(1), critical)])
        with pytest.raises(CredentialError, match=r"delta CRL of .*: a complete one is needed"):
            without_deltas([delta, *base])
        with pytest.raises(ValueError, match="a delta CRL is no complete list"):
            Revocation((delta,))

    @pytest.mark.parametrize(
        ("base", "delta", "fits"),
        [
            ([C], loaded(ROOT, C, **NEW_DELTA), True),
            ([C], loaded(ROOT, **NEW_DELTA), True),
            ([A, C], loaded(ROOT, C, **NEW_DELTA), True),
            ([A], loaded(ROOT, C, **NEW_DELTA), False),
            ([], loaded(ROOT, C, **NEW_DELTA), False),
            # Whoever it releases waits for the next complete list.
            ([C], loaded(ROOT, C, reason=x509.ReasonFlags.remove_from_crl, **NEW_DELTA), True),
            ([], loaded(ROOT, C, reason=x509.ReasonFlags.remove_from_crl, **NEW_DELTA), True),
            # A complete list that is newer has the last word.
            ([], loaded(ROOT, C, **DELTA, this_update=NOW - DAY), True),
        ],
    )
    def test_beside_its_base(
        self, base: list[Credential], delta: RevocationList, fits: bool
    ) -> None:
        complete = loaded(ROOT, *base)
        for lists in ([complete, delta], [delta, complete]):
            if fits:
                assert without_deltas(lists) == ((complete,), (delta,))
            else:
                with pytest.raises(CredentialError, match="which revokes certificates that no"):
                    without_deltas(lists)

    def test_without_deltas_nothing_is_left_out(self) -> None:
        lists = (loaded(ROOT), loaded(LOWER))
        assert without_deltas(lists) == (lists, ())


class TestProblems:
    """What ``check`` warns of."""

    @pytest.mark.parametrize(
        ("lists", "expected"),
        [
            ([GOOD_ROOT], []),
            ([GOOD_ROOT, GOOD_LOWER], []),
            ([], ['the CA "CN=root" has no CRL that it signed: what it issued is rejected']),
            (
                [GOOD_LOWER],
                ['the CA "CN=root" has no CRL that it signed: what it issued is rejected'],
            ),
            (
                [GOOD_ROOT, FORGED],
                [f"{FORGED} is not signed by that CA: it was changed, or is by another CA of that "
                 "name"],
            ),
            (
                [loaded(NAMESAKE)],
                ['the CA "CN=root" has no CRL that it signed: what it issued is rejected',
                 f"{GOOD_ROOT} is by another CA of that name, or by another key of this one"],
            ),
            (
                [loaded(ROOT, **ENDED)],
                ['the CRL of "CN=root" of 2026-06-14T12:00:00+00:00 expired at '
                 "2026-06-15T11:59:59+00:00"],
            ),
            ([loaded(ROOT, **PAST), GOOD_ROOT], []),
            (
                [GOOD_ROOT, loaded(ROOT, extensions=[LEAVES], **PAST)],
                ['the CRL of "CN=root" of 2026-06-06T12:00:00+00:00 expired at '
                 "2026-06-07T12:00:00+00:00"],
            ),
            (
                [GOOD_ROOT, loaded(LOWER, **ENDED)],
                ['the CRL of "CN=lower" of 2026-06-14T12:00:00+00:00 expired at '
                 "2026-06-15T11:59:59+00:00"],
            ),
            (
                [loaded(ROOT, **FUTURE)],
                ['the CRL of "CN=root" of 2026-06-15T13:00:00+00:00 is not yet valid'],
            ),
            ([GOOD_ROOT, loaded(LOWER, **FUTURE)], []),
        ],
    )  # fmt: skip
    def test_problems_name_the_ca_and_the_list(
        self, lists: list[RevocationList], expected: list[str]
    ) -> None:
        assert list(Revocation(tuple(lists)).problems(views([ROOT.certificate]), NOW)) == expected

    def test_two_cas_of_one_name_need_a_list_each(self) -> None:
        """Two CAs of one name: each needs a list, and each list one of them."""
        both = views([ROOT.certificate, NAMESAKE.certificate])
        assert not list(Revocation((GOOD_ROOT, loaded(NAMESAKE))).problems(both, NOW))
        [text] = Revocation((GOOD_ROOT,)).problems(both, NOW)
        assert "has no CRL" in text

    def test_a_ca_that_may_not_sign_lists(self) -> None:
        unable = Authority.create("unable", extra_extensions=[_usage(crl_sign=False)], **AT)
        first, second = Revocation((loaded(unable),)).problems(views([unable.certificate]), NOW)
        assert "has no CRL that it signed" in first
        assert "does not include cRLSign" in second


class TestCost:
    """What a handshake pays."""

    def test_signatures_are_checked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At load for the rule's CAs, and once for each intermediate."""
        checked = []
        real = RevocationList._is_signed_by

        def counting(self: RevocationList, issuer: Certificate) -> bool:
            checked.append(self.issuer.rfc4514_string())
            return real(self, issuer)

        monkeypatch.setattr(RevocationList, "_is_signed_by", counting)
        judge = Revocation((GOOD_ROOT, GOOD_LOWER))
        assert list(judge.problems(views([ROOT.certificate]), NOW)) == []
        assert checked == ["CN=root"]
        for one in (A, B, A):
            of = tuple(Certificate(each.der) for each in path(one, LOWER, ROOT))
            assert judge.judge(of, NOW) is None
        assert checked == ["CN=root", "CN=lower"]

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revocation, "MAX_REMEMBERED", 2)
        judge = Revocation((GOOD_ROOT,))
        for _ in range(4):
            again = Authority.create("root", key=ROOT.private_key, **AT)
            assert judge.judge(path(C, again), NOW) is None
        assert judge._fault.cache_info().currsize == 2  # type: ignore[attr-defined]

    def test_a_hundred_thousand_entries(self) -> None:
        """They are read once; a verdict takes no time that grows with them."""
        serials = {secrets.randbits(120) | 1 << 119: None for _ in range(100_000)}
        date = tlv(0x17, f"{NOW:%y%m%d%H%M%SZ}".encode())
        entries = (tlv(0x30, tlv(0x02, one.to_bytes(16, "big")) + date) for one in serials)
        content = crl(ROOT, [1], now=NOW, revoked_at=NOW).tbs_certlist_bytes
        before, after = content.split(tlv(0x30, tlv(0x30, tlv(0x02, b"\1") + date)))
        body = before[before.index(b"\x02\x01\x01") :] + tlv(0x30, b"".join(entries)) + after
        [large] = parse_crls(signed(ROOT, tlv(0x30, body)))
        assert {one.serial for one in large.revoked} == serials.keys()
        assert len(large.revoked) == len(serials)
        judge = Revocation((large,))
        listed = ROOT.issue("listed", serial=next(reversed(serials)), **AT)
        assert judge.judge(path(C, ROOT), NOW) is None
        found = judge.judge(path(listed, ROOT), NOW)
        assert found is not None
        assert found.reason is REVOKED
        # A scan would call something for each entry.
        assert calls(lambda: judge.judge(path(C, ROOT), NOW)) < 1_000


#: Lists of one CA: (hours since thisUpdate, hours of life, number, whether it has the leaf).
_SHAPES = st.tuples(st.integers(-3, 6), st.integers(1, 8), st.integers(1, 2), st.booleans())
_CACHE: dict[tuple[int, int, int, bool], RevocationList] = {}


def _shaped(shape: tuple[int, int, int, bool]) -> RevocationList:
    age, life, number, has = shape
    if shape not in _CACHE:
        begin = NOW - age * HOUR
        _CACHE[shape] = loaded(
            ROOT, *[C] * has, this_update=begin, next_update=begin + life * HOUR, number=number
        )
    return _CACHE[shape]


@pytest.mark.slow
@given(st.lists(_SHAPES, max_size=5), st.randoms())
@settings(max_examples=300)
def test_revocation_only_ever_restricts(
    shapes: list[tuple[int, int, int, bool]], random: Any
) -> None:
    lists, of = [_shaped(one) for one in shapes], path(C, ROOT)
    found = outcome(lists, of)

    # Order never matters, and neither do repetitions.
    shuffled = lists + lists[:1]
    random.shuffle(shuffled)
    assert outcome(shuffled, of) == found

    # Lists of others never matter, be they forged or a namesake's.
    if found != (MISSING, 0):
        assert outcome([*lists, FORGED, loaded(NAMESAKE, C), loaded(OTHER, C)], of) == found

    # Admitted only by a list in force that no list in force is newer than.
    if found is None:
        begun = [one for one in lists if one.this_update <= NOW]
        newest = [one for one in begun if one.age == max(each.age for each in begun)]
        assert any(one.next_update >= NOW for one in newest)
        assert not any(one.revoked for one in newest)

    # A newer list that has the leaf always revokes, and an older one changes nothing.
    assert outcome([*lists, _shaped((-4, 8, 1, True))], of) == (REVOKED, 0)
    if found is None or found[0] is not MISSING:
        older = _shaped((24, 48, 1, True))
        changed = outcome([*lists, older], of)
        assert changed == found or not any(one.this_update <= NOW for one in lists)
