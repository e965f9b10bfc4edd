"""
The admin endpoint as a resource: from a request to an answer, and onto the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mtlsgate.admin.answers import TEXT, Answer, BadRequest, Starting, error
from mtlsgate.admin.call import call_of, text_of
from mtlsgate.admin.console import page_of
from mtlsgate.admin.guard import Guard
from mtlsgate.admin.routes import ALL_ROUTES, RouteName, route_of
from mtlsgate.admin.site import AdminRequest
from mtlsgate.interfaces import IGate, IVerifiedPeer
from mtlsgate.text import shown

_log = Logger("mtlsgate.admin")

#: Keep browsers from using an answer in any way.
_HEADERS = {
    "Server": "mtlsgate",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_METHODS = {b"GET": b"GET, HEAD", b"POST": b"POST"}


class AdminResource(Resource):
    """The routes of the endpoint, and the console's page."""

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
        except BadRequest as failed:
            answer = error(HTTPStatus.BAD_REQUEST, str(failed))
        except Starting:
            answer = Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"starting\n", TEXT)
        if isinstance(answer, Answer):
            _send(request, answer)
        else:
            _send_later(request, answer)
        return NOT_DONE_YET

    def _answer(self, request: AdminRequest) -> Answer | Deferred[Answer]:
        transport = request.channel.transport
        objection = self._guard.objection(
            request.path,
            request.requestHeaders,
            getattr(request.getHost(), "port", None),
            is_known=IVerifiedPeer(transport, None) is not None,
        )
        if objection is not None:
            return error(objection.status, objection.text, objection.headers)
        page = page_of(request.path)
        if page is not None:
            name, method, takes_body = "/", b"GET", False
        elif found := route_of(text_of(request.path)):
            route, values = found
            name, method, takes_body = route.name, route.method, route.takes_body
        else:
            return error(HTTPStatus.NOT_FOUND, "there is nothing here")
        if name not in self._routes:
            return error(HTTPStatus.FORBIDDEN, f"{name} is not among this server's routes")
        if request.method != method and (request.method, method) != (b"HEAD", b"GET"):
            allowed = _METHODS[method].decode()
            return error(
                HTTPStatus.METHOD_NOT_ALLOWED, f"this answers to {allowed}", [("Allow", allowed)]
            )
        if request.body_length and not takes_body:
            raise BadRequest("a body is not read: parameters go into the query, as ?dry_run=1")
        call = call_of(request, self._find_gate)
        if page is not None:
            call.only()
            return page
        return route.respond(call, *values)


def _send_later(request: AdminRequest, answer: Deferred[Answer]) -> None:
    # The client may be gone by then.
    gone: list[object] = []
    request.notifyFinish().addErrback(gone.append)

    def send(found: Answer) -> None:
        if not gone:
            _send(request, found)

    def failed(failure: Failure) -> None:
        path = shown(text_of(request.path))
        _log.failure("{path} failed", failure=failure, path=path)
        send(error(HTTPStatus.INTERNAL_SERVER_ERROR, "it failed: see the gate's log"))

    answer.addCallback(send).addErrback(failed)


def _send(request: AdminRequest, answer: Answer) -> None:
    request.setResponseCode(answer.status, answer.status.phrase.encode())
    for name, value in {**_HEADERS, **dict(answer.headers)}.items():
        request.setHeader(name, value)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    request.write(b"" if request.method == b"HEAD" else answer.body)
    request.finish()
