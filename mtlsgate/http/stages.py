"""
What a client's connection waits for, for how long, and what happens then.

`TABLE` is what `mtlsgate.http.connection` runs by.

=========  ====================================  ===================  ==================
stage      waits for                             for                  then
=========  ====================================  ===================  ==================
``FIRST``  the first byte of the first request   ``first_timeout``    closed
``IDLE``   the first byte of the next request    ``idle_timeout``     closed
``HEAD``   the rest of a head                    ``head_timeout``     408, closed
``BODY``   more of a body                        ``body_timeout``     408, closed
``BUSY``   the exchange                          what it sets itself
``HELD``   the client, to take the response      ``idle_timeout``     closed
``RAW``    either end of another protocol        what the exchange sets
``ENDED``  the client's end of the connection    ``close_timeout``    reset
``LOST``   nothing
=========  ====================================  ===================  ==================

FIRST → HEAD → BODY → BUSY → HELD → IDLE → HEAD …  A request without a body has no BODY, one
whose head is here at once no HEAD, and a client that keeps up no HELD.  BUSY → RAW when the
protocol is switched.  Any → ENDED when the server closes, any → LOST when the connection is.

In BODY and BUSY a client that takes nothing of its response for ``send_timeout`` is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto

from attrs import frozen

from mtlsgate.http.limits import HttpLimits


class HttpStage(Enum):
    """What a connection waits for."""

    FIRST = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    BUSY = auto()
    HELD = auto()
    RAW = auto()
    ENDED = auto()
    LOST = auto()


class Late(Enum):
    """What happens to a connection whose time is over."""

    CLOSED = auto()
    TOLD = auto()
    RESET = auto()


@frozen
class StageRule:
    """
    :ivar time: how long a stage may last, in seconds; None if it has no limit of its own.
    :ivar late: what happens then.
    :ivar cause: why, for the log.
    :ivar reads: whether requests are read in it.
    """

    time: Callable[[HttpLimits], float | None]
    late: Late = Late.CLOSED
    cause: str = ""
    reads: bool = True


TABLE: Mapping[HttpStage, StageRule] = {
    HttpStage.FIRST: StageRule(lambda limits: limits.first_timeout),
    HttpStage.IDLE: StageRule(lambda limits: limits.idle_timeout),
    HttpStage.HEAD: StageRule(
        lambda limits: limits.head_timeout, Late.TOLD, "the head was not complete in time"
    ),
    HttpStage.BODY: StageRule(
        lambda limits: limits.body_timeout, Late.TOLD, "the client was silent for {seconds:g} s"
    ),
    HttpStage.BUSY: StageRule(lambda limits: None),
    HttpStage.HELD: StageRule(lambda limits: limits.idle_timeout, reads=False),
    HttpStage.RAW: StageRule(lambda limits: None, reads=False),
    HttpStage.ENDED: StageRule(lambda limits: limits.close_timeout, Late.RESET, reads=False),
    HttpStage.LOST: StageRule(lambda limits: None, reads=False),
}

#: How many bytes of the next requests are kept while one is answered.
_AHEAD = 16 * 1024
#: In these an exchange is at work.
ANSWERING = (HttpStage.BODY, HttpStage.BUSY)


def seconds_for(
    stage: HttpStage, limits: HttpLimits, *, congested: bool, client_waits: bool, refused: bool
) -> float | None:
    """
    :param congested: whether the client takes no more of its response for now.
    :param client_waits: whether the client cannot go on with its body for now.
    :param refused: whether there is no more to read than a refusal.
    :returns: how long the client has from now on; None if nobody waits for it.
    """
    if stage in ANSWERING and congested:
        return limits.send_timeout
    if stage is HttpStage.BODY and client_waits:
        return None
    if stage is HttpStage.ENDED and refused:
        return limits.refused_timeout
    return TABLE[stage].time(limits)


def wants_bytes(stage: HttpStage, *, paused: bool, later: bool, waiting: int) -> bool:
    """
    :param paused: whether the exchange takes no more of the body for now.
    :param later: whether what came is read on in another turn.
    :param waiting: how many bytes came that were not read yet.
    :returns: whether the transport should read.
    """
    if stage is HttpStage.ENDED:
        # TLS waits for the client's close_notify.
        return True
    if stage is HttpStage.RAW or (stage is HttpStage.BODY and paused):
        return not paused
    if later:
        return False
    return stage not in (HttpStage.BUSY, HttpStage.HELD) or waiting < _AHEAD
