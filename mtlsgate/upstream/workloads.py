"""
Targets that are workloads of a SPIFFE trust domain, and the gate as one of them.

What agents have delivered changes while the gate runs, so it is asked for at each
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from attrs import frozen

from mtlsgate.admission import Rejection
from mtlsgate.admission.bundles import Bundle
from mtlsgate.admission.conditions import Condition
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.clock import utc_now
from mtlsgate.reasons import Reason
from mtlsgate.spiffe.agents import Agents, SvidSource
from mtlsgate.spiffe.subscription import Stream


@frozen(eq=False)
class Workloads:
    """
    :ivar agents: what agents have delivered.
    :ivar own: which X.509-SVID the gate shows; None if it shows another certificate, or none.
    :ivar agent: the agent that delivers the targets' bundle, or None.
    :ivar trust_domain: the targets', or None.
    :ivar spiffe_ids: the condition on the targets' SPIFFE IDs, or None.
    :ivar now: returns the time to judge certificates by.
    """

    agents: Agents
    own: SvidSource | None = None
    agent: str | None = None
    trust_domain: str | None = None
    spiffe_ids: Condition | None = None
    now: Callable[[], datetime] = utc_now

    @property
    def wanted(self) -> Iterator[tuple[str, Stream]]:
        """The streams that must be asked for."""
        if self.own is not None:
            yield self.own.agent, Stream.SVIDS
        if self.agent is not None:
            yield self.agent, Stream.BUNDLES

    @property
    def bundle(self) -> Bundle | None:
        """The CAs of the targets' trust domain; None if they have none."""
        if self.agent is None or self.trust_domain is None:
            return None
        return self.agents.bundle(self.trust_domain, self.agent)

    @property
    def credential(self) -> ServerCredential | None:
        """What the gate shows; None if it is not there."""
        if self.own is None:
            return None
        found = self.agents.credential(self.own)
        return None if isinstance(found, MissingCredential) else found

    def problem(self) -> Rejection | None:
        """:returns: why no target can be connected to now, or None."""
        bundle = self.bundle
        if bundle is not None and bundle.missing is not None:
            return bundle.missing
        if self.own is None:
            return None
        found = self.agents.credential(self.own)
        if isinstance(found, MissingCredential):
            return Rejection(Reason.NO_CLIENT_CERTIFICATE, found.why)
        until = found.chain[0].not_after
        if self.now().replace(microsecond=0) > until:
            text = f"the gate's own X.509-SVID expired at {until:%Y-%m-%d %H:%M:%SZ}"
            return Rejection(Reason.NO_CLIENT_CERTIFICATE, text)
        return None
