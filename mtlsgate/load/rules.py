"""
Builds rules from ``client_certificate`` blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial

from mtlsgate.admission import Pin, Rule
from mtlsgate.admission.conditions import Clause, Condition, clause, is_meant_as_pattern, read_value
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.crl import RevocationList, parse_crls
from mtlsgate.config import model
from mtlsgate.config.agents import VARIABLE, agent_of, parse_agent
from mtlsgate.errors import CredentialError, Report
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.lint import PinLint
from mtlsgate.load.registries import RegistryReader
from mtlsgate.load.state import State
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import quoted


class RuleReader:
    """
    Reads the rules of one load.

    :ivar files: reads the certificates and revocation lists.
    :ivar report: where problems go.
    :ivar now: the time by which certificates are judged.
    """

    def __init__(
        self,
        files: CertificateFiles,
        report: Report,
        now: Callable[[], datetime],
        registries: RegistryReader,
        agents: Agents,
        environ: Mapping[str, str],
    ) -> None:
        """
        :param registries: has those that rules name.
        :param agents: has what SPIFFE agents have delivered.
        :param environ: the environment variables.
        """
        self.files = files
        self._agents = agents
        self._environ = environ
        self.report = report
        self.now = now
        self._registries = registries
        self._pins_held: dict[Pin, Pin] = {}
        # Many rules may name one URL.
        self._fetched: dict[tuple[str, bool], tuple[RevocationList, ...]] = {}

    def rules(self, tls: model.Tls, deny: tuple[Condition, ...], state: State) -> Iterator[Rule]:
        """
        :param deny: the conditions of the server's own ``deny`` blocks.
        :param state: has the lists that were fetched.
        :returns: the rules of a server, without those that are wrong.
        """
        for number, block in enumerate(tls.client_certificate, 1):
            strict = tls.verification != "compatible"
            agent = self._agent(block, tls) if block.trust_domains else None
            rule = self.rule(block, number, deny, strict, state, agent)
            if rule is not None:
                yield rule

    def rule(
        self,
        block: model.ClientCertificate,
        number: int,
        server_deny: tuple[Condition, ...] = (),
        strict: bool = True,
        state: State | None = None,
        agent: str | None = None,
    ) -> Rule | None:
        """
        :param number: the block's number in its server, the name of a rule without a
            label.
        :param server_deny: the server's conditions, to warn about pins that they deny.
        :param strict: whether CRLs must follow the RFC 5280 profile.
        :param state: has the lists that were fetched; None if nothing was.
        :param agent: the socket of the SPIFFE agent, for a rule that names trust domains.
        :returns: the rule; None if the report says what is wrong.
        """
        authorities = self._authorities(block)
        allow = tuple(self.conditions(block.allow, "allow"))
        deny = tuple(self.conditions(block.deny, "deny"))
        lint = PinLint(block, authorities, allow, (*server_deny, *deny), self.now(), self.report)
        pins = tuple(self._pins(block, lint))
        lint.end()
        revocation = self._revocation(block, strict, state)
        registry = None
        if block.registry is not None:
            registry = self._registries.named(block.registry, block.heading)
            if registry is None:
                return None
        if block.spiffe_trust_domain is None and not (authorities or pins):
            return None
        if block.spiffe_trust_domain is not None and agent is None:
            return None
        rule = Rule(
            block.label or f"#{number}",
            authorities,
            pins,
            allow=allow,
            deny=deny,
            max_depth=block.max_depth,
            revocation=revocation,
            registry=registry,
        )
        if agent is None:
            return rule
        bundle = self._agents.bundle
        return rule.with_bundles(tuple(bundle(one, agent) for one in block.trust_domains))

    def _agent(self, block: model.ClientCertificate, tls: model.Tls) -> str | None:
        """:returns: the socket of the agent that delivers a rule's bundles; None if the report
        says what is wrong."""
        if block.spiffe_socket is not None:
            return agent_of(block.spiffe_socket)
        named = {one.agent for one in tls.server_certificate if one.agent is not None}
        if len(named) == 1:
            return named.pop()
        try:
            return self._agent_of_environment(several=bool(named))
        except ValueError as error:
            self.report.error(block.at, block.heading, str(error))
            return None

    def _agent_of_environment(self, *, several: bool) -> str:
        """:raises ValueError: in one line, if it names none."""
        if several:
            raise ValueError("the server has several agents: set spiffe_socket to one of them")
        if VARIABLE not in self._environ:
            raise ValueError(
                "no agent delivers the trust domain's bundle: set spiffe_socket, as in "
                f'"unix:/run/spire/agent.sock", or the environment variable {VARIABLE}'
            )
        try:
            return parse_agent(self._environ[VARIABLE])
        except ValueError as error:
            raise ValueError(f"the environment variable {VARIABLE} {error}") from None

    def _revocation(
        self, block: model.ClientCertificate, strict: bool, state: State | None
    ) -> Revocation | None:
        lists = self.files.revocation_lists(block.crl, block.crl_dir, block.heading, strict)
        fetched = {url.text: self._lists_from(url.text, strict, state) for url in block.urls}
        for found in fetched.values():
            lists += found
        if not lists and not fetched:
            return None
        return Revocation(lists, block.crl_scope or "path", fetched=fetched)

    def _lists_from(
        self, url: str, strict: bool, state: State | None
    ) -> tuple[RevocationList, ...]:
        """:returns: the lists that were fetched; none if they are of no use any more."""
        if (url, strict) not in self._fetched:
            data = None if state is None else state.lists_from(url)
            try:
                found = () if data is None else parse_crls(data, strict=strict)
            except CredentialError:
                found = ()
            # A delta is never kept, so somebody else has put it there.
            self._fetched[url, strict] = () if any(one.is_delta for one in found) else found
        return self._fetched[url, strict]

    def _authorities(self, block: model.ClientCertificate) -> tuple[Certificate, ...]:
        authorities = self.files.certificates(block.ca_certificate, block.heading)
        for place, authority in enumerate(authorities, 1):
            if block.ca_certificate is not None and not authority.is_ca:
                count = len(authorities)
                which = f"certificate {place} of {count}" if count > 1 else "the certificate"
                self.files.refuse(
                    block.ca_certificate,
                    block.heading,
                    CredentialError(
                        f"{which} is not a CA (CA:FALSE): to admit exactly it, write "
                        "leaf_certificate"
                    ),
                )
        return authorities

    def _pins(self, block: model.ClientCertificate, lint: PinLint) -> Iterator[Pin]:
        def keep(leaf: Certificate, written: model.PinBlock | None = None) -> Pin:
            if written is None:
                pin = Pin(leaf)
            else:
                pin = Pin(leaf, written.label, written.not_before, written.retire_after)
            lint.look(pin, leaf)
            # Fifty servers may name the same pin: store it once.
            return self._pins_held.setdefault(pin, pin)

        yield from self.files.each_certificate(block.leaf_certificate, block.heading, keep)
        yield from self.files.each_certificate_in(block.leaf_certificate_dir, block.heading, keep)
        for written in block.pin:
            pins = self.files.each_certificate(
                written.leaf_certificate, written.heading, partial(keep, written=written)
            )
            if len(pins) > 1:
                self.files.refuse(
                    written.leaf_certificate,
                    written.heading,
                    CredentialError(
                        f"holds {len(pins)} certificates; a pin is one: name the leaf alone"
                    ),
                )
            yield from pins

    def conditions(
        self, blocks: Iterable[model.ConditionBlock], heading: str
    ) -> Iterator[Condition]:
        """
        :param blocks: of ``allow`` or ``deny``.
        :param heading: which of the two, for messages.
        """
        for block in blocks:
            clauses = tuple(self._clauses(block, heading))
            named = block.registry if isinstance(block, model.DenyBlock) else None
            registry = None if named is None else self._registries.named(named, heading)
            # Without what is wrong with it, a block would match more.
            if (clauses or registry) and (named is None) is (registry is None):
                yield Condition(clauses, registry)

    def _clauses(self, block: model.ConditionBlock, heading: str) -> Iterator[Clause]:
        for attribute, values in block.stated():
            read = {}
            for value in values:
                try:
                    read[value.value] = read_value(attribute, value.value)
                except ValueError as error:
                    self.report.error(
                        value.at, heading, f"{attribute}: {quoted(value.value)} {error}"
                    )
                if is_meant_as_pattern(attribute, value.value):
                    text = "is compared exactly: a * in it stands for itself, not for other text"
                    shown = quoted(value.value)
                    self.report.warn(value.at, heading, f"{attribute}: {shown} {text}")
            if read:
                yield clause(attribute, read)
