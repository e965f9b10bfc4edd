"""
The blocks that say what the gate shows of itself, one frozen attrs class each.

As in `mtlsgate.config.model`, which these are part of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from attrs import field, frozen

from mtlsgate.config.agents import agent_of, wrong_agent, wrong_spiffe_id
from mtlsgate.config.fields import (
    Empty,
    FileName,
    Located,
    Lone,
    Material,
    label,
    needed_unless,
    position,
)
from mtlsgate.config.tree import labelled
from mtlsgate.config.urls import parse_url
from mtlsgate.errors import Position
from mtlsgate.text import quoted

#: Couper's page gives ``""`` as the default of these: written so, they are not set.
CoupersMaterial = Annotated[Material, Empty.UNSET]

#: The values of one attribute.
Values = tuple[Located[str], ...]

#: A DNS name of at least two labels (RFC 1123, 2.1), without wildcards.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}")
_CONTACT = re.compile(r"mailto:[^\s@?]+@[^\s@?,]+")


@frozen(kw_only=True)
class Acme:
    """
    A certificate that a CA issues by ACME, and that the gate renews by itself.

    :ivar directory: the URL of the CA's directory.
    :ivar names: the DNS names that it is for.
    :ivar contact: how the CA reaches the gate's operator: one ``mailto:`` URL, or a list.
    :ivar ca_file: the CAs that vouch for the directory's server, in PEM; None for those of
        the library ``certifi``.
    :ivar storage: where account and certificates are kept, relative to the
        configuration's directory.
    :ivar eab_key_id: the name of the CA's customer, if the CA wants it.
    :ivar eab_hmac_key: the customer's secret, in base64url.
    """

    at: Position = position()
    directory: Located[str] = field()
    names: Values = field()
    contact: Annotated[Values, Lone.TEXT] = ()
    ca_file: Located[FileName] | None = None
    storage: Located[FileName] | None = None
    eab_key_id: str | None = None
    eab_hmac_key: Material | None = field(default=None, repr=False)

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        try:
            if not parse_url(self.directory.value).is_https:
                yield "directory", "directory must begin with https:// (RFC 8555, 6.1)"
        except ValueError as error:
            yield "directory", f"directory: {error}"
        if not self.names:
            yield "names", "names is empty: name at least one DNS name"
        seen = set[str]()
        for name in (one.value for one in self.names):
            if "*" in name:
                text = "no CA validates a wildcard by TLS-ALPN-01, the one way that the gate knows"
                yield "names", f"names: {quoted(name)}: {text}"
            elif _NAME.fullmatch(name) is None or name.rpartition(".")[2].isdigit():
                text = "is no DNS name; write one in ASCII, without a dot at its end"
                yield "names", f"names: {quoted(name)} {text}"
            elif name.lower() in seen:
                yield "names", f"names: {quoted(name)} is listed twice"
            seen.add(name.lower())
        for one in self.contact:
            if _CONTACT.fullmatch(one.value) is None:
                text = 'is no contact; write it as "mailto:ops@example.com"'
                yield "contact", f"contact: {quoted(one.value)} {text}"
        if (self.eab_key_id is None) != (self.eab_hmac_key is None):
            name, other = "eab_key_id", "eab_hmac_key(_file)"
            if self.eab_hmac_key is not None:
                name, other = self.eab_hmac_key.attribute, "eab_key_id"
            yield name, f"{name} needs {other}: the CA gives you both"


#: Where a certificate may come from, other than from two files.
_OTHERS = ("acme", "pkcs12", "pkcs12_file", "spiffe")


@frozen(kw_only=True)
class ServerCertificate:
    """
    What the gate shows of itself.

    :ivar label: only a label.
    :ivar public_key: the certificate, leaf first, intermediates after it; None if it is
        delivered while the gate runs.
    :ivar private_key: its key.
    :ivar private_key_passphrase: for an encrypted key.
    :ivar pkcs12: a keystore with both, and the intermediates, instead.
    :ivar pkcs12_passphrase: the keystore's.
    :ivar ocsp_stapling: whether to fetch and show what the CA's OCSP responder says of it.
    :ivar acme: a CA that issues the certificate, instead.
    :ivar spiffe: the socket of the SPIFFE agent that delivers an X.509-SVID, instead.
    :ivar spiffe_id: which one of several; by default the agent's first.
    """

    at: Position = position()
    label: str | None = label(default=None)
    public_key: CoupersMaterial | None = needed_unless(*_OTHERS)
    private_key: CoupersMaterial | None = needed_unless(*_OTHERS)
    private_key_passphrase: str | None = field(default=None, repr=False)
    pkcs12: Material | None = field(default=None, repr=False)
    pkcs12_passphrase: str | None = field(default=None, repr=False)
    ocsp_stapling: bool = False
    acme: Acme | None = None
    spiffe: Located[str] | None = None
    spiffe_id: Located[str] | None = None

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return labelled("server_certificate", self.label)

    @property
    def agent(self) -> str | None:
        """The path of the SPIFFE agent's socket, or None."""
        return None if self.spiffe is None else agent_of(self.spiffe)

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.pkcs12 is not None:
            name = self.pkcs12.attribute
            yield from self._useless(name, "a keystore has the certificate and its key")
            for other in ("acme", "spiffe"):
                if getattr(self, other) is not None:
                    yield name, f"{name} and {other} are mutually exclusive: remove one of them"
        elif self.pkcs12_passphrase is not None:
            yield "pkcs12_passphrase", "pkcs12_passphrase needs pkcs12_file"
        if self.spiffe is None and self.spiffe_id is not None:
            yield "spiffe_id", "spiffe_id needs spiffe, the socket of the agent"
        if self.spiffe is not None:
            yield from wrong_agent("spiffe", self.spiffe)
            yield from wrong_spiffe_id("spiffe_id", self.spiffe_id)
            yield from self._useless(
                "spiffe", "the agent delivers the certificate and its key", "an SVID has no OCSP"
            )
        if self.acme is not None:
            if self.spiffe is not None:
                yield "spiffe", "spiffe and acme are mutually exclusive: remove one of them"
            yield from self._useless(
                "acme",
                "the CA issues the certificate for a key of the gate's",
                "name files for that",
            )

    def _useless(
        self, name: str, why: str, no_ocsp: str | None = None
    ) -> Iterator[tuple[str | None, str]]:
        """Yield what is stated beside an attribute that says where everything comes from."""
        for material in (self.public_key, self.private_key):
            if material is not None:
                yield (
                    material.attribute,
                    f"{material.attribute} and {name} are mutually exclusive: {why}",
                )
        if self.private_key_passphrase is not None:
            yield "private_key_passphrase", f"private_key_passphrase has no effect with {name}"
        if self.ocsp_stapling and no_ocsp is not None:
            yield "ocsp_stapling", f"ocsp_stapling has no effect with {name}: {no_ocsp}"
