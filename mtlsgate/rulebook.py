"""
From ``client_certificate`` blocks to rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography import x509

from mtlsgate.admission import Pin, Rule
from mtlsgate.admission.conditions import Clause, Condition, clause, read_value
from mtlsgate.admission.revocation import Revocation
from mtlsgate.config import model
from mtlsgate.credentials import is_ca
from mtlsgate.errors import CredentialError, Report
from mtlsgate.materials import Materials
from mtlsgate.text import quoted


class RuleReader:
    """
    Reads the rules of one load.

    :ivar materials: reads the files.
    :ivar report: where problems go.
    """

    def __init__(self, materials: Materials, report: Report) -> None:
        self.materials = materials
        self.report = report

    def rules(self, tls: model.Tls) -> Iterator[Rule]:
        """:returns: the rules of a server, but for those of which nothing is left."""
        for number, block in enumerate(tls.client_certificate, 1):
            strict = tls.verification != "compatible"
            if (rule := self.rule(block, number, strict)) is not None:
                yield rule

    def rule(self, block: model.ClientCertificate, number: int, strict: bool = True) -> Rule | None:
        """
        :param number: of the block in its server, for one without a label.
        :param strict: whether CRLs must keep to the RFC 5280 profile.
        :returns: the rule, or None if the report says why there is none.
        """
        authorities = self._authorities(block)
        pins = tuple(self._pins(block))
        allow = tuple(self.conditions(block.allow, "allow"))
        deny = tuple(self.conditions(block.deny, "deny"))
        lists = self.materials.revocation_lists(
            block.crl_file, block.crl_dir, block.heading, strict
        )
        if not (authorities or pins):
            return None
        return Rule(
            block.label or f"#{number}",
            authorities,
            pins,
            allow=allow,
            deny=deny,
            max_depth=block.max_depth,
            revocation=Revocation(lists, block.crl_scope or "path") if lists else None,
        )

    def _authorities(self, block: model.ClientCertificate) -> tuple[x509.Certificate, ...]:
        authorities = self.materials.certificates(block.ca_certificate, block.heading)
        for place, authority in enumerate(authorities, 1):
            if block.ca_certificate is not None and not is_ca(authority):
                count = len(authorities)
                which = f"certificate {place} of {count}" if count > 1 else "the certificate"
                self.materials.refuse(
                    block.ca_certificate,
                    block.heading,
                    CredentialError(
                        f"{which} is not a CA (CA:FALSE): to admit exactly it, write "
                        "leaf_certificate"
                    ),
                )
        return authorities

    def _pins(self, block: model.ClientCertificate) -> Iterator[Pin]:
        yield from map(Pin, self.materials.certificates(block.leaf_certificate, block.heading))
        yield from map(
            Pin, self.materials.certificate_directory(block.leaf_certificate_dir, block.heading)
        )
        for pin in block.pin:
            leaves = self.materials.certificates(pin.leaf_certificate, pin.heading)
            if len(leaves) > 1:
                self.materials.refuse(
                    pin.leaf_certificate,
                    pin.heading,
                    CredentialError(
                        f"holds {len(leaves)} certificates; a pin is one: name the leaf alone"
                    ),
                )
            for leaf in leaves:
                yield Pin(leaf, pin.label, pin.not_before, pin.retire_after)

    def conditions(self, blocks: Iterable[model.Condition], heading: str) -> Iterator[Condition]:
        """
        :param blocks: of ``allow`` or ``deny``.
        :param heading: which of the two, for messages.
        """
        for block in blocks:
            clauses = tuple(self._clauses(block, heading))
            if clauses:
                yield Condition(clauses)

    def _clauses(self, block: model.Condition, heading: str) -> Iterator[Clause]:
        for attribute, values in block.stated():
            read = {}
            for value in values:
                try:
                    read[value.value] = read_value(attribute, value.value)
                except ValueError as error:
                    self.report.error(
                        value.at, heading, f"{attribute}: {quoted(value.value)} {error}"
                    )
            if read:
                yield clause(attribute, read)
