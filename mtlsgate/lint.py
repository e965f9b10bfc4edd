"""
What is legal but surely not meant: warnings, at load and in ``check``.

Pure: certificates and a time in, warnings into a `Report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from mtlsgate.admission import Rule, allows_client_authentication, lone_pins_of
from mtlsgate.config.model import ClientCertificate, Server
from mtlsgate.credentials import ServerCredential, is_ca, key_weakness, sha256, signature_weakness
from mtlsgate.errors import Position, Report
from mtlsgate.text import printable

#: How long before its end a certificate is warned of.
SOON = timedelta(days=30)


def server(
    block: Server,
    credentials: tuple[ServerCredential, ...],
    rules: tuple[Rule, ...],
    now: datetime,
    report: Report,
) -> None:
    """
    Warn of what can admit nobody, soon will not, or admits more than it seems to.

    :param block: the server as written.
    :param credentials: what it shows, one for each of its server_certificate
        blocks, or one made in memory.
    :param rules: its rules, one for each of its client_certificate blocks.
    """
    for certificate_block, credential in zip(
        block.tls.server_certificate, credentials, strict=False
    ):
        for place, one in enumerate(credential.chain):
            for text in (
                *_validity(one, now),
                *_stated(key_weakness(one)),
                *_stated(signature_weakness(one)),
            ):
                role = "intermediate certificate" if place else "certificate"
                report.warn(certificate_block.at, certificate_block.heading, f"the {role} {text}")
    for rule_block, rule in zip(block.tls.client_certificate, rules, strict=True):
        for at, text in _rule(rule_block, rule, now):
            report.warn(at, rule_block.heading, text)
    for rule_block, text in _shadowed(block.tls.client_certificate, rules):
        report.warn(rule_block.at, rule_block.heading, text)


def _rule(block: ClientCertificate, rule: Rule, now: datetime) -> Iterator[tuple[Position, str]]:
    if block.ca_certificate is not None:
        for authority in rule.authorities:
            for text in (*_validity(authority, now), *_stated(key_weakness(authority))):
                yield block.ca_certificate.at, f"the CA {_named(authority)} {text}"
    if block.leaf_certificate is not None:
        for pin in rule.pins:
            for text in (
                *_validity(pin, now),
                *_stated(key_weakness(pin)),
                # Nobody looks at the signature of an anchor: a CA, or a pin without one.
                *_stated(signature_weakness(pin) if rule.authorities else None),
                *_pin(pin, rule),
            ):
                yield block.leaf_certificate.at, f"the pin {_named(pin)} {text}"


def _pin(pin: x509.Certificate, rule: Rule) -> Iterator[str]:
    if is_ca(pin):
        yield "is a CA (CA:TRUE): it is admitted itself, and nothing that it issued is"
    if not allows_client_authentication(pin):
        yield "can never be admitted: its extended key usage does not include clientAuth"
    if rule.authorities and not any(_may_have_issued(one, pin) for one in rule.authorities):
        yield (
            "was not issued by any CA of its rule: unless an intermediate stands between them, "
            "it can never be admitted"
            if _issuer_unseen(pin, rule)
            else "was not issued by any CA of its rule, so it can never be admitted"
        )


def _issuer_unseen(pin: x509.Certificate, rule: Rule) -> bool:
    """:returns: whether the pin's issuer is none the rule names, so that it
    could be an intermediate of its CAs."""
    return pin.issuer != pin.subject and all(one.subject != pin.issuer for one in rule.authorities)


def _may_have_issued(authority: x509.Certificate, pin: x509.Certificate) -> bool:
    try:
        pin.verify_directly_issued_by(authority)
    except InvalidSignature:
        return False
    except ValueError:
        return False
    except (TypeError, UnsupportedAlgorithm):
        # Not to be told from here: OpenSSL decides.
        return pin.issuer == authority.subject
    return True


def _validity(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        yield f"expired on {ends:%Y-%m-%d}"
    elif now < begins:
        yield f"is not valid before {begins:%Y-%m-%d}"
    elif ends - now < SOON:
        yield f"expires soon, on {ends:%Y-%m-%d}"


def _stated(weakness: str | None) -> tuple[str, ...]:
    return () if weakness is None else (weakness,)


def _shadowed(
    blocks: tuple[ClientCertificate, ...], rules: tuple[Rule, ...]
) -> Iterator[tuple[ClientCertificate, str]]:
    """A rule all of whose pins another rule admits anyway."""
    wide = {
        sha256(authority): block
        for block, rule in zip(blocks, rules, strict=True)
        if not rule.pins
        for authority in rule.authorities
    }
    lone = {sha256(pin) for pin in lone_pins_of(rules)}
    for block, rule in zip(blocks, rules, strict=True):
        if not (rule.pins and rule.authorities):
            continue
        over = [wide.get(sha256(authority)) for authority in rule.authorities]
        first = over[0]
        if first is not None and None not in over:
            yield (
                block,
                f"has no effect: {first.heading} in line {first.at.line} admits every leaf of "
                "the same CA",
            )
        elif all(sha256(pin) in lone for pin in rule.pins):
            yield block, "has no effect: a rule without a CA admits the same leaves"


def _named(certificate: x509.Certificate) -> str:
    return f"{printable(certificate.subject.rfc4514_string())!r}"
