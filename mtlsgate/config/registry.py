"""
The ``registry`` block: a store of devices that many gates share.

As in `mtlsgate.config.model`, which this is part of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import field, frozen

from mtlsgate.config.fields import Duration, FileName, Located, Material, label, position
from mtlsgate.config.tree import labelled
from mtlsgate.errors import Position

#: The names of `mtlsgate.admission.devices.KeyKind`.
KeyName = Literal["identity", "sha256", "spki_sha256", "spiffe_id", "common_name", "dns_name"]


@frozen(kw_only=True)
class Registry:
    """
    :ivar label: the name that rules use.
    :ivar url: where the store is; may have a password.
    :ivar key: what a client is found by.
    :ivar prefix: what the keys in Redis begin with.
    :ivar table: the table in PostgreSQL.
    :ivar on_outage: what counts while the store or its push channel is away.
    :ivar max_staleness: how long live connections stay and, with ``last_known``, cached
        answers count, in seconds, after the store was last known to be good.
    :ivar timeout: how long an answer may take, in seconds.
    :ivar cache_entries: how many answers are kept.
    :ivar cache_time: how long one is kept, in seconds.
    :ivar password: of the store, if it is not in the URL.
    :ivar ca_file: the CAs that the store's certificate is verified by.
    :ivar certificate_file: the gate's certificate for the store.
    :ivar private_key_file: its key.
    """

    at: Position = position()
    label: str = label()
    url: Located[str] = field(repr=False)
    key: KeyName = "identity"
    prefix: Located[str] | None = None
    table: Located[str] | None = None
    on_outage: Literal["reject", "last_known"] = "reject"
    max_staleness: Duration = 300.0
    timeout: Duration = 1.0
    cache_entries: int = 100_000
    cache_time: Duration = 300.0
    password: Material | None = field(default=None, repr=False)
    ca_file: Located[FileName] | None = None
    certificate_file: Located[FileName] | None = None
    private_key_file: Located[FileName] | None = None

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return labelled("registry", self.label)

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.private_key_file is not None and self.certificate_file is None:
            yield "private_key_file", "private_key_file needs certificate_file"
        if self.certificate_file is not None and self.private_key_file is None:
            yield "certificate_file", "certificate_file needs private_key_file"
        if self.cache_entries < 1:
            yield "cache_entries", "cache_entries must be 1 or more"
        if self.max_staleness < self.timeout + 1:
            yield (
                "max_staleness",
                "max_staleness must be at least timeout and a second: the gate looks at its "
                "store twice a second, and waits for it",
            )
        if self.timeout > _LONGEST_TIMEOUT:
            yield (
                "timeout",
                f"timeout must be at most {_LONGEST_TIMEOUT:g} s: clients wait for it",
            )


#: In seconds.
_LONGEST_TIMEOUT = 30.0
