"""
The bundles of SPIFFE trust domains, and which of them may vouch for a leaf.

The bundle of one trust domain never vouches for a leaf of another (SPIFFE Workload API,
4.6): the leaf's own SPIFFE ID says which bundle counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, field, frozen

from mtlsgate.admission.verdicts import Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.svid import spiffe_id_of
from mtlsgate.errors import CredentialError
from mtlsgate.reasons import Reason


@frozen
class Bundle:
    """
    The CAs of one trust domain.

    :ivar trust_domain: its name.
    :ivar agent: the socket of the SPIFFE agent that delivers them.
    :ivar authorities: the CAs; empty if the agent has not delivered any.
    """

    trust_domain: str
    agent: str
    authorities: tuple[Certificate, ...] = ()
    #: Their digests.
    digests: frozenset[bytes] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: frozenset(one.sha256 for one in self.authorities), takes_self=True
        ),
    )

    @property
    def missing(self) -> Rejection | None:
        """Why it admits nobody, or None."""
        if self.authorities:
            return None
        return Rejection(
            Reason.BUNDLE_MISSING,
            f"the agent at {self.agent} has delivered no bundle of the trust domain "
            f"{self.trust_domain}",
            0,
        )


def bundle_for(leaf: Certificate, bundles: Iterable[Bundle]) -> Bundle | Rejection:
    """
    :param bundles: of a rule.
    :returns: the bundle of the leaf's trust domain, in which its path must end; or why the
        rule does not admit the leaf.
    """
    try:
        name = spiffe_id_of(leaf)
    except CredentialError as error:
        return Rejection(
            Reason.SVID_INVALID, f"the certificate is no X.509-SVID of a workload: it {error}", 0
        )
    given = list(bundles)
    bundle = next((one for one in given if one.trust_domain == name.trust_domain), None)
    if bundle is None:
        wanted = " or ".join(one.trust_domain for one in given)
        return Rejection(Reason.WRONG_TRUST_DOMAIN, f"{name} is not in {wanted}", 0)
    return bundle.missing or bundle
