"""
What the agents have delivered last.

It outlives epochs, as what is known of targets does, and is only in memory: private keys are
never written.
"""

from __future__ import annotations

from attrs import evolve, frozen

from mtlsgate.admission.bundles import Bundle
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.spiffe.messages import Bundles, Svid
from mtlsgate.spiffe.subscription import Stream


@frozen
class SvidSource:
    """
    Where an X.509-SVID comes from.

    :ivar agent: the agent's socket.
    :ivar spiffe_id: which one of several; None for the first.
    """

    agent: str
    spiffe_id: str | None = None


class Agents:
    """
    What each agent has delivered, by its socket.

    :ivar version: rises with each change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._svids: dict[str, tuple[Svid, ...]] = {}
        self._bundles: dict[str, Bundles] = {}

    def put_svids(self, agent: str, svids: tuple[Svid, ...]) -> None:
        """Keep what an agent has delivered, in place of the earlier ones."""
        self._svids[agent] = svids
        self.version += 1

    def put_bundles(self, agent: str, bundles: Bundles) -> None:
        """Keep what an agent has delivered, in place of the earlier ones."""
        self._bundles[agent] = bundles
        self.version += 1

    def take_away(self, agent: str, stream: Stream) -> bool:
        """
        An agent says that the gate is not entitled to anything any more.

        :returns: whether there was anything.
        """
        kept = self._svids if stream is Stream.SVIDS else self._bundles
        was_there = kept.pop(agent, None) is not None
        self.version += was_there
        return was_there

    def svids(self, agent: str) -> tuple[Svid, ...]:
        """:returns: the X.509-SVIDs of an agent, the default first."""
        return self._svids.get(agent, ())

    def bundles(self, agent: str) -> Bundles:
        """:returns: the bundles of an agent."""
        return self._bundles.get(agent, {})

    def credential(self, source: SvidSource) -> ServerCredential | MissingCredential:
        """:returns: the gate's own certificate with its key, or why there is none."""
        found = self.svids(source.agent)
        for one in found:
            if source.spiffe_id in (None, str(one.spiffe_id)):
                return evolve(one.credential, source=source)
        what = "X.509-SVID" if source.spiffe_id is None else source.spiffe_id
        why = f"the agent at {source.agent} has delivered no {what}"
        if found:
            why += f", but {', '.join(str(one.spiffe_id) for one in found)}"
        return MissingCredential(source, (), why)

    def bundle(self, trust_domain: str, agent: str) -> Bundle:
        """:returns: the CAs of a trust domain, as an agent has delivered them."""
        return Bundle(trust_domain, agent, self.bundles(agent).get(trust_domain, ()))
