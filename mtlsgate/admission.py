"""
Who is let in: pure decisions on certificate paths.

A path that OpenSSL verified comes in, a verdict goes out.  Nothing here knows
of sockets, files or OpenSSL; what OpenSSL has checked already (signatures,
path building, constraints) is not done again, and what is checked here can
only reject further.

Read `AdmissionPolicy.judge` from top to bottom to learn why a client was
rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from attrs import field, frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsgate.credentials import UNPARSABLE, is_ca, sha256
from mtlsgate.reasons import Reason

#: A path as verified: the leaf first, its issuers after it.
Path = tuple[x509.Certificate, ...]


@frozen
class Rule:
    """
    What one ``client_certificate`` block demands.

    :ivar name: the block's label, or ``#2`` for the second block where it has none.
    :ivar authorities: the CAs, one of which the path must run through; empty
        where the rule names none.
    :ivar pins: the leaves, one of which the client's must be byte-equal to;
        empty where any leaf of the CAs will do.
    """

    name: str
    authorities: tuple[x509.Certificate, ...] = ()
    pins: tuple[x509.Certificate, ...] = ()


@frozen
class Admitted:
    """
    A verdict: let in.

    :ivar rule: the first rule in file order that holds.
    :ivar path: the path on which it holds, leaf first; the leaf alone where
        the rule names no CA.
    """

    rule: Rule
    path: Path


@frozen
class Rejection:
    """
    A verdict: not let in.

    :ivar reason: from the closed vocabulary.
    :ivar detail: the particulars, in one line.
    :ivar depth: of the certificate that gave cause, 0 being the leaf; None
        where no certificate did.
    """

    reason: Reason
    detail: str
    depth: int | None = None


#: A CA or None, and a pin or None, by digest.
_Demand = tuple[bytes | None, bytes | None]


def _index_of(rules: Sequence[Rule]) -> dict[_Demand, int]:
    """
    :returns: for each (CA or None, pin or None) the place of the first rule
        that demands exactly these, so that a verdict costs a few look-ups,
        however many rules and pins there are.
    """
    index: dict[_Demand, int] = {}
    for place, rule in enumerate(rules):
        pins: list[bytes | None] = [sha256(pin) for pin in rule.pins]
        authorities: list[bytes | None] = [sha256(one) for one in rule.authorities]
        for authority in authorities or [None]:
            for pin in pins or [None]:
                index.setdefault((authority, pin), place)
    if (None, None) in index:
        raise ValueError("a rule demands neither a CA nor a leaf")
    return index


@frozen
class AdmissionPolicy:
    """
    The rules of one server.

    :ivar rules: in file order; a client is admitted if at least one holds.
    """

    rules: tuple[Rule, ...]
    _index: dict[_Demand, int] = field(init=False, repr=False, eq=False)
    _authorities: frozenset[bytes] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        index = _index_of(self.rules)
        object.__setattr__(self, "_index", index)
        object.__setattr__(
            self, "_authorities", frozenset(authority for authority, _ in index if authority)
        )

    def judge(self, path: Path, now: datetime) -> Admitted | Rejection:
        """
        :param path: as OpenSSL verified it, leaf first; at least the leaf.
        :param now: the time to judge by, aware.
        :returns: the verdict.  A certificate that does not parse is a
            rejection, too; nothing is raised for what a client sent.
        """
        try:
            # What the log and the application will read must parse, too.
            _ = path[0].subject, path[0].issuer
            leaf_is_ca = is_ca(path[0])
            unfit = _unfit(path[0], now)
        except UNPARSABLE as error:
            return Rejection(Reason.MALFORMED_CERTIFICATE, _first_line(error), 0)
        if unfit is not None:
            return unfit
        leaf = sha256(path[0])
        authorities = [sha256(one) for one in path[1:]]
        demands: list[_Demand] = [(authority, leaf) for authority in (None, *authorities)]
        if not leaf_is_ca:
            demands += [(authority, None) for authority in authorities]
        places = [self._index[demand] for demand in demands if demand in self._index]
        if places:
            rule = self.rules[min(places)]
            # Above a pin that is its own anchor stands what the client sent along, and
            # nobody vouches for that.
            return Admitted(rule, path if rule.authorities else path[:1])
        if leaf_is_ca:
            return Rejection(
                Reason.CA_AS_LEAF, "the client's certificate is a CA, and is not itself pinned", 0
            )
        if self._authorities.isdisjoint(authorities):
            return Rejection(
                Reason.UNKNOWN_CA, "the path runs through no configured CA", len(path) - 1
            )
        return Rejection(
            Reason.LEAF_MISMATCH,
            "the CA is a configured one, but the client's certificate is none of its pins",
            0,
        )


def _unfit(leaf: x509.Certificate, now: datetime) -> Rejection | None:
    """
    What holds for every leaf, pinned or not (RFC 5280, 4.1.2.5 and 4.2.1.12).

    Validity counts in whole seconds, both ends included.
    """
    now = now.replace(microsecond=0)
    if now > leaf.not_valid_after_utc:
        return Rejection(Reason.EXPIRED, f"expired at {leaf.not_valid_after_utc.isoformat()}", 0)
    if now < leaf.not_valid_before_utc:
        return Rejection(
            Reason.NOT_YET_VALID, f"valid from {leaf.not_valid_before_utc.isoformat()}", 0
        )
    if not allows_client_authentication(leaf):
        return Rejection(
            Reason.WRONG_PURPOSE, "its extended key usage does not include clientAuth", 0
        )
    return None


def allows_client_authentication(certificate: x509.Certificate) -> bool:
    """:returns: whether the extended key usage, where present, includes TLS
    client authentication (RFC 5280, 4.2.1.12)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return (
        ExtendedKeyUsageOID.CLIENT_AUTH in usage
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
    )


def authorities_of(rules: Iterable[Rule]) -> tuple[x509.Certificate, ...]:
    """:returns: the CAs of the rules, each once, in file order."""
    return tuple({sha256(one): one for rule in rules for one in rule.authorities}.values())


def lone_pins_of(rules: Iterable[Rule]) -> tuple[x509.Certificate, ...]:
    """:returns: the pins of the rules without a CA, which are their own
    anchors, each once, in file order."""
    return tuple(
        {sha256(pin): pin for rule in rules if not rule.authorities for pin in rule.pins}.values()
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
