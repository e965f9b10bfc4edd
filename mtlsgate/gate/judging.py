"""
Judging a client by the configuration that is in force now.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from mtlsgate.admission import Pin, Rejection
from mtlsgate.admission.devices import Device
from mtlsgate.admission.listings import NOT_ASKED, Answers, Question
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.events import Admission
from mtlsgate.gate.registries import Known, nothing_known
from mtlsgate.gate.terms import Terms
from mtlsgate.peer import VerifiedPeer


@frozen(kw_only=True)
class Held:
    """
    The server, terms and rule of an admitted client, as of now.

    :ivar server: the name of the server that it would reach now.
    :ivar terms: that server's terms.
    :ivar peer: the client, with the rule that admits it now; None if the server
        asks for no certificate.
    :ivar pin: the pin that admits it now, or None.
    :ivar authorizer: who is asked about it before it is admitted, or None.
    :ivar device: what a registry knows of it, or None.
    :ivar answers: what registries said.
    :ivar open: what registries must still be asked before it is admitted.
    """

    server: str
    terms: Terms
    peer: VerifiedPeer | None
    pin: Pin | None
    authorizer: Authorizer | None = None
    device: Device | None = None
    answers: Answers = NOT_ASKED
    open: tuple[Question, ...] = ()


def held_as_before(server: str, terms: Terms, admission: Admission) -> Held:
    """:returns: what a client is held to if its admission stays as it was."""
    return Held(
        server=server,
        terms=terms,
        peer=admission.peer,
        pin=admission.pin,
        device=admission.device,
        answers=admission.answers,
    )


class Judging(Protocol):
    """Judges by the configuration that is in force at the time of the call."""

    def is_in_force(self, listener: str, server: object) -> bool:
        """
        :param server: the `GateServer` that admitted a client at that listener.
        :returns: whether the server is still in force there, so that its verdict
            still holds.
        """

    def judge(
        self,
        listener: str,
        server_name: str | None,
        peer: VerifiedPeer | None,
        known: Known = nothing_known,
    ) -> Held | Rejection:
        """
        :param listener: the key of the listener that the client connected to.
        :param server_name: the name that it asked for.
        :param peer: the client as it was verified on arrival; None if no
            certificate was asked for.
        :param known: what registries say, as far as it is known.
        :returns: its server and terms now, or why it is not admitted.
        """
