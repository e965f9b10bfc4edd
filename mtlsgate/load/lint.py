"""
Warnings about probable mistakes, at load and in ``mtlsgate check``.

This module is pure: certificates and a time go in, warnings go into a `Report`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Hashable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache

import certifi

from mtlsgate.admission import AdmissionPolicy, Pin, Rule
from mtlsgate.admission.conditions import Condition, Leaf
from mtlsgate.admission.leaf import is_for_clients, may_sign
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.certificates.signatures import is_surely_not_by
from mtlsgate.certificates.strength import key_weakness, signature_weakness
from mtlsgate.certificates.svid import spiffe_id_of
from mtlsgate.config.model import ClientCertificate, Server
from mtlsgate.errors import CredentialError, Position, Report
from mtlsgate.load.expiry import CRL_SHARE, SOON, soon
from mtlsgate.load.lint_rules import among_rules
from mtlsgate.spiffe.agents import SvidSource
from mtlsgate.text import printable
from mtlsgate.tls.ca_names import LONGEST_MESSAGE


def server(
    block: Server,
    own: tuple[ServerCredential | MissingCredential, ...],
    policy: AdmissionPolicy | None,
    now: datetime,
    report: Report,
) -> None:
    """
    Warn about rules that admit nobody, soon will not, or do not do what they seem to.

    :param block: the server as written.
    :param own: its certificates, one for each server_certificate block, or
        one made in memory.
    :param policy: its rules, one for each client_certificate block.
    """
    for certificate_block, credential in zip(block.tls.server_certificate, own, strict=False):
        if isinstance(credential.source, SvidSource):
            # No agent is asked to check a configuration, and what it delivers is replaced.
            continue
        if isinstance(credential, MissingCredential):
            # It may come at any time.  The overview of what there is says so.
            continue
        for place, one in enumerate(credential.chain):
            for text in certificate(one, now):
                role = "intermediate certificate" if place else "certificate"
                report.warn(certificate_block.at, certificate_block.heading, f"the {role} {text}")
    if policy is None:
        return
    blocks = block.tls.client_certificate
    for rule_block, rule in zip(blocks, policy.rules, strict=True):
        for at, text in _rule(rule_block, rule, now):
            report.warn(at, rule_block.heading, text)
    for rule_block, text in among_rules(blocks, policy):
        report.warn(rule_block.at, rule_block.heading, text)


def certificate(one: Certificate, now: datetime) -> Iterator[str]:
    """:returns: why a certificate is not accepted, or soon will not be."""
    yield from _validity(one, now)
    yield from _stated(_key_weakness(one))
    yield from _stated(signature_weakness(one))


def request(block: Server, size: int, report: Report) -> None:
    """
    Warn if the CertificateRequest has no names because they are too long.

    :param size: the length of the CertificateRequest with all names, in bytes.
    """
    if size > LONGEST_MESSAGE:
        report.warn(
            block.tls.at,
            "tls",
            f"the names of its CAs make a CertificateRequest of {size} bytes; some clients take "
            f"no more than {LONGEST_MESSAGE}, so no name is sent: name fewer CAs, or set "
            "send_ca_names = false",
        )


def _rule(block: ClientCertificate, rule: Rule, now: datetime) -> Iterator[tuple[Position, str]]:
    if block.ca_certificate is not None:
        for authority in rule.authorities:
            for text in (
                *_validity(authority, now),
                *_stated(_key_weakness(authority)),
                *_public(authority),
                *_reach(authority, rule),
            ):
                yield block.ca_certificate.at, f"the CA {_named(authority)} {text}"
    if rule.revocation is not None:
        lists = block.crl or block.crl_dir or block.crl_url
        assert lists is not None
        # What is missing may still be fetched.
        waiting = rule.revocation.is_waiting
        for text in () if waiting else rule.revocation.problems(rule.authorities, now):
            yield lists.at, text
        for text in _ending(rule.revocation, now):
            yield lists.at, text
        if block.ca_certificate is not None:
            for text in _revoked(rule.authorities, rule.revocation):
                yield block.ca_certificate.at, text


def _ending(revocation: Revocation, now: datetime) -> Iterator[str]:
    """Lists that expire soon; then everyone they cover is rejected."""
    for one in revocation.lists:
        period = one.next_update - one.this_update
        left = one.next_update - now
        if timedelta(0) <= left < period / CRL_SHARE and not revocation.is_superseded(one, now):
            yield f"{one} expires soon, at {one.next_update.isoformat()}"


def _revoked(authorities: Sequence[Certificate], revocation: Revocation) -> Iterator[str]:
    """CAs of the rule that another CA of the rule has revoked.  A rule's own CAs are not
    checked for revocation."""
    for authority in authorities:
        issuer = authority.issuer.key
        for one in revocation.lists:
            if (
                one.issuer.key == issuer
                and authority.serial_number in one.revoked
                and any(
                    one.fault(upper) is None
                    for upper in authorities
                    if upper != authority and upper.subject.key == issuer
                )
            ):
                yield (
                    f"the CA {_named(authority)} is revoked by {one}: what it issued is admitted "
                    "all the same, because it is a CA of the rule itself; remove it"
                )


class PinLint:
    """
    Checks the pins of one rule while they are read, because parsed pins are not kept.

    :ivar _by_subject: the rule's CAs, by their subjects.
    :ivar _unsatisfied: the ``allow`` blocks that no pin has satisfied so far.
    :ivar _seen: whether there was a pin.
    """

    def __init__(
        self,
        block: ClientCertificate,
        authorities: tuple[Certificate, ...],
        allow: tuple[Condition, ...],
        deny: tuple[Condition, ...],
        now: datetime,
        report: Report,
    ) -> None:
        """
        :param block: the rule as written.
        :param authorities: its CAs.
        :param allow: the conditions of its ``allow`` blocks, in order.
        :param deny: the conditions of its ``deny`` blocks and its server's.
        """
        self._heading = block.heading
        self._named = {pin.label: pin.at for pin in block.pin}
        otherwise = block.leaf_certificate or block.leaf_certificate_dir
        self._at = block.at if otherwise is None else otherwise.at
        self._by_subject: dict[Hashable, list[Certificate]] = {}
        for authority in authorities:
            self._by_subject.setdefault(authority.subject.key, []).append(authority)
        self._no_intermediate = all(one.path_length == 0 for one in authorities)
        self._trust_domains = block.trust_domains
        self._deny = deny
        # If one of them is wrong, blocks and conditions cannot be matched up.
        self._unsatisfied = list(zip(block.allow, allow, strict=False))
        self._seen = False
        self._now = now
        self._report = report

    def look(self, pin: Pin, certificate: Certificate) -> None:
        """Warn about a pin."""
        self._seen = True
        leaf = Leaf(certificate)
        for text in self._said(pin, leaf):
            at = self._at if pin.name is None else self._named[pin.name]
            self._report.warn(at, self._heading, f"the pin {_named(certificate)} {text}")
        self._unsatisfied = [
            (block, condition)
            for block, condition in self._unsatisfied
            if not condition.allows(leaf)
        ]

    def end(self) -> None:
        """Warn about all pins together."""
        for block, _ in self._unsatisfied if self._seen else ():
            text = "no pin of the rule satisfies this allow block"
            self._report.warn(block.at, self._heading, text)

    def _said(self, pin: Pin, leaf: Leaf) -> Iterator[str]:
        certificate = leaf.certificate
        yield from _validity(certificate, self._now)
        yield from _stated(_key_weakness(certificate))
        if self._by_subject:
            # The signature of a pin that is its own anchor is never checked.
            yield from _stated(signature_weakness(certificate))
        if self._trust_domains:
            yield from self._workload(certificate)
        elif certificate.is_ca and not _is_own_root(certificate):
            yield "is a CA (CA:TRUE): it is admitted itself, and nothing that it issued is"
        if not is_for_clients(certificate):
            yield "can never be admitted: its extended key usage does not include clientAuth"
        if not may_sign(certificate):
            yield "can never be admitted: its key usage does not include digitalSignature"
        if pin.retire_after is not None and self._now > pin.retire_after:
            yield f"was retired on {pin.retire_after:%Y-%m-%d}"
        elif pin.retire_after is not None and pin.retire_after - self._now < SOON:
            yield f"retires soon, on {pin.retire_after:%Y-%m-%d}"
        if self._by_subject:
            yield from self._issuer(certificate)
        if any(condition.denies(leaf) for condition in self._deny):
            yield "is denied by a deny block"

    def _workload(self, leaf: Certificate) -> Iterator[str]:
        try:
            name = spiffe_id_of(leaf)
        except CredentialError as error:
            yield f"can never be admitted: it {error}"
            return
        if name.trust_domain not in self._trust_domains:
            yield f"can never be admitted: {name} is in another trust domain"

    def _issuer(self, leaf: Certificate) -> Iterator[str]:
        namesakes = self._by_subject.get(leaf.issuer.key, ())
        if any(_has_issued(one, leaf) for one in namesakes):
            return
        # If the issuer is not one of the rule's CAs, it may still be an intermediate.
        if namesakes or leaf.issuer.key == leaf.subject.key:
            yield "was not issued by any CA of its rule, so it can never be admitted"
        elif self._no_intermediate:
            yield (
                "can never be admitted: no CA of its rule issued it, and by their path length "
                "no intermediate can stand between"
            )
        else:
            yield (
                "was not issued by any CA of its rule: unless an intermediate stands between "
                "them, it can never be admitted"
            )


def _has_issued(authority: Certificate, certificate: Certificate) -> bool:
    """Compares names, then key identifiers.  Only without identifiers it checks the
    signature, which would take too long for a hundred thousand pins."""
    if certificate.issuer.key != authority.subject.key:
        return False
    named, own = certificate.authority_key_identifier, authority.subject_key_identifier
    if named is not None and own is not None:
        return named == own
    # If this cannot be told here, OpenSSL decides.
    return not is_surely_not_by(authority, certificate)


def _is_own_root(certificate: Certificate) -> bool:
    """Whether it is what ``openssl req -x509`` makes: it signed itself, and says CA:TRUE
    only because that is the command's default."""
    return certificate.issuer.key == certificate.subject.key and certificate.key_usage is None


def _reach(authority: Certificate, rule: Rule) -> Iterator[str]:
    """A CA that cannot be an intermediate because of its issuer's path length."""
    for upper in rule.authorities:
        if upper != authority and upper.path_length == 0 and _has_issued(upper, authority):
            yield (
                f"cannot be reached from the CA {_named(upper)}, whose path length is 0: it "
                "counts by itself only"
            )


def _public(authority: Certificate) -> Iterator[str]:
    """A root that gives certificates to anybody on the Internet."""
    body = b64encode(authority.der)
    if body in _public_roots():
        yield (
            "is a public (WebPKI) root: whoever can get a certificate under it is a client; "
            "name a CA of your own"
        )


@cache
def _public_roots() -> bytes:
    """:returns: the certificates of Mozilla's root store, without line ends."""
    return certifi.contents().encode("ascii").replace(b"\n", b"")


def _validity(certificate: Certificate, now: datetime) -> Iterator[str]:
    begins, ends = certificate.not_before, certificate.not_after
    if now > ends:
        yield f"expired on {ends:%Y-%m-%d}"
    elif now < begins:
        yield f"is not valid before {begins:%Y-%m-%d}"
    elif ends - now < soon(certificate):
        yield f"expires soon, on {ends:%Y-%m-%d}"


def _key_weakness(certificate: Certificate) -> str | None:
    try:
        return key_weakness(certificate)
    except UNPARSABLE:
        # A kind of key that only OpenSSL knows.
        return None


def _stated(weakness: str | None) -> tuple[str, ...]:
    return () if weakness is None else (weakness,)


def _named(certificate: Certificate) -> str:
    return f"{printable(certificate.subject.rfc4514_string())!r}"
