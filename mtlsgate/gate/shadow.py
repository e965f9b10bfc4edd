"""
What another configuration would do with a client, compared with what is done: values,
and the decision how the two differ.  Pure.

The other configuration is "in the shadow": it judges every client, and changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from attrs import field, frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.reasons import About


class Outcome(StrEnum):
    """How the shadow's verdict differs from the one in force."""

    SAME = "same"
    OTHER_RULE = "other_rule"
    OTHER_SERVER = "other_server"
    WOULD_BE_OUT = "would_be_out"
    WOULD_BE_IN = "would_be_in"
    NOT_JUDGED = "not_judged"


class NotJudged(StrEnum):
    """Why the shadow has no verdict on a client."""

    #: Only an authorizer or a registry of the shadow could tell: the one is not asked, the other
    #: does not answer.
    NOT_ASKED = "not_asked"
    #: It depends on a document that the gate would fetch, or get from an agent, and does not
    #: for the shadow.
    NOT_FETCHED = "not_fetched"
    #: Too many clients waited to have a path verified.
    BUSY = "busy"
    #: Judging it failed.
    INTERNAL_ERROR = "internal_error"


@frozen(kw_only=True)
class Standing:
    """
    Where a client stands by one configuration.

    :ivar server: the name of the server that it reaches; "" if there is none.
    :ivar rule: the rule that admits it; None if it is rejected, or no certificate is
        asked for.
    :ivar rejection: why it is rejected; None if it is admitted.
    """

    server: str
    rule: str | None = None
    rejection: Rejection | None = None


def compare(now: Standing, then: Standing) -> Outcome:
    """
    :param now: by the configuration in force.
    :param then: by the shadow.
    """
    if now.rejection is not None:
        return Outcome.SAME if then.rejection is not None else Outcome.WOULD_BE_IN
    if then.rejection is not None:
        return Outcome.WOULD_BE_OUT
    if now.server != then.server:
        return Outcome.OTHER_SERVER
    return Outcome.SAME if now.rule == then.rule else Outcome.OTHER_RULE


@frozen(kw_only=True)
class ShadowVerdict:
    """
    The shadow's verdict on one client.

    :ivar at: when it was given.
    :ivar connection: the number of the client's connection; None if it was closed at once.
    :ivar address: the client's.
    :ivar leaf: its certificate, or None.
    :ivar now: where it stands.
    :ivar then: where it would stand; None if it was not judged.
    :ivar not_judged: why it was not judged, or None.
    :ivar is_live: whether it was connected when the shadow began.
    :ivar outcome: how it differs.
    """

    at: datetime
    connection: int | None
    address: IAddress
    leaf: Certificate | None
    now: Standing
    then: Standing | None
    not_judged: NotJudged | None = None
    is_live: bool = False
    outcome: Outcome = field(init=False)

    @outcome.default
    def _compared(self) -> Outcome:
        return Outcome.NOT_JUDGED if self.then is None else compare(self.now, self.then)

    @property
    def rule(self) -> str:
        """The rule to look at: for a client that would come in the shadow's, otherwise
        the one in force; "" for none."""
        then = self.then
        if self.outcome is Outcome.WOULD_BE_IN and then is not None:
            return then.rule or ""
        return self.now.rule or ""

    @property
    def reason(self) -> str:
        """The reason to look at: why it would be out, or is out now, or was not judged;
        "" for none."""
        outcome = self.outcome
        if outcome is Outcome.NOT_JUDGED and self.not_judged is not None:
            return self.not_judged.value
        if outcome is Outcome.WOULD_BE_OUT and self.then is not None:
            return _reason(self.then.rejection)
        return _reason(self.now.rejection) if outcome is Outcome.WOULD_BE_IN else ""

    @property
    def identity(self) -> bytes | None:
        """The identity of the client's certificate, or None."""
        return None if self.leaf is None else self.leaf.identity


def _reason(rejection: Rejection | None) -> str:
    return "" if rejection is None else rejection.reason.value


#: Rejections of clients that the rules admit, by somebody who was asked after them.
BY_SOMEBODY_ASKED = (About.REGISTRY, About.AUTHORIZER)
#: Rejections that another configuration may see in another way.  It says nothing about the
#: others: a limit, or no TLS.
JUDGED_AGAIN = (About.CERTIFICATE, *BY_SOMEBODY_ASKED)
