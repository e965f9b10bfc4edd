"""
The admin endpoint's routes: what each path answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal, get_args

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred

from mtlsgate.admin.answers import TEXT, Answer, BadRequest, error, in_json, listed
from mtlsgate.admin.call import AdminCall
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.parsing import parse_certificates
from mtlsgate.config.fields import parse_instant
from mtlsgate.errors import CredentialError
from mtlsgate.observe.connection_status import MOST_CONNECTIONS, ConnectionSelection
from mtlsgate.observe.explanation import Explanation
from mtlsgate.observe.human_log import pin_block
from mtlsgate.observe.server_status import PeriodStatus
from mtlsgate.observe.shadow_status import MOST_CLIENTS, ShadowAttempt, ShadowReport
from mtlsgate.observe.status import ReloadStatus, Status
from mtlsgate.text import quoted

#: Seconds that a request for changes may wait.
LONGEST_WAIT = 30


def _alive(call: AdminCall) -> Answer:
    call.only()
    return Answer(HTTPStatus.OK, b"alive\n", TEXT)


def _ready(call: AdminCall) -> Answer:
    call.only()
    why = call.gate.not_ready
    if why is None:
        return Answer(HTTPStatus.OK, b"ready\n", TEXT)
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode(), TEXT)


def _then(found: Any, answer: Callable[[Any], Answer]) -> Answer | Deferred[Answer]:
    """:returns: the answer, at once if the gate answered at once."""
    return found.addCallback(answer) if isinstance(found, Deferred) else answer(found)


def _metrics(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only()
    return _then(call.gate.exposition(), lambda told: Answer(HTTPStatus.OK, told[1], told[0]))


def _status(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only()
    return _then(call.gate.status(), lambda found: in_json(found.service.to_dict()))


def _connections(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only("after", "limit", "server")
    selection = ConnectionSelection(
        after=call.number("after", 0, 10**15),
        limit=call.number("limit", MOST_CONNECTIONS, MOST_CONNECTIONS),
        server=call.query.get("server"),
    )
    return _then(
        call.gate.status(selection),
        lambda found: listed("connections", found.connections, next=found.next),
    )


def _rejections(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only()
    return _then(
        call.gate.status(),
        lambda found: listed("rejections", found.rejections, total=found.service.rejected),
    )


def _history(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only()
    return _then(call.gate.history(), lambda found: in_json(found.to_dict()))


def _periods(call: AdminCall) -> Deferred[Answer]:
    call.only()
    finding: Deferred[tuple[PeriodStatus, ...]] = call.gate.periods()
    return finding.addCallback(lambda found: listed("periods", found))


def _changes(call: AdminCall) -> Deferred[Answer]:
    call.only("after", "wait")
    after, wait = call.number("after", 0, 10**15), call.number("wait", 0, LONGEST_WAIT)
    waiting: Deferred[int] = call.gate.changed(after, float(wait))
    return waiting.addCallback(lambda number: in_json({"number": number}))


def _explain(call: AdminCall) -> Deferred[Answer]:
    call.only("server", "at")
    gate = call.gate
    try:
        chain = tuple(parse_certificates(call.body))
    except CredentialError as failed:
        raise BadRequest(f"the body must be a certificate, in PEM or DER: {failed}") from None
    return _explained(call, gate, chain, call.query.get("server"))


def _explain_rejection(call: AdminCall, id: str) -> Answer | Deferred[Answer]:
    call.only("at")
    gate = call.gate
    # Before: its mistakes are answered at once.
    _moment(call)
    finding: Deferred[tuple[str, Certificate] | None] = maybeDeferred(gate.rejected_leaf, int(id))

    def explain(found: tuple[str, Certificate] | None) -> Answer | Deferred[Answer]:
        if found is None:
            return error(HTTPStatus.NOT_FOUND, f"there is no leaf of a rejection {id}")
        server, leaf = found
        return _explained(call, gate, (leaf,), server)

    return finding.addCallback(explain)


def _moment(call: AdminCall) -> datetime | None:
    """:raises BadRequest: if it is no instant."""
    at = call.query.get("at")
    try:
        return None if at is None else parse_instant(at)
    except ValueError as failed:
        raise BadRequest(f"at: {failed}") from None


def _explained(
    call: AdminCall, gate: Any, chain: tuple[Certificate, ...], server: str | None
) -> Deferred[Answer]:
    moment = _moment(call)

    def told(found: tuple[Explanation, ...]) -> Answer:
        if server is not None and not found:
            text = f"there is no server {quoted(server)} that asks for certificates"
            return error(HTTPStatus.NOT_FOUND, text)
        return in_json(
            {
                "explanations": [one.to_dict() for one in found],
                "pin_block": pin_block(chain[0]),
            }
        )

    explaining: Deferred[tuple[Explanation, ...]] = gate.explain(chain, server, moment)
    return explaining.addCallback(told)


def _reload(call: AdminCall) -> Deferred[Answer]:
    call.only("dry_run")

    def reloaded(facts: ReloadStatus) -> Answer:
        status = HTTPStatus.OK if facts.succeeded else HTTPStatus.UNPROCESSABLE_ENTITY
        return in_json(facts.to_dict(), status)

    reloading: Deferred[ReloadStatus] = call.gate.reload(call.who, is_trial=call.flag("dry_run"))
    return reloading.addCallback(reloaded)


def _shadow(call: AdminCall) -> Deferred[Answer]:
    call.only("clients")
    most = call.number("clients", MOST_CLIENTS, MOST_CLIENTS)

    def told(found: ShadowReport | None) -> Answer:
        return in_json({"shadow": None if found is None else found.with_most(most).to_dict()})

    reporting: Deferred[ShadowReport | None] = call.gate.shadow_report()
    return reporting.addCallback(told)


def _put_in_shadow(call: AdminCall) -> Deferred[Answer]:
    call.only("file")
    file = call.query.get("file", "")
    if not file or "\0" in file:
        raise BadRequest("file must name a configuration, on the gate's machine")

    def tried(facts: ShadowAttempt) -> Answer:
        status = HTTPStatus.OK if facts.succeeded else HTTPStatus.UNPROCESSABLE_ENTITY
        return in_json(facts.to_dict(), status)

    trying: Deferred[ShadowAttempt] = call.gate.put_in_shadow(file, call.who)
    return trying.addCallback(tried)


def _end_shadow(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only()
    return _then(call.gate.end_shadow(call.who), lambda had: in_json({"ended": had}))


def _drain(call: AdminCall) -> Answer | Deferred[Answer]:
    call.only()
    call.gate.drain(call.who)

    def answer(found: Status) -> Answer:
        admitted, handshakes = found.service.admitted, found.service.handshakes
        told = {"draining": True, "admitted": admitted, "handshakes": handshakes}
        return in_json(told, HTTPStatus.ACCEPTED)

    return _then(call.gate.status(), answer)


def _close(call: AdminCall, text: str) -> Answer | Deferred[Answer]:
    call.only()
    number = int(text)

    def answer(existed: bool) -> Answer:
        if not existed:
            return error(HTTPStatus.NOT_FOUND, f"there is no connection {number}")
        return in_json({"closed": number})

    return _then(call.gate.close(number, call.who), answer)


def _eject(call: AdminCall, sha256: str) -> Answer | Deferred[Answer]:
    call.only()

    def answer(count: int) -> Answer:
        if not count:
            return error(HTTPStatus.NOT_FOUND, "there is no connection with that certificate")
        return in_json({"closed": count})

    return _then(call.gate.eject(sha256, call.who), answer)


#: The routes, as a configuration names them.  ``/`` is the console.
RouteName = Literal[
    "/", "/healthz", "/readyz", "/metrics", "/status", "/connections", "/rejections",
    "/rejections/ID/explain", "/history", "/periods", "/changes", "/explain", "/shadow",
    "/shadow/put", "/shadow/end", "/reload", "/drain", "/connections/NUMBER/close",
    "/clients/SHA256/eject",
]  # fmt: skip
ALL_ROUTES: tuple[RouteName, ...] = get_args(RouteName)


@frozen
class Route:
    """
    :ivar name: its path; capitals stand for a value.
    :ivar method: of HTTP; for GET, HEAD is answered too.
    :ivar respond: makes the answer, from the call and the values in the path.
    :ivar takes_body: whether the request may have a body.
    """

    name: RouteName
    method: bytes
    respond: Callable[..., Answer | Deferred[Answer]]
    takes_body: bool = False


_ROUTES = (
    Route("/healthz", b"GET", _alive),
    Route("/readyz", b"GET", _ready),
    Route("/metrics", b"GET", _metrics),
    Route("/status", b"GET", _status),
    Route("/connections", b"GET", _connections),
    Route("/rejections", b"GET", _rejections),
    Route("/rejections/ID/explain", b"GET", _explain_rejection),
    Route("/history", b"GET", _history),
    Route("/periods", b"GET", _periods),
    Route("/changes", b"GET", _changes),
    Route("/explain", b"POST", _explain, takes_body=True),
    Route("/shadow", b"GET", _shadow),
    Route("/shadow/put", b"POST", _put_in_shadow),
    Route("/shadow/end", b"POST", _end_shadow),
    Route("/reload", b"POST", _reload),
    Route("/drain", b"POST", _drain),
    Route("/connections/NUMBER/close", b"POST", _close),
    Route("/clients/SHA256/eject", b"POST", _eject),
)
_VALUES = {"NUMBER": "([0-9]{1,15})", "ID": "([0-9]{1,15})", "SHA256": "([0-9a-f]{64})"}


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("/".join(_VALUES.get(part, re.escape(part)) for part in name.split("/")))


_PATTERNS = tuple((_pattern(route.name), route) for route in _ROUTES)


def route_of(path: str) -> tuple[Route, tuple[str, ...]] | None:
    """
    :returns: what answers a path, and the values in it; or None.  A path can be written
        in one way only.
    """
    for pattern, route in _PATTERNS:
        if found := pattern.fullmatch(path):
            return route, found.groups()
    return None
