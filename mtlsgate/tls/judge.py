"""
The judge: gives the verdict on a client's certificates.

It combines the rules (`mtlsgate.admission`), the search for other paths
(`mtlsgate.tls.paths`) and the second validator.  The same code judges a handshake,
a resumed session, a connected client after a reload, and ``mtlsgate explain``.

OpenSSL builds only one path.  An error on it is not always final: OpenSSL may have
chosen an expired CA, another CA with the same name, or the wrong one of two
cross-signed intermediates.  During the handshake the gate cannot see the other
certificates that the client sent.  The verdict is then `Pending`: the handshake
goes on, nothing is handed over, and the judge looks for another path when the
handshake is complete.  A client is only ever admitted on a path that OpenSSL
verified without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial

from attrs import frozen
from OpenSSL.crypto import X509StoreContextError, X509StoreFlags

from mtlsgate.admission import (
    AdmissionPolicy,
    Admitted,
    Path,
    Rejection,
    Rule,
    authorities_of,
    lone_pins_of,
)
from mtlsgate.admission.listings import NOT_ASKED, Answers
from mtlsgate.admission.profile import profile_violation
from mtlsgate.admission.second_opinion import disagreement, needs_second_opinion
from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.reasons import Reason
from mtlsgate.tls.full_handshakes import FullHandshakes
from mtlsgate.tls.handshake_checks import handshake_objection, unusable_key
from mtlsgate.tls.missing_issuers import no_issuer
from mtlsgate.tls.openssl_errors import verification_rejection
from mtlsgate.tls.paths import Search, verified_path
from mtlsgate.tls.trust import encoded

#: X509_V_ERR_…: errors that OpenSSL reports for the leaf, but that the path above it may
#: cause: signature, number of intermediates, key identifiers, name constraints, circles.
_ABOUT_PATH = frozenset((7, 22, 25, 29, 30, 31, *range(46, 54), 55, 77))


@frozen
class Pending:
    """
    No verdict yet: it depends on the other certificates that the client sent.

    :ivar rejection: the verdict if no other path is found.
    :ivar path: the path that OpenSSL verified and the rules reject; None if
        OpenSSL found an error.
    """

    rejection: Rejection
    path: Path | None = None


class Judge:
    """
    Judges the clients of one server.

    :ivar policy: its rules.
    :ivar flags: OpenSSL's verification flags.
    :ivar _begun: the admitted full handshakes; empty if sessions cannot be resumed.
    """

    def __init__(
        self,
        policy: AdmissionPolicy,
        now: Callable[[], datetime],
        *,
        strict: bool = True,
        always_ask_twice: bool = False,
        session_lifetime: float | None = None,
    ) -> None:
        """
        :param now: returns the time to judge certificates by.
        :param strict: whether certificates must follow the RFC 5280 profile.
        :param always_ask_twice: whether the second validator checks every path,
            not only those with name constraints.
        :param session_lifetime: how many seconds after its full handshake a
            session may be resumed; None forbids resumption.
        """
        self.policy = policy
        self.flags = X509StoreFlags.PARTIAL_CHAIN
        if strict:
            self.flags |= X509StoreFlags.X509_STRICT
        self._now = now
        self._strict = strict
        self._always_ask_twice = always_ask_twice
        self._authorities = authorities_of(policy.rules)
        self._search = Search(self._authorities, self.flags)
        self._session_lifetime = session_lifetime
        self._begun = FullHandshakes()

    @property
    def anchors(self) -> tuple[Certificate, ...]:
        """The certificates that OpenSSL trusts: the CAs that have not expired, and
        the pins without a CA."""
        now = self._now()
        current = tuple(one for one in self._authorities if now <= one.not_after)
        return current + lone_pins_of(self.policy.rules)

    # A handshake calls on_path or on_error; if the answer is Pending, then on_presented.

    def on_path(self, path: Path) -> Admitted | Rejection | Pending:
        """:param path: as OpenSSL verified it, leaf first."""
        now = self._now()
        verdict = self._on_path(path, now, NOT_ASKED)
        if isinstance(verdict, Admitted) or not any(self.policy.hopes(path, now)):
            return verdict
        found = self._on_other_paths(path, path[1:], now, NOT_ASKED)
        return found if isinstance(found, Admitted) else Pending(verdict, path)

    def on_error(self, error: int, depth: int, certificate: Certificate) -> Rejection | Pending:
        """
        :param error: the error that OpenSSL found on its path, as X509_V_ERR_….
        :param depth: the depth of the certificate at fault.
        :param certificate: the certificate at fault.
        """
        rejection = no_issuer(
            error, depth, certificate, self.policy.rules, self._authorities, self._now()
        ) or verification_rejection(error, depth)
        if depth == 0 and error not in _ABOUT_PATH:
            # The leaf itself is at fault, or nobody issued it: no other path helps.
            return rejection
        return Pending(rejection)

    def on_presented(
        self, pending: Pending, leaf: Certificate, presented: Sequence[Certificate]
    ) -> Admitted | Rejection:
        """
        :param pending: what `on_path` or `on_error` returned.
        :param leaf: the client's leaf.
        :param presented: what the client sent after its leaf.
        """
        return self._on_presented(pending, leaf, presented, self._now())

    def _on_presented(
        self,
        pending: Pending,
        leaf: Certificate,
        presented: Sequence[Certificate],
        now: datetime,
        answers: Answers = NOT_ASKED,
    ) -> Admitted | Rejection:
        found = self._on_other_paths(pending.path or (leaf,), presented, now, answers)
        if isinstance(found, Admitted) or (found is not None and pending.path is None):
            return found
        return pending.rejection

    # Sessions.

    def remember(self, admitted: Admitted, server_name: str | None) -> None:
        """
        Note a full handshake, so that its session can be resumed.

        :param server_name: the name that the client asked for.
        """
        if self._session_lifetime is not None:
            self._begun.note(admitted.path, server_name, self._now())

    def on_resumed(self, leaf: Certificate, server_name: str | None) -> Admitted | Rejection:
        """
        Judge a resumed session now; this verifies the path again.

        :param leaf: the leaf of the session's full handshake.
        :param server_name: the name that the client asks for now.
        """
        begun = self._begun.find(leaf, server_name)
        if self._session_lifetime is None or begun is None:
            return Rejection(
                Reason.NOT_RESUMABLE,
                "the gate does not know a full handshake of this client and server name any more",
            )
        # In TLS 1.3 each resumed session gets new tickets, so tickets alone never expire.
        if self._now() - begun.at > timedelta(seconds=self._session_lifetime):
            return Rejection(
                Reason.NOT_RESUMABLE,
                f"its full handshake was longer ago than {self._session_lifetime:g} s",
            )
        return self.again(begun.path)

    # Without a handshake.

    def rejects_at_once(self, path: Path, answers: Answers = NOT_ASKED) -> Rejection | None:
        """
        The cheap part of `again`: it checks no signatures.  Call it first.

        :param answers: what registries say.
        :returns: why no path of this leaf can be admitted now, or None.
        """
        now = self._now()
        verdict = self.policy.judge(path, now, answers=answers)
        if isinstance(verdict, Admitted) or any(self.policy.hopes(path, now, None, answers)):
            return None
        return verdict

    def still(self, path: Path, answers: Answers = NOT_ASKED) -> Admitted | None:
        """
        :param path: a path that these rules admitted a moment ago.
        :param answers: what registries say.
        :returns: the admission as of now; None if something it depends on has ended.
        """
        now = self._now()
        # A certificate is valid until the end of its last second (RFC 5280, 4.1.2.5).
        second = now.replace(microsecond=0)
        if any(now < one.not_before or second > one.not_after for one in path):
            return None
        verdict = self._on_path(path, now, answers)
        return verdict if isinstance(verdict, Admitted) else None

    def again(
        self, path: Path, answers: Answers = NOT_ASKED, presented: Iterable[Certificate] = ()
    ) -> Admitted | Rejection:
        """
        Judge a client again now; this verifies the path again.

        :param path: the path that was admitted, perhaps under other rules.
        :param answers: what registries say.
        :param presented: what else the client sent, for another path.
        """
        now = self._now()
        anchor = path[-1]
        path = tuple(dict.fromkeys((*path, *presented)))
        if anchor.sha256 in self._authority_digests or self._is_lone_pin(anchor):
            return self._on_anchors(path, (anchor,), now, answers)
        return self.on_chain(path, now, answers)

    def on_chain(
        self, chain: Sequence[Certificate], at: datetime, answers: Answers = NOT_ASKED
    ) -> Admitted | Rejection:
        """
        :param chain: as a client would present it, leaf first.
        :param at: the time to judge by.
        :param answers: what registries say.
        :returns: the verdict that a handshake would give.
        """
        anchors = [one for one in self._authorities if at <= one.not_after]
        if self._is_lone_pin(chain[0]):
            anchors.append(chain[0])
        return self._on_anchors(chain, anchors, at, answers)

    def by_rule(
        self, chain: Sequence[Certificate], at: datetime
    ) -> Iterator[tuple[Rule, Admitted | Rejection]]:
        """
        :returns: each rule, in file order, with the verdict as if it were the only rule.
        """
        for rule in self.policy.rules:
            alone = Judge(
                AdmissionPolicy((rule,), self.policy.deny),
                self._now,
                strict=self._strict,
                always_ask_twice=self._always_ask_twice,
            )
            yield rule, alone.on_chain(chain, at)

    def _on_anchors(
        self,
        chain: Sequence[Certificate],
        anchors: Sequence[Certificate],
        at: datetime,
        answers: Answers,
    ) -> Admitted | Rejection:
        leaf, *presented = chain
        found = verified_path(leaf, presented, anchors, self.flags, at)
        if isinstance(found, X509StoreContextError):
            code, depth, *_ = found.errors
            at_fault = found.certificate
            unusable = unusable_key(leaf)
            if unusable is not None:
                return unusable
            verdict: Admitted | Rejection | Pending = self.on_error(
                int(code), int(depth), known(encoded(at_fault))
            )
        else:
            verdict = handshake_objection(found) or self._on_path(found, at, answers)
            if isinstance(verdict, Rejection):
                verdict = Pending(verdict, found)
        if isinstance(verdict, Pending):
            return self._on_presented(verdict, leaf, presented, at, answers)
        return verdict

    @cached_property
    def _authority_digests(self) -> frozenset[bytes]:
        return frozenset(one.sha256 for one in self._authorities)

    def _is_lone_pin(self, leaf: Certificate) -> bool:
        digest = leaf.sha256
        return any(not rule.demands_ca and rule.pins_of(digest) for rule in self.policy.rules)

    # What the rules, the profile and the second validator say.

    def _on_path(self, path: Path, now: datetime, answers: Answers) -> Admitted | Rejection:
        return self.policy.judge(path, now, partial(self._objection, now=now), answers)

    def _on_other_paths(
        self, path: Path, presented: Iterable[Certificate], now: datetime, answers: Answers
    ) -> Admitted | Rejection | None:
        """
        :param path: the path that the rules reject; only the leaf if there is none.
        :param answers: what registries say.
        :returns: the first admission on another path; otherwise the first
            rejection; None if there is no other path.
        """
        leaf, known_to_us = path[0], {*path[1:], *presented}
        alone = self._as_its_own_anchor(leaf, now, answers)
        if isinstance(alone, Admitted):
            return alone
        # Names first, then rules: names narrow a thousand CAs down to a few.
        reachable = self._search.reachable(leaf, known_to_us)
        targets = tuple(self.policy.hopes(path, now, reachable, answers))
        admitted, first = list[Admitted](), alone
        if not targets:
            return first
        for other in self._search.paths(leaf, known_to_us, targets, now):
            if other == path:
                continue
            verdict = self._on_path(other, now, answers)
            if isinstance(verdict, Rejection):
                first = first or verdict
                continue
            admitted.append(verdict)
            # The targets are in file order, so no earlier rule can admit.
            if targets[0] in verdict.path:
                break
        return min(admitted, key=lambda one: self.policy.rules.index(one.rule), default=first)

    def _as_its_own_anchor(
        self, leaf: Certificate, now: datetime, answers: Answers
    ) -> Admitted | Rejection | None:
        """:returns: the verdict on a leaf that is pinned without a CA, ignoring any
        CAs above it; None if there is no such pin."""
        if not self._is_lone_pin(leaf):
            return None
        found = verified_path(leaf, (), (leaf,), self.flags, now)
        if isinstance(found, X509StoreContextError):
            return None
        return handshake_objection(found) or self._on_path(found, now, answers)

    def _objection(self, path: Path, now: datetime) -> Rejection | None:
        """:returns: why a path that a rule admits is rejected after all, or None."""
        violation = profile_violation(path) if self._strict else None
        if violation is not None:
            return violation
        if self._always_ask_twice or needs_second_opinion(path):
            why = disagreement(path, now)
            if why is not None:
                # OpenSSL checks name constraints last.  If it also rejects the
                # path, its message is clearer.
                return self._refused_by_openssl(path, now) or Rejection(
                    Reason.VALIDATORS_DISAGREE, why, 0
                )
        return None

    def _refused_by_openssl(self, path: Path, now: datetime) -> Rejection | None:
        *lower, anchor = path
        if not lower:
            return None
        found = verified_path(lower[0], lower[1:], [anchor], self.flags, now)
        if isinstance(found, X509StoreContextError):
            code, depth, *_ = found.errors
            return verification_rejection(int(code), int(depth))
        return None
