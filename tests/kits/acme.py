"""A CA that issues certificates by ACME, in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mtlsgate.acme.schedule import ASK_EVERY
from mtlsgate.acme.steps import OrderFailed, Suggestion
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.testing import Authority

CA = Authority.create("ACME CA")


@define
class MemoryCa:
    """
    Issues at once, or says no.

    :ivar now: tells the time.
    :ivar life: how long its certificates are valid.
    :ivar refusal: what it says instead, or None.
    :ivar suggested: when it wants certificates to be renewed, or None.
    :ivar ordered: what was asked for, in order, also in vain.
    :ivar asked: how often it was asked when to renew.
    :ivar during: called while an order is underway.
    """

    now: Callable[[], datetime]
    life: timedelta = timedelta(days=90)
    refusal: OrderFailed | None = None
    suggested: datetime | None = None
    ordered: list[WantedCertificate] = field(factory=list)
    asked: int = 0
    during: Callable[[], object] = lambda: None

    def order(self, wanted: WantedCertificate) -> None:
        self.ordered.append(wanted)
        self.during()
        if self.refusal is not None:
            raise self.refusal
        wanted.storage.put_certificate(wanted.file_name, self.issue(*wanted.names))

    def issue(self, *names: str) -> bytes:
        """:returns: a new key and its certificate, as they are kept."""
        now = self.now().replace(microsecond=0)
        made = CA.issue(
            names[0],
            dns_names=names,
            usages=["server_auth"],
            not_before=now,
            not_after=now + self.life,
        )
        key = made.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + made.pem

    def suggestion(self, wanted: WantedCertificate, certificate: bytes) -> Suggestion:
        self.asked += 1
        return Suggestion(self.suggested, ASK_EVERY)
