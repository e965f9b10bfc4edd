"""
What a server's rules would make of a client that was verified under other rules.

The verdict on most clients needs no signature: OpenSSL has verified the path already,
and the rules only compare.  `Forecast.at_sight` gives it.  For the others OpenSSL must
look for a path of its own, which costs as much as in a handshake: `Forecast.searched`.
"""

from __future__ import annotations

from datetime import datetime

from OpenSSL.crypto import X509StoreFlags

from mtlsgate.admission import Admitted, Path, Rejection, authorities_of
from mtlsgate.admission.listings import NOT_ASKED, Answers
from mtlsgate.admission.profile import profile_violation
from mtlsgate.admission.second_opinion import needs_second_opinion
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.reasons import Reason
from mtlsgate.tls.judge import Judge
from mtlsgate.tls.paths import Search


class Forecast:
    """
    Judges clients of other servers as a handshake with this one would.

    :ivar judge: this server's.
    """

    def __init__(self, judge: Judge, *, always_ask_twice: bool = False) -> None:
        """
        :param judge: this server's.
        :param always_ask_twice: whether the second validator checks every path.
        """
        self.judge = judge
        self._policy = judge.policy
        self._always_ask_twice = always_ask_twice
        self._strict = bool(judge.flags & X509StoreFlags.X509_STRICT)
        authorities = authorities_of(judge.policy.rules)
        self._digests = frozenset(one.sha256 for one in authorities)
        self._search = Search(authorities, judge.flags)

    def at_sight(
        self,
        path: Path,
        flags: int,
        now: datetime,
        sent: Path | None = None,
        answers: Answers = NOT_ASKED,
    ) -> Admitted | Rejection | None:
        """
        :param path: the leaf first.
        :param flags: with which OpenSSL has verified the path; 0 if it has not.
        :param now: the time to judge by, aware.
        :param sent: what the client has sent, in any order; None if that is not known.
        :param answers: what registries say, see `Admitted.questions`.
        :returns: the verdict; None if a path must be verified first.
        """
        leaf, known = path[0], (*path[1:], *(sent or ()))
        path = self._up_to_anchor(path, now)
        verdict = self._policy.judge(path, now, self._violation, answers)
        if isinstance(verdict, Admitted):
            is_enough = not self.judge.flags & ~flags and _are_valid(verdict.path, now)
            asks_twice = self._always_ask_twice or needs_second_opinion(verdict.path)
            return verdict if is_enough and not asks_twice else None
        is_unknown = verdict.reason is Reason.UNKNOWN_CA
        if is_unknown or any(self._policy.hopes(path, now, answers=answers)):
            reachable = self._search.reachable(leaf, known)
            # If the CA is only further up, the rules may have another reason.
            hopes = self._policy.hopes(path, now, reachable, answers)
            if (is_unknown and reachable) or any(hopes):
                return None
        return _with_doubt(verdict, path) if sent is None else verdict

    def searched(
        self,
        path: Path,
        now: datetime,
        sent: Path | None = None,
        answers: Answers = NOT_ASKED,
    ) -> Admitted | Rejection:
        """
        :param path: the leaf first; it need not be verified.
        :param now: the time to judge by, aware.
        :param sent: as for `at_sight`.
        :param answers: as for `at_sight`.
        :returns: the verdict that a handshake would give.  This may take OpenSSL as long
            as a handshake.
        """
        chain = tuple(dict.fromkeys((*path, *(sent or ()))))
        verdict = self.judge.on_chain(chain, now, answers)
        if sent is None and isinstance(verdict, Rejection):
            return _with_doubt(verdict, path)
        return verdict

    def _up_to_anchor(self, path: Path, now: datetime) -> Path:
        """:returns: the path that OpenSSL would build: it stops at the first anchor."""
        for depth in range(1, len(path)):
            if path[depth].sha256 in self._digests and now <= path[depth].not_after:
                return path[: depth + 1]
        return path

    def _violation(self, path: Path) -> Rejection | None:
        return profile_violation(path) if self._strict else None


def _are_valid(path: Path, now: datetime) -> bool:
    # Valid until the end of the last second (RFC 5280, 4.1.2.5).
    second = now.replace(microsecond=0)
    try:
        return all(one.not_before <= now and second <= one.not_after for one in path)
    except UNPARSABLE:
        return False


def _with_doubt(rejection: Rejection, path: Path) -> Rejection:
    """:returns: the rejection; if a certificate above the path might help, it says so."""
    if rejection.reason is not Reason.UNKNOWN_CA or is_self_issued(path[-1]):
        return rejection
    return Rejection(
        rejection.reason,
        f"{rejection.detail}, unless the client sends more certificates than are known here",
        rejection.depth,
    )


def is_self_issued(certificate: Certificate) -> bool:
    """:returns: whether nothing is above a certificate; also if its names do not parse."""
    try:
        return certificate.subject.key == certificate.issuer.key
    except UNPARSABLE:
        return True
