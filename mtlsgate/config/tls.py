"""
The blocks of a ``tls`` block, one frozen attrs class each: who is let in.

As in `mtlsgate.config.model`, which these are part of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from attrs import field, fields, frozen

from mtlsgate.certificates.svid import parse_trust_domain
from mtlsgate.config.agents import (
    wrong_agent,
    wrong_trust_domain,
)
from mtlsgate.config.fields import (
    Duration,
    FileName,
    Instant,
    Located,
    Material,
    label,
    position,
)
from mtlsgate.config.own_certificate import CoupersMaterial, ServerCertificate, Values
from mtlsgate.config.tree import labelled
from mtlsgate.config.urls import Url, parse_urls
from mtlsgate.errors import Position
from mtlsgate.text import quoted

#: How long a session may be resumed if nothing else is said, in seconds.
_SESSION_LIFETIME = 3600.0


@frozen(kw_only=True)
class ConditionBlock:
    """
    An ``allow`` or ``deny`` block: it matches if all its attributes match.  An
    attribute matches if any of its values does.

    :ivar common_names: the subject's; never taken for DNS names.
    :ivar organizations: the subject's.
    :ivar organizational_units: the subject's.
    :ivar dns_names: of the subject alternative name; ``*.`` in front stands
        for one label.
    :ivar uris: of the subject alternative name; ``*`` in the path stands for
        one segment, ``**`` for one or more.
    :ivar email_addresses: of the subject alternative name.
    :ivar ip_addresses: of the subject alternative name; addresses or networks.
    :ivar spiffe_ids: the leaf's SPIFFE ID; patterns as in ``uris``.
    :ivar sha256: the leaf's fingerprint.
    :ivar spki_sha256: that of its public key, in hex or base64.
    :ivar serial_numbers: in hex.
    :ivar issuers: the direct issuer's name, as RFC 4514 has it.
    """

    at: Position = position()
    common_names: Values | None = None
    organizations: Values | None = None
    organizational_units: Values | None = None
    dns_names: Values | None = None
    uris: Values | None = None
    email_addresses: Values | None = None
    ip_addresses: Values | None = None
    spiffe_ids: Values | None = None
    sha256: Values | None = None
    spki_sha256: Values | None = None
    serial_numbers: Values | None = None
    issuers: Values | None = None

    def stated(self) -> Iterator[tuple[str, Values]]:
        """Yield the attributes that are set, with their values."""
        for attribute in fields(ConditionBlock):
            values = getattr(self, attribute.name)
            if attribute.name != "at" and values is not None:
                yield attribute.name, values

    @property
    def is_empty(self) -> bool:
        """Whether it states nothing."""
        return not any(True for _ in self.stated())

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.is_empty:
            yield None, "states nothing, which would match everything: name an attribute"
        for name, values in self.stated():
            if not values:
                yield name, f"{name} is empty, which nothing matches: name a value"


@frozen(kw_only=True)
class DenyBlock(ConditionBlock):
    """
    A ``deny`` block.

    :ivar registry: the label of a registry; matches if the client is listed there.
    """

    registry: Located[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it states nothing."""
        return self.registry is None and super().is_empty


@frozen(kw_only=True)
class PinBlock:
    """
    A pin with a name and, for a planned rotation, a beginning and an end.

    :ivar label: its name in logs.
    :ivar leaf_certificate: one leaf.
    :ivar not_before: when it begins to count.
    :ivar retire_after: the last instant at which it counts.
    """

    at: Position = position()
    label: str = label()
    leaf_certificate: Material = field()
    not_before: Instant | None = None
    retire_after: Instant | None = None

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return labelled("pin", self.label)

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.not_before and self.retire_after and self.not_before >= self.retire_after:
            yield "retire_after", "retire_after is not after not_before: it would never count"


@frozen(kw_only=True)
class ClientCertificate:
    """
    A rule: who may come in.

    :ivar label: the rule's name in logs and in `VerifiedPeer.rule`.
    :ivar ca_certificate: the CAs, each of them trusted.
    :ivar leaf_certificate: the pins.
    :ivar leaf_certificate_dir: a directory of further pins: every ``*.pem``,
        ``*.crt``, ``*.cer`` and ``*.der`` in it.
    :ivar pin: further pins, with a name each.
    :ivar allow: if there are any, one of them must match.
    :ivar deny: none of them may match.
    :ivar registry: the label of a registry that must list the client as active.
    :ivar max_depth: how many intermediates a path may have.
    :ivar crl: revocation lists, one or many.
    :ivar crl_dir: a directory of revocation lists: every ``*.pem``, ``*.crl``
        and ``*.der`` in it.
    :ivar crl_url: where revocation lists are fetched from, a URL or a list of them.
    :ivar crl_scope: whether every certificate of the path below the CA must be
        covered, or the leaf alone.
    :ivar spiffe_trust_domain: the SPIFFE trust domain whose workloads are admitted; its
        bundle has the CAs.
    :ivar spiffe_federated: further trust domains, each with its own bundle.
    :ivar spiffe_socket: the socket of the SPIFFE agent that delivers the bundles.
    """

    at: Position = position()
    label: str | None = label(default=None)
    ca_certificate: CoupersMaterial | None = None
    leaf_certificate: CoupersMaterial | None = None
    leaf_certificate_dir: Located[FileName] | None = None
    pin: tuple[PinBlock, ...] = ()
    allow: tuple[ConditionBlock, ...] = ()
    deny: tuple[DenyBlock, ...] = ()
    registry: Located[str] | None = None
    max_depth: int | None = None
    crl: Material | None = None
    crl_dir: Located[FileName] | None = None
    crl_url: Located[Any] | None = None
    crl_scope: Literal["path", "leaf"] | None = None
    spiffe_trust_domain: Located[str] | None = None
    spiffe_federated: tuple[Located[str], ...] = ()
    spiffe_socket: Located[str] | None = None

    @property
    def trust_domains(self) -> tuple[str, ...]:
        """The names of the SPIFFE trust domains, the rule's own first; none if one is wrong."""
        if self.spiffe_trust_domain is None:
            return ()
        written = (self.spiffe_trust_domain, *self.spiffe_federated)
        try:
            return tuple(dict.fromkeys(parse_trust_domain(one.value) for one in written))
        except ValueError:
            # `problems` says so.
            return ()

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return labelled("client_certificate", self.label)

    @property
    def urls(self) -> tuple[Url, ...]:
        """Where revocation lists are fetched from; none if one is no such URL."""
        try:
            return () if self.crl_url is None else parse_urls(self.crl_url.value)
        except ValueError:
            # `problems` says so.
            return ()

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        pinned = self.leaf_certificate or self.leaf_certificate_dir or self.pin
        lists = self.crl or self.crl_dir or self.crl_url
        if self.label is not None and re.fullmatch(r"#[0-9]+", self.label):
            yield None, f"the label {quoted(self.label)} is what a rule without a label is called"
        has_ca = self.ca_certificate is not None or self.spiffe_trust_domain is not None
        if not has_ca and not pinned:
            yield (
                None,
                "neither a CA nor a leaf: set ca_certificate(_file), leaf_certificate(_file) "
                "or both",
            )
        yield from self._spiffe_problems()
        if self.max_depth is not None and self.max_depth < 0:
            yield "max_depth", "max_depth is a number of intermediates: 0 or more"
        if not has_ca and self.max_depth is not None:
            yield "max_depth", "max_depth needs a CA: a leaf alone has no path to count"
        if not has_ca and lists:
            name = "crl_dir" if self.crl_dir else "crl_url"
            name = name if self.crl is None else self.crl.attribute
            yield name, f"{name} needs a CA: it is the CA that revokes"
        if self.crl_scope is not None and not lists:
            yield "crl_scope", "crl_scope has no effect without crl_file, crl_dir or crl_url"
        if self.crl_url is not None:
            try:
                parse_urls(self.crl_url.value)
            except ValueError as error:
                yield "crl_url", f"crl_url: {error}"

    def _spiffe_problems(self) -> Iterator[tuple[str | None, str]]:
        if self.spiffe_trust_domain is None:
            for name in ("spiffe_federated", "spiffe_socket"):
                if getattr(self, name):
                    yield name, f"{name} needs spiffe_trust_domain"
            return
        if self.ca_certificate is not None:
            name = self.ca_certificate.attribute
            yield (
                name,
                f"{name} and spiffe_trust_domain are mutually exclusive: the trust domain's bundle "
                "has the CAs",
            )
        if self.spiffe_socket is not None:
            yield from wrong_agent("spiffe_socket", self.spiffe_socket)
        yield from wrong_trust_domain("spiffe_trust_domain", self.spiffe_trust_domain)
        for one in self.spiffe_federated:
            yield from wrong_trust_domain("spiffe_federated", one)


@frozen(kw_only=True)
class Tls:
    """
    :ivar server_certificate: what the gate shows; without one, it makes a
        self-signed one in memory.
    :ivar client_certificate: the rules, any of which admits.
    :ivar min_version: the oldest TLS version that is spoken.
    :ivar client_authentication: ``none`` only where anyone may come in.
    :ivar verification: ``strict`` holds certificates to the RFC 5280 profile,
        as Python 3.13's ssl does; ``compatible`` turns that one flag off;
        ``double`` is strict, and every path needs the consent of a second
        validator, which otherwise only paths with name constraints do.
    :ivar deny: none of them may match, whatever the rules say.
    :ivar send_ca_names: whether the CertificateRequest names the CAs.
    :ivar session_resumption: whether a client may resume its session; it is
        then judged again.
    :ivar session_lifetime: how long it may, in seconds.
    """

    at: Position = position()
    server_certificate: tuple[ServerCertificate, ...] = ()
    client_certificate: tuple[ClientCertificate, ...] = ()
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_authentication: Literal["required", "none"] = "required"
    verification: Literal["strict", "compatible", "double"] = "strict"
    deny: tuple[DenyBlock, ...] = ()
    send_ca_names: bool = True
    session_resumption: bool = False
    session_lifetime: Duration | None = None

    @property
    def resumption(self) -> float | None:
        """For how many seconds a session may be resumed; None if not at all."""
        return (self.session_lifetime or _SESSION_LIFETIME) if self.session_resumption else None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.client_authentication == "required" and not self.client_certificate:
            yield (
                None,
                "no client_certificate block says who may come in: add one, or set "
                'client_authentication = "none" to let in anyone',
            )
        if self.client_authentication == "none" and self.client_certificate:
            yield (
                "client_authentication",
                'client_authentication = "none" lets in anyone, so no client_certificate '
                "block would be heard: remove one or the other",
            )
        if self.client_authentication == "none" and self.deny:
            yield (
                "client_authentication",
                'client_authentication = "none" asks for no certificate, so deny would never '
                "hold: remove one or the other",
            )
        if self.session_lifetime is not None and not self.session_resumption:
            yield "session_lifetime", "session_lifetime needs session_resumption = true"
        if self.session_lifetime is not None and self.session_lifetime < 1:
            yield "session_lifetime", "session_lifetime is at least a second: TLS counts in seconds"
        if self.session_resumption and self.client_authentication == "none":
            yield (
                "session_resumption",
                "session_resumption is for verified clients: a session without a certificate "
                "has nothing to be judged again by",
            )
