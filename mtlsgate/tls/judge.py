"""
From what a client presented to the verdict on it.

Brings together the rules (`mtlsgate.admission`), the search for other paths
(`mtlsgate.tls.other_paths`) and the second opinion, so that a handshake, a resumed
session and ``mtlsgate explain`` are judged by the same code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial

from attrs import frozen
from cryptography import x509
from OpenSSL.crypto import X509Store, X509StoreContextError, X509StoreFlags

from mtlsgate.admission import (
    AdmissionPolicy,
    Admitted,
    Path,
    Rejection,
    Rule,
    authorities_of,
    lone_pins_of,
)
from mtlsgate.admission.profile import profile_violation
from mtlsgate.admission.second_opinion import (
    disagreement,
    needs_second_opinion,
)
from mtlsgate.certificates.parsing import sha256
from mtlsgate.certificates.server_names import canonical
from mtlsgate.reasons import Reason
from mtlsgate.tls.openssl_errors import verification_rejection
from mtlsgate.tls.other_paths import (
    OtherPaths,
    handshake_objection,
    trust_store,
    unusable_key,
    verified_path,
)

#: Admitted clients whose path is remembered, so that they can resume.
MAX_REMEMBERED = 16384


@frozen
class _Begun:
    """
    A full handshake that was admitted.

    :ivar path: on which.
    :ivar at: when.
    """

    path: Path
    at: datetime


class Judge:
    """
    Judges the clients of one server.

    :ivar policy: its rules.
    :ivar flags: OpenSSL's verification flags.
    :ivar _begun: the full handshakes that were admitted, the latest last, by
        the digest of the leaf and the server name; only kept where sessions
        may be resumed.  A ticket holds the leaf, but not its path.
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
        :param now: the time that certificates are judged by.
        :param strict: whether certificates must keep to the RFC 5280 profile.
        :param always_ask_twice: whether every path needs the consent of the
            second validator, and not only those with name constraints.
        :param session_lifetime: for how many seconds after its full handshake
            a session may be resumed; None if not at all.
        """
        self.policy = policy
        self.flags = X509StoreFlags.PARTIAL_CHAIN
        if strict:
            self.flags |= X509StoreFlags.X509_STRICT
        self._now = now
        self._strict = strict
        self._always_ask_twice = always_ask_twice
        self._other_paths = OtherPaths(authorities_of(policy.rules), self.flags)
        self._session_lifetime = session_lifetime
        self._begun: OrderedDict[tuple[bytes, str | None], _Begun] = OrderedDict()

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """What OpenSSL is to trust: the CAs, and the pins without one."""
        return authorities_of(self.policy.rules) + lone_pins_of(self.policy.rules)

    def on_path(self, path: Path) -> Admitted | Rejection | None:
        """
        :param path: as OpenSSL verified it, leaf first.
        :returns: the verdict; None if it depends on certificates that the
            client presented but OpenSSL did not use.
        """
        now = self._now()
        verdict = self._first_admitted([path], now)
        if isinstance(verdict, Admitted):
            return verdict
        if not self.policy.is_hopeful(path, now):
            return verdict
        found = self._first_admitted(self._others(path, (), now), now)
        return found if isinstance(found, Admitted) else None

    def on_presented(
        self, path: Path, presented: Sequence[x509.Certificate]
    ) -> Admitted | Rejection:
        """
        :param path: that `on_path` could not tell of.
        :param presented: what the client sent after its leaf.
        """
        return self._on_presented(path, presented, self._now())

    def _on_presented(
        self, path: Path, presented: Sequence[x509.Certificate], now: datetime
    ) -> Admitted | Rejection:
        verdict = self._first_admitted([path], now)
        if not isinstance(verdict, Admitted):
            found = self._first_admitted(self._others(path, presented, now), now)
            verdict = found if isinstance(found, Admitted) else verdict
        assert verdict is not None
        return verdict

    def remember(self, admitted: Admitted, server_name: str | None) -> None:
        """
        Note a full handshake, so that its session can be resumed.

        :param server_name: that the client asked for.
        """
        if self._session_lifetime is None:
            return
        key = _session_key(admitted.path[0], server_name)
        self._begun[key] = _Begun(admitted.path, self._now())
        self._begun.move_to_end(key)
        if len(self._begun) > MAX_REMEMBERED:
            self._begun.popitem(last=False)

    def on_resumed(self, leaf: x509.Certificate, server_name: str | None) -> Admitted | Rejection:
        """
        :param leaf: that the resumed session was begun with.
        :param server_name: that the client asks for now.
        :returns: the verdict of now, for which the path is verified again.
        """
        now = self._now()
        begun = self._begun.get(_session_key(leaf, server_name))
        if self._session_lifetime is None or begun is None:
            return Rejection(
                Reason.NOT_RESUMABLE,
                "the gate does not know a full handshake of this client and server name any more",
            )
        # TLS 1.3 gives new tickets to a resumed session, without end.
        if now - begun.at > timedelta(seconds=self._session_lifetime):
            return Rejection(
                Reason.NOT_RESUMABLE,
                f"its full handshake was longer ago than {self._session_lifetime:g} s",
            )
        path = begun.path
        return self._refused_by_openssl(path, now) or self._on_presented(path, path[1:], now)

    def rejects_at_once(self, path: Path) -> Rejection | None:
        """
        The cheap part of `again`, to be asked first: what needs no signature.

        :returns: why no path of this leaf can be admitted now, or None.
        """
        now = self._now()
        verdict = self.policy.judge(path, now, lambda _: None)
        if isinstance(verdict, Admitted) or self.policy.is_hopeful(path, now):
            return None
        return verdict

    def again(self, path: Path) -> Admitted | Rejection:
        """
        :param path: on which a client was admitted under other rules.
        :returns: the verdict of now, for which the path is verified again.
        """
        now, leaf = self._now(), path[0]
        # Put together once for all clients, but for the pins without a CA: of
        # these a client can only be its own.
        verdict = self._on_anchors(path, self._trusted, now)
        if not isinstance(verdict, Admitted) and self._is_lone_pin(leaf):
            verdict = self._on_anchors(path, (leaf,), now)
        return verdict

    @cached_property
    def _trusted(self) -> X509Store:
        return trust_store(authorities_of(self.policy.rules), self.flags)

    def _is_lone_pin(self, leaf: x509.Certificate) -> bool:
        digest = sha256(leaf)
        return any(not rule.authorities and rule.pins_of(digest) for rule in self.policy.rules)

    def on_chain(self, chain: Sequence[x509.Certificate], at: datetime) -> Admitted | Rejection:
        """
        Judge without a handshake.

        :param chain: as a client would present it, leaf first.
        :param at: the time to judge by.
        :returns: the verdict.
        """
        return self._on_anchors(chain, self.anchors, at)

    def _on_anchors(
        self,
        chain: Sequence[x509.Certificate],
        anchors: Sequence[x509.Certificate] | X509Store,
        at: datetime,
    ) -> Admitted | Rejection:
        leaf, *presented = chain
        found = verified_path(leaf, presented, anchors, self.flags, at)
        if isinstance(found, X509StoreContextError):
            return unusable_key(leaf) or _verification_rejection(found)
        return handshake_objection(found) or self._on_presented(found, presented, at)

    def by_rule(
        self, chain: Sequence[x509.Certificate], at: datetime
    ) -> Iterator[tuple[Rule, Admitted | Rejection]]:
        """
        :returns: each rule, in file order, with the verdict if there were no other.
        """
        for rule in self.policy.rules:
            alone = Judge(
                AdmissionPolicy((rule,), self.policy.deny),
                self._now,
                strict=self._strict,
                always_ask_twice=self._always_ask_twice,
            )
            yield rule, alone.on_chain(chain, at)

    def _others(
        self, path: Path, presented: Sequence[x509.Certificate], now: datetime
    ) -> Iterable[Path]:
        """:returns: other paths, on which a rule might hold that does not on this."""
        # First where there is a way to, then what the rules say: of a thousand
        # CAs a leaf leads to a few.
        reachable = self._other_paths.reachable(path, presented)
        hopes = self.policy.hopes(path, now, reachable)
        return self._other_paths.to(hopes, path, presented, now) if hopes else ()

    def _first_admitted(self, paths: Iterable[Path], now: datetime) -> Admitted | Rejection | None:
        """:returns: the first path's admission, or the first rejection."""
        first = None
        for path in paths:
            verdict = self.policy.judge(path, now, partial(self._objection, now=now))
            if isinstance(verdict, Admitted):
                return verdict
            first = first or verdict
        return first

    def _objection(self, path: Path, now: datetime) -> Rejection | None:
        """:returns: why a path by which a rule would admit does not keep to the
        profile, or to what the second validator makes of it."""
        violation = profile_violation(path) if self._strict else None
        if violation is not None:
            return violation
        if self._always_ask_twice or needs_second_opinion(path):
            why = disagreement(path, now)
            if why is not None:
                # OpenSSL comes to name constraints last, and may have been about
                # to say the same in its own, plainer words.
                return self._refused_by_openssl(path, now) or Rejection(
                    Reason.VALIDATORS_DISAGREE, why, 0
                )
        return None

    def _refused_by_openssl(self, path: Path, now: datetime) -> Rejection | None:
        *lower, anchor = path
        if not lower:
            return None
        found = verified_path(lower[0], lower[1:], [anchor], self.flags, now)
        return _verification_rejection(found) if isinstance(found, X509StoreContextError) else None


def _session_key(leaf: x509.Certificate, server_name: str | None) -> tuple[bytes, str | None]:
    return sha256(leaf), None if server_name is None else canonical(server_name)


def _verification_rejection(error: X509StoreContextError) -> Rejection:
    code, depth, *_ = error.errors
    return verification_rejection(int(code), int(depth))
