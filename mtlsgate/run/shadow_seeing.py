"""
What the gate knows of a client, for the configuration in the shadow to judge it by.

The gate knows the path that OpenSSL has verified under the rules in force.  Some of its
certificates the gate may have added itself, and the client may have sent others that were of no
use.  Where the shadow has other CAs, that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from mtlsgate.admission import AdmissionPolicy, Path, authorities_of
from mtlsgate.gate.events import Admission, Arrival, RejectedConnection
from mtlsgate.gate.shadow import Standing
from mtlsgate.load.epoch import Epoch
from mtlsgate.run.shadow_judging import Seen
from mtlsgate.tls.forecast import is_self_issued


@frozen
class Seeing:
    """
    What there is to know of the clients of one epoch.

    :ivar flags: with which OpenSSL verifies the clients of each server.
    :ivar own: the servers that have other CAs than the shadow, each with the digests of the
        intermediate ones that the shadow may lack.
    """

    flags: Mapping[str, int]
    own: Mapping[str, frozenset[bytes]]

    def sent(self, server: str, admission: Admission, presented: Callable[[], Path]) -> Path | None:
        """
        :param presented: tells what the client has sent.
        :returns: that, if the shadow's verdict may depend on it: the CAs are others, and the
            client's path does not end in one that has signed itself.  None if it does not
            matter, or is not known.
        """
        if server not in self.own or admission.peer is None or admission.negotiated.resumed:
            return None
        path = admission.peer.certificates
        is_ours = any(one.sha256 in self.own[server] for one in path[1:])
        if is_self_issued(path[-1]) and not is_ours:
            return None
        return presented() or None

    def admitted(
        self,
        arrival: Arrival,
        server: str,
        admission: Admission,
        sent: Path | None,
        *,
        is_live: bool = False,
    ) -> Seen | None:
        """
        :param sent: what `Seeing.sent` returned.
        :param is_live: whether it was connected before the shadow began.
        :returns: an admitted client; None if it is a program behind a client gate.
        """
        if admission.destination is not None:
            return None
        peer, agreed = admission.peer, admission.negotiated
        path = () if peer is None else peer.certificates
        flags, own = self.flags.get(server, 0), self.own.get(server, frozenset())
        if any(one.sha256 in own and one not in (sent or ()) for one in path[1:]):
            # The gate has added a CA that the shadow does not have.
            path, flags = sent or path[:1], 0
        return Seen(
            connection=arrival.number,
            listener=arrival.listener,
            server_name=agreed.server_name,
            tls_version=agreed.tls_version,
            address=arrival.address,
            path=path,
            flags=flags,
            sent=sent,
            now=Standing(server=server, rule=None if peer is None else peer.rule),
            is_live=is_live,
        )


def rejected(connection: RejectedConnection) -> Seen | None:
    """:returns: a rejected client; None if it is not known where it connected to."""
    if connection.listener is None:
        return None
    return Seen(
        connection=connection.number,
        listener=connection.listener,
        server_name=connection.server_name,
        tls_version=connection.tls_version,
        address=connection.address,
        path=connection.presented,
        flags=0,
        now=Standing(server=connection.server, rejection=connection.rejection),
    )


def seeing(epoch: Epoch, then: Epoch | None) -> Seeing:
    """
    :param epoch: the one in force.
    :param then: the shadow's, or None.
    """
    found = ((one.gate.name, one.gate.context.judge) for one in epoch.servers)
    flags = {name: judge.flags for name, judge in found if judge is not None}
    return Seeing(flags, {} if then is None else dict(_own(epoch, then)))


def _own(epoch: Epoch, then: Epoch) -> dict[str, frozenset[bytes]]:
    judges = [one.gate.context.judge for one in then.servers]
    theirs = [_digests(judge.policy) for judge in judges if judge is not None]
    kept = frozenset[bytes]().union(*theirs).intersection(*theirs)
    found: dict[str, frozenset[bytes]] = {}
    for server in epoch.servers:
        policy = server.gate.context.admission
        if any(one != _digests(policy) for one in theirs):
            found[server.gate.name] = _digests(policy, intermediate=True) - kept
    return found


def _digests(policy: AdmissionPolicy | None, *, intermediate: bool = False) -> frozenset[bytes]:
    return frozenset(
        one.sha256
        for one in authorities_of(() if policy is None else policy.rules)
        # A CA that has signed itself is of no use but as an anchor.
        if not (intermediate and is_self_issued(one))
    )
