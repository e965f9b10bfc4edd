"""
A certificate that a configuration wants from a CA.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from attrs import field, frozen

from mtlsgate.acme.storage import Storage
from mtlsgate.certificates.certificate import Certificate


@frozen(kw_only=True)
class AccountBinding:
    """
    What a CA gave its customer, to connect an ACME account with that (RFC 8555, 7.3.4).

    :ivar key_id: names the customer.
    :ivar hmac_key: the secret, in base64url.
    """

    key_id: str
    hmac_key: str = field(repr=False)


@frozen(kw_only=True)
class WantedCertificate:
    """
    A certificate that a configuration wants from a CA.

    :ivar directory: the URL of the CA's directory.
    :ivar names: the DNS names, in lower case.
    :ivar storage: where account and certificates are kept.
    :ivar contact: the URLs by which the CA reaches the gate's operator.
    :ivar authorities: the CAs that vouch for the directory's server; empty for those of the
        library ``certifi``.
    :ivar binding: the CA's customer, or None.
    """

    directory: str
    names: tuple[str, ...]
    storage: Storage
    contact: tuple[str, ...] = ()
    authorities: tuple[Certificate, ...] = ()
    binding: AccountBinding | None = None

    @property
    def key(self) -> Hashable:
        """Identifies the certificate in all epochs."""
        return "acme", str(self.storage.directory), self.file_name

    @property
    def file_name(self) -> str:
        """The name of its file in the storage, without an ending.  Other names, or
        another CA, make it another certificate."""
        return f"{self.names[0]}-{digest(self.directory, *sorted(self.names))}"

    @property
    def account_name(self) -> str:
        """The name of the account's file in the storage, without an ending."""
        return f"account-{digest(self.directory)}"

    def __str__(self) -> str:
        """The certificate, for people."""
        return ", ".join(self.names)


def digest(*texts: str) -> str:
    """:returns: a few hex digits that tell texts apart."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:10]
