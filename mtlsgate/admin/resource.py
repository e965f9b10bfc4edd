"""
The admin endpoint's routes.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mtlsgate.admin.guard import Guard
from mtlsgate.admin.site import AdminRequest
from mtlsgate.interfaces import IGate, IVerifiedPeer
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.observe.status import MOST_CONNECTIONS, ConnectionSelection, ReloadStatus, StatusValue
from mtlsgate.peer import address_text
from mtlsgate.text import shown

_log = Logger("mtlsgate.admin")

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
#: Keep browsers from using an answer in any way.
_HEADERS = {
    "Server": "mtlsgate",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_MOST_PARAMETERS = 10
_CLOSE = re.compile(r"/connections/([0-9]{1,15})/close")

#: The routes, as a configuration names them.
RouteName = Literal[
    "/healthz", "/readyz", "/metrics", "/status", "/connections", "/rejections",
    "/reload", "/drain", "/connections/NUMBER/close",
]  # fmt: skip
ALL_ROUTES: tuple[RouteName, ...] = get_args(RouteName)


@frozen
class Answer:
    """
    :ivar status: the HTTP status.
    :ivar body: the content.
    :ivar content_type: its media type.
    :ivar headers: further headers.
    """

    status: HTTPStatus
    body: bytes
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, json.dumps(value, indent=2).encode() + b"\n")


def _listed(name: str, values: Iterable[StatusValue], **rest: object) -> Answer:
    """:returns: an object with a list. One line an item is quicker than indenting."""
    lines = ",\n".join(json.dumps(one.to_dict()) for one in values)
    others = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in rest.items())
    return Answer(HTTPStatus.OK, f'{{"{name}": [\n{lines}\n]{others}}}\n'.encode())


def _error(status: HTTPStatus, text: str, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    body = json.dumps({"error": text}, indent=2).encode() + b"\n"
    return Answer(status, body, headers=tuple(headers))


class BadRequest(Exception):
    """A request with a mistake; the text names it in one line."""


class Starting(Exception):
    """The gate does not run yet."""


@frozen
class AdminCall:
    """
    A request that the guard lets through.

    :ivar path: the path of the request.
    :ivar query: its parameters; each occurs once.
    :ivar who: the caller, for the log.
    """

    path: str
    query: dict[str, str]
    who: str
    _find_gate: Callable[[], IGate]

    @property
    def gate(self) -> Any:
        """
        The running gate.

        :raises Starting: if it does not run yet.
        """
        try:
            return self._find_gate()
        except LookupError as error:
            raise Starting from error

    def only(self, *names: str) -> None:
        """
        Refuse unknown parameters: a misspelt one must not be ignored.

        :raises BadRequest: if there are other parameters.
        """
        for name in self.query:
            if name not in names:
                known = ", ".join(names) or "none"
                raise BadRequest(f'unknown parameter "{shown(name)}" (there are: {known})')

    def number(self, name: str, otherwise: int, most: int) -> int:
        """:raises BadRequest: if the parameter is no whole number in that range."""
        text = self.query.get(name, str(otherwise))
        if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) > most:
            raise BadRequest(f"{name} must be a whole number, at most {most}")
        return int(text)

    def flag(self, name: str) -> bool:
        """:raises BadRequest: if the parameter is neither 1 nor 0."""
        text = self.query.get(name, "0")
        if text not in ("0", "1"):
            raise BadRequest(f"{name} must be 1 or 0")
        return text == "1"


def _alive(call: AdminCall) -> Answer:
    call.only()
    return Answer(HTTPStatus.OK, b"alive\n", _TEXT)


def _ready(call: AdminCall) -> Answer:
    call.only()
    why = call.gate.not_ready
    if why is None:
        return Answer(HTTPStatus.OK, b"ready\n", _TEXT)
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode(), _TEXT)


def _metrics(call: AdminCall) -> Answer:
    call.only()
    content_type, body = call.gate.exposition()
    return Answer(HTTPStatus.OK, body, content_type)


def _status(call: AdminCall) -> Answer:
    call.only()
    return _json(call.gate.status().service.to_dict())


def _connections(call: AdminCall) -> Answer:
    call.only("after", "limit", "server")
    selection = ConnectionSelection(
        after=call.number("after", 0, 10**15),
        limit=call.number("limit", MOST_CONNECTIONS, MOST_CONNECTIONS),
        server=call.query.get("server"),
    )
    found = call.gate.status(selection)
    return _listed("connections", found.connections, next=found.next)


def _rejections(call: AdminCall) -> Answer:
    call.only()
    found = call.gate.status()
    return _listed("rejections", found.rejections, total=found.service.rejected)


def _reload(call: AdminCall) -> Deferred[Answer]:
    call.only("dry_run")

    def reloaded(facts: ReloadStatus) -> Answer:
        status = HTTPStatus.OK if facts.succeeded else HTTPStatus.UNPROCESSABLE_ENTITY
        return _json(facts.to_dict(), status)

    reloading: Deferred[ReloadStatus] = call.gate.reload(call.who, is_trial=call.flag("dry_run"))
    return reloading.addCallback(reloaded)


def _drain(call: AdminCall) -> Answer:
    call.only()
    call.gate.drain(call.who)
    status = call.gate.status().service
    return _json(
        {"draining": True, "admitted": status.admitted, "handshakes": status.handshakes},
        HTTPStatus.ACCEPTED,
    )


def _close(call: AdminCall) -> Answer:
    call.only()
    found = _CLOSE.fullmatch(call.path)
    assert found is not None
    number = int(found[1])
    if not call.gate.close(number, call.who):
        return _error(HTTPStatus.NOT_FOUND, f"there is no connection {number}")
    return _json({"closed": number})


_Respond = Callable[[AdminCall], "Answer | Deferred[Answer]"]


@frozen
class _Route:
    name: RouteName
    respond: _Respond
    method: bytes


_ROUTES = (
    _Route("/healthz", _alive, b"GET"),
    _Route("/readyz", _ready, b"GET"),
    _Route("/metrics", _metrics, b"GET"),
    _Route("/status", _status, b"GET"),
    _Route("/connections", _connections, b"GET"),
    _Route("/rejections", _rejections, b"GET"),
    _Route("/reload", _reload, b"POST"),
    _Route("/drain", _drain, b"POST"),
    _Route("/connections/NUMBER/close", _close, b"POST"),
)
_BY_NAME: dict[str, _Route] = {route.name: route for route in _ROUTES}
_METHODS = {b"GET": b"GET, HEAD", b"POST": b"POST"}


def _route(path: str) -> _Route | None:
    return _BY_NAME["/connections/NUMBER/close"] if _CLOSE.fullmatch(path) else _BY_NAME.get(path)


class AdminResource(Resource):
    """The routes of the endpoint."""

    isLeaf = True

    def __init__(
        self,
        gate: Callable[[], IGate],
        guard: Guard,
        routes: Collection[RouteName] = ALL_ROUTES,
    ) -> None:
        """
        :param gate: finds the running gate; raises LookupError if there is none.
        :param guard: decides which requests are answered.
        :param routes: which routes there are.
        """
        super().__init__()
        self._find_gate = gate
        self._guard = guard
        self._routes = frozenset(routes)

    def render(self, request: AdminRequest) -> int:
        """:returns: that the answer is sent later."""
        try:
            answer = self._answer(request)
        except BadRequest as error:
            answer = _error(HTTPStatus.BAD_REQUEST, str(error))
        except Starting:
            answer = Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"starting\n", _TEXT)
        if isinstance(answer, Answer):
            _send(request, answer)
            return NOT_DONE_YET
        # The client may be gone by then.
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def send(answer: Answer) -> None:
            if not gone:
                _send(request, answer)

        def failed(failure: Failure) -> None:
            _log.failure("{path} failed", failure=failure, path=shown(_text(request.path)))
            send(_error(HTTPStatus.INTERNAL_SERVER_ERROR, "it failed: see the gate's log"))

        answer.addCallback(send).addErrback(failed)
        return NOT_DONE_YET

    def _answer(self, request: AdminRequest) -> Answer | Deferred[Answer]:
        path = _text(request.path)
        transport = request.channel.transport
        objection = self._guard.objection(
            request.path,
            request.requestHeaders,
            getattr(request.getHost(), "port", None),
            is_known=IVerifiedPeer(transport, None) is not None,
        )
        if objection is not None:
            return _error(objection.status, objection.text, objection.headers)
        route = _route(path)
        if route is None:
            return _error(HTTPStatus.NOT_FOUND, "there is nothing here")
        if route.name not in self._routes:
            return _error(HTTPStatus.FORBIDDEN, f"{route.name} is not among this server's routes")
        if request.method != route.method and (request.method, route.method) != (b"HEAD", b"GET"):
            allowed = _METHODS[route.method].decode()
            return _error(
                HTTPStatus.METHOD_NOT_ALLOWED, f"this answers to {allowed}", [("Allow", allowed)]
            )
        if request.body_length:
            raise BadRequest("a body is never read: parameters go into the query, as ?dry_run=1")
        return route.respond(AdminCall(path, _query(request), _who(request), self._find_gate))


def _send(request: AdminRequest, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    for name, value in (*_HEADERS.items(), *answer.headers):
        request.setHeader(name, value)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    request.write(b"" if request.method == b"HEAD" else answer.body)
    request.finish()


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


def _query(request: AdminRequest) -> dict[str, str]:
    """:raises BadRequest: if a parameter occurs twice."""
    _, _, text = _text(request.uri).partition("?")
    # The request's own args leave out parameters without a value, so that
    # "?dry_run" would have no effect.
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise BadRequest("there are too many parameters") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("a parameter is there twice")
    return found


def _who(request: AdminRequest) -> str:
    """:returns: the caller, for the log."""
    transport = request.channel.transport
    peer = IVerifiedPeer(transport, None)
    if peer is not None:
        return f"{subject_of(peer.certificates[0])} at {address_text(peer.address)}"
    address = transport.getPeer()
    if isinstance(address, UNIXAddress):
        return _process(transport)
    return address_text(address)


def _process(transport: Any) -> str:
    """:returns: which process is at the other end of a unix socket."""
    handle = transport.getHandle()
    # Linux: struct ucred.
    size = struct.calcsize("3i")
    known = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _ = struct.unpack("3i", known)
    return f"process {pid} of user {uid}"
