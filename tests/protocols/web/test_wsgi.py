"""
A WSGI application behind the gate.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
from twisted.internet.address import UNIXAddress
from twisted.logger import formatEvent
from twisted.python.threadpool import ThreadPool
from zope.interface.verify import verifyObject

from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.web import threads, wsgi_call
from mtlsgate.protocols.web.threads import Workers
from mtlsgate.protocols.web.wsgi_call import PIECE
from mtlsgate.testing import Version
from tests.kits.gate import Log
from tests.kits.web import NoThreads, ThreadlessClock, Web, logged, module, parse, request

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
PLAIN = [("Content-Type", "text/plain")]


class App:
    """
    A WSGI application.

    :ivar environs: what it was called with.
    :ivar bodies: what it read of each request.
    """

    def __init__(self, answer: Callable[[Environ, Start], Iterable[bytes]] | None = None) -> None:
        self.environs: list[Environ] = []
        self.bodies: list[bytes] = []
        self._answer = answer

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        self.environs.append(dict(environ))
        self.bodies.append(environ["wsgi.input"].read())
        if self._answer is not None:
            return self._answer(environ, start_response)
        start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
        return [b"hello"]

    @property
    def environ(self) -> Environ:
        """Of the only call."""
        (one,) = self.environs
        return one


Serve = Callable[..., Web]


@pytest.fixture
def serve(log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Put an application behind a gate."""
    served: list[Web] = []

    def serve(app: Callable[..., Iterable[bytes]], **attributes: Any) -> Web:
        monkeypatch.setitem(sys.modules, "served", type(sys)("served"))
        sys.modules["served"].app = app  # type: ignore[attr-defined]
        served.append(Web(log, monkeypatch, wsgi="served:app", **attributes))
        return served[-1]

    yield serve
    for web in served:
        web.site.doStop()


# What it is told


def test_it_is_told_who_the_client_is_in_mod_ssls_words(serve: Serve, version: Version) -> None:
    app = App()
    web = serve(app)
    alice = web.authority.issue("alice", dns_names=["a.example"])
    client = web.client(alice, server_name="gate.example", min_version=version, max_version=version)
    assert web.ask("/a%20b/c?d=e", client=client).status == 200
    told = app.environ
    assert told["HTTPS"] == "on"
    assert told["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert told["SSL_CLIENT_S_DN"] == told["SSL_CLIENT_S_DN_CN"].join(["CN=", ""]) == "CN=alice"
    assert told["SSL_CLIENT_I_DN"] == "CN=Web CA"
    assert told["SSL_CLIENT_CERT"] == alice.pem.decode()
    assert told["SSL_CLIENT_CERT_CHAIN_0"] == web.authority.pem.decode()
    assert told["SSL_CLIENT_SAN_DNS_0"] == "a.example"
    assert told["SSL_CLIENT_V_REMAIN"] == "365"
    assert told["SSL_PROTOCOL"] == f"TLSv{version}"
    assert told["SSL_CIPHER"] == client.cipher
    assert told["SSL_TLS_SNI"] == "gate.example"
    assert told["SSL_SESSION_RESUMED"] == "Initial"
    assert verifyObject(IVerifiedPeer, told["mtlsgate.peer"])
    assert told["mtlsgate.peer"].leaf == alice.certificate
    assert "REMOTE_USER" not in told


def test_it_is_told_what_cgi_knows(serve: Serve) -> None:
    """... and nothing about its HTTP is lost."""
    app = App()
    serve(app).ask(
        "/a%20b/c?d=e&f=%20",
        "Content-Type: text/x",
        "X-One: 1",
        "X-One: 2",
        method="POST",
        body=b"body",
    )
    told = app.environ
    assert {name: told[name] for name in told if name.isupper() and "SSL" not in name} == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/c",
        "QUERY_STRING": "d=e&f=%20",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "4",
        "SERVER_NAME": "gate.example",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "gate.example",
        "HTTP_X_ONE": "1,2",
        "HTTPS": "on",
    }
    assert told["wsgi.url_scheme"] == "https"
    assert app.bodies == [b"body"]


def test_without_certificates_there_is_no_client(serve: Serve) -> None:
    """NONE, and none of what a certificate would say."""
    app = App()
    web = serve(app, anyone=True, remote_user="sha256")
    client = web.gate.connect(None, server_name="gate.example")
    assert web.ask("/", "SSL-Client-Verify: SUCCESS", client=client).status == 200
    told = app.environ
    assert told["SSL_CLIENT_VERIFY"] == "NONE"
    assert told["mtlsgate.peer"] is None
    assert told["SSL_TLS_SNI"] == "gate.example"
    assert told["SSL_PROTOCOL"] == "TLSv1.3"
    assert told["HTTPS"] == "on"
    assert not [name for name in told if name.startswith("SSL_CLIENT_") and "VERIFY" not in name]
    assert "REMOTE_USER" not in told


TRICKS = [
    "SSL_CLIENT_VERIFY", "SSL-CLIENT-VERIFY", "ssl_client_s_dn", "SSL_CLIENT_S_DN_CN",
    "SSL_CLIENT_CERT", "SSL_CLIENT_S_DN_OU_7", "HTTP_SSL_CLIENT_VERIFY", "REMOTE_USER",
    "Remote-User", "REMOTE_ADDR", "HTTPS", "mtlsgate.peer", "wsgi.input", "wsgi.url_scheme",
    "Proxy", "PATH_INFO", "X_Forwarded_For", "SCRIPT_NAME", "AUTH_TYPE",
]  # fmt: skip


def test_no_header_can_say_who_the_client_is(serve: Serve) -> None:
    """Whatever a client sends is under HTTP_, and cannot pass for another header."""
    app = App()
    web = serve(app, remote_user="common_name")
    client = web.client()
    assert web.ask("/", client=client).status == 200
    for names in ([one] for one in TRICKS):
        assert web.ask("/", *(f"{name}: forged" for name in names), client=client).status == 200
    assert web.ask("/", *(f"{name}: forged" for name in TRICKS), client=client).status == 200
    honest, *told = app.environs
    for one in told:
        for name, value in honest.items():
            if name != "wsgi.input":
                assert one[name] == value
        forged = {name for name in set(one) - set(honest) if one[name] == "forged"}
        assert forged == set(one) - set(honest)
        assert all(name.startswith("HTTP_") for name in forged)
    assert {name for one in told for name in one} - set(honest) == {
        "HTTP_SSL_CLIENT_VERIFY",
        "HTTP_REMOTE_USER",
        "HTTP_HTTPS",
        "HTTP_MTLSGATE.PEER",
        "HTTP_WSGI.INPUT",
    }


@pytest.mark.parametrize("name", ["CONTENT_LENGTH", "Content_Length", "Transfer_Encoding"])
def test_what_cgi_would_take_for_framing_is_refused(serve: Serve, name: str) -> None:
    """The application never hears of it."""
    app = App()
    assert serve(app).ask("/", f"{name}: 5").status == 400
    assert app.environs == []


def test_a_name_with_an_underscore_does_not_pass_for_one_without(serve: Serve) -> None:
    """Whichever comes first."""
    app = App()
    web = serve(app)
    web.ask("/", "X-User: real", "X_User: forged")
    web.ask("/", "X_User: forged", "X-User: real")
    assert [one["HTTP_X_USER"] for one in app.environs] == ["real", "real"]


@pytest.mark.parametrize(
    ("remote_user", "expected"),
    [
        ("common_name", "alice"),
        ("subject", "CN=alice"),
        ("spiffe_id", "spiffe://td/alice"),
        ("rule", "rule"),
        (None, None),
    ],
)
def test_remote_user_is_what_is_asked_for(
    serve: Serve, remote_user: str | None, expected: str | None
) -> None:
    app = App()
    web = serve(app, remote_user=remote_user)
    alice = web.authority.issue("alice", uris=["spiffe://td/alice"])
    web.ask("/", client=web.client(alice))
    assert app.environ.get("REMOTE_USER") == expected


@pytest.mark.parametrize("name", [None, "a\0b", "a\nb", "\u202ealice"])
def test_there_is_no_remote_user_where_there_is_no_name(serve: Serve, name: str | None) -> None:
    """No common name, or none that could be shown: nobody, and not somebody similar."""
    app = App()
    web = serve(app, remote_user="common_name")
    web.ask("/", client=web.client(web.authority.issue(name, uris=["urn:x"])))
    assert "REMOTE_USER" not in app.environ


def test_each_connection_has_its_own_client(serve: Serve) -> None:
    """Also while both are open and take turns."""
    app = App()
    web = serve(app)
    alice, bob = (web.client(web.authority.issue(name)) for name in ("alice", "bob"))
    for client in (alice, bob, alice, bob):
        web.ask("/", client=client)
    assert [one["SSL_CLIENT_S_DN"] for one in app.environs] == ["CN=alice", "CN=bob"] * 2


def test_on_a_unix_socket_nobody_has_an_address(serve: Serve) -> None:
    """An empty one, which nothing trusts."""
    app = App()
    web = serve(app)
    unix: Any = UNIXAddress("/run/gate.sock")
    client = web.client(address=unix, host=unix)
    assert web.ask("/", client=client).status == 200
    assert app.environ["REMOTE_ADDR"] == ""
    assert app.environ["SERVER_PORT"] == "443"


def test_it_is_wsgi_by_the_reference(serve: Serve) -> None:
    """wsgiref's validator has nothing to say."""

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b"read ", environ["wsgi.input"].read(4)]

    answer = serve(validator(app)).ask("/", method="POST", body=b"body")
    assert (answer.status, answer.body) == (200, b"read body")


# Bodies of requests


@pytest.mark.parametrize("size", [1, 99_999, 100_000, 300_000])
def test_bodies_come_whole(serve: Serve, size: int) -> None:
    """In memory, or out of a file."""
    app = App()
    body = bytes(range(256)) * (size // 256 + 1)
    serve(app).ask("/", method="PUT", body=body[:size])
    assert app.bodies == [body[:size]]


def test_chunked_bodies_have_a_length_when_they_are_here(serve: Serve) -> None:
    """Applications trust CONTENT_LENGTH alone."""
    app = App()
    web = serve(app)
    client = web.client()
    head = request("/", "Transfer-Encoding: chunked", method="POST")
    client.send(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    (answer,) = parse(client.receive())
    assert answer.status == 200
    assert app.bodies == [b"abcde"]
    assert app.environ["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in app.environ


# Answers


def answering(*data: bytes, status: str = "200 OK", headers: Any = PLAIN) -> App:
    """:returns: an application that answers so."""

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response(status, list(headers))
        return data

    return App(answer)


def test_pieces_arrive_in_order(serve: Serve) -> None:
    answer = serve(answering(b"a", b"", b"b" * 200_000, b"c")).ask()
    assert (answer.status, answer.body) == (200, b"a" + b"b" * 200_000 + b"c")


def test_write_is_there_for_who_wants_it(serve: Serve) -> None:
    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        write = start_response("201 Created", PLAIN)
        write(b"written ")
        return [b"and returned"]

    got = serve(App(answer)).ask()
    assert (got.status, got.body) == (201, b"written and returned")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_answer_without_a_body_is_none(serve: Serve, method: str) -> None:
    web = serve(answering(b"hello", headers=[*PLAIN, ("Content-Length", "5")]))
    client = web.client()
    answers = [web.ask(method=method, client=client) for _ in range(2)]
    assert [one.header("content-length") for one in answers] == ["5", "5"]
    assert {one.body for one in answers} == {b"" if method == "HEAD" else b"hello"}


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_some_answers_have_no_body_by_their_status(serve: Serve, status: str) -> None:
    web = serve(answering(status=status, headers=[]))
    client = web.client()
    assert [web.ask(client=client).body for _ in range(2)] == [b"", b""]


def test_more_than_content_length_is_not_sent(serve: Serve) -> None:
    """It would be taken for the answer to the next request."""
    web = serve(answering(b"hel", b"lo, and more", headers=[("Content-Length", "5")]))
    client = web.client()
    assert [web.ask(client=client).body for _ in range(2)] == [b"hello", b"hello"]


def test_the_last_piece_is_sent_while_the_application_goes_on(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread waits for it, and it waits for nobody."""

    def wait(*arguments: object) -> None:
        raise AssertionError("a thread would wait")

    got: list[Any] = []

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        write = start_response("201 Made", [("X-Kind", "whole"), ("Content-Length", "5")])
        if environ["PATH_INFO"] == "/write":
            write(b"hello")
        else:
            yield b"hello"
        (received,) = parse(client.receive())
        got.append(received)
        if environ["PATH_INFO"] == "/error":
            raise LookupError("after all was said")

    web = serve(answer)
    # The application must not run within what the client does.
    web.pool.later = True
    monkeypatch.setattr("twisted.web.wsgi.blockingCallFromThread", wait)
    client = web.client()
    for path in ("/", "/write"):
        client.send(request(path))
        web.pool.work()
    for one in got:
        assert (one.status, one.body, one.header("X-Kind")) == (201, b"hello", "whole")
    assert len(got) == 2
    assert client.receive() == b""
    client.send(request("/error"))
    web.pool.work()
    assert got[2:] == got[:1]
    log.expect_failure(LookupError)
    assert client.aborted


def test_the_last_of_several_pieces_comes_after_the_others(serve: Serve) -> None:
    pieces = [b"a" * PIECE, b"b" * (PIECE + 1), b"c"]
    length = ("Content-Length", str(sum(map(len, pieces))))
    web = serve(answering(*pieces, headers=[length]))
    client = web.client()
    for _ in range(2):
        answer = web.ask(client=client)
        assert answer.body == b"".join(pieces)
        assert answer.header("Content-Length") == length[1]


def test_less_than_content_length_does_not_pass_for_all(serve: Serve, log: Log) -> None:
    """The connection is cut."""
    client = serve(answering(b"hel", headers=[("Content-Length", "5")])).client()
    client.send(request())
    assert client.aborted
    log.expect_failure(RuntimeError)


def test_files_are_sent_and_closed(serve: Serve) -> None:
    """By ``wsgi.file_wrapper``, as Flask and Django do it, whatever size they suggest."""
    file = io.BytesIO(b"x" * 200_000)

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 10)
        return wrapped

    assert serve(App(answer)).ask().body == b"x" * 200_000
    assert file.closed


def test_connection_headers_are_the_servers(serve: Serve) -> None:
    """An application has no say in how an answer is framed."""
    headers = [
        *PLAIN, ("Transfer-Encoding", "chunked"), ("Connection", "keep-alive"), ("Server", "me"),
        ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"),
    ]  # fmt: skip
    web = serve(answering(b"body", headers=headers))
    answer = web.ask()
    assert answer.body == b"body"
    assert answer.headers.getRawHeaders("connection") is None
    assert answer.header("server") != "me"
    assert answer.headers.getRawHeaders("set-cookie") == ["a=1", "b=2"]


def test_an_answer_waits_for_the_client_to_read_it(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not piled up: while nobody reads, the application is not asked for more."""
    asked = []

    class Stop(Exception):
        pass

    def stop(flow: wsgi_call.Flow) -> None:
        if not flow._open.is_set():
            raise Stop

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        for number in range(1000):
            asked.append(number)
            yield b"x" * PIECE

    web = serve(App(answer))
    # There is but one thread here: where it would wait is where it ends.
    monkeypatch.setattr(wsgi_call.Flow, "wait", stop)
    client = web.client()
    client.pause_reading()
    client.send(request())
    assert 1 <= len(asked) <= 4
    log.expect_failure(Stop)


def test_a_client_that_is_gone_is_not_answered(serve: Serve) -> None:
    """The application is asked for no more, and gets to clean up."""
    closed = []

    class Answer:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            client.reset()
            yield b"two"
            raise AssertionError("asked on")

        def close(self) -> None:
            closed.append(True)

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Answer()

    web = serve(App(answer))
    web.pool.later = True
    client = web.client()
    client.send(request())
    web.pool.work()
    assert closed == [True]


def test_a_client_that_is_gone_before_there_is_a_thread_costs_none(serve: Serve, log: Log) -> None:
    app = App()
    web = serve(app)
    web.pool.later = True
    client = web.client()
    client.send(request("/", "Content-Length: 3", method="POST") + b"abc")
    client.reset()
    web.pool.work()
    assert app.bodies == []
    assert log.failures == []


def test_what_fails_after_its_client_left_is_one_line(serve: Serve, log: Log) -> None:
    """The body is gone with the client: that is no fault of the application's."""

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        client.reset()
        return [environ["wsgi.input"].read()]

    web = serve(answer)
    web.pool.later = True
    client = web.client()
    client.send(request("/", "Content-Length: 3", method="POST") + b"abc")
    with logged() as events:
        web.pool.work()
    assert log.failures == []
    [said] = [formatEvent(event) for event in events]
    assert said.endswith("after its client had left: ValueError: I/O operation on closed file.")


# Failures


def raising(error: BaseException, after: bytes = b"") -> App:
    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        if after:
            yield after
        raise error

    return App(answer)


@pytest.mark.parametrize("error", [RuntimeError("secret"), SystemExit("secret")])
def test_an_exception_is_500_and_no_more(serve: Serve, log: Log, error: BaseException) -> None:
    """The client gets no traceback, the log does, and the connection goes on."""
    web = serve(raising(error))
    client = web.client()
    for _ in range(2):
        answer = web.ask(client=client)
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    log.expect_failure(type(error), type(error))


def test_an_exception_amid_an_answer_cuts_it(serve: Serve, log: Log) -> None:
    client = serve(raising(RuntimeError("secret"), after=b"begun")).client()
    client.send(request())
    assert client.aborted
    assert b"0\r\n\r\n" not in client.receive()
    log.expect_failure(RuntimeError)


def wrong(status: Any = "200 OK", headers: Any = PLAIN, data: Any = (b"",)) -> App:
    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response(status, headers)
        answer: Iterable[bytes] = data
        return answer

    return App(answer)


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (lambda environ, start: [], RuntimeError),
        (lambda environ, start: [b"x"], RuntimeError),
        (lambda environ, start: None, TypeError),
        (lambda environ: [], TypeError),
        (wrong(status="OK"), ValueError),
        (wrong(status="100 Continue"), ValueError),
        (wrong(status="200 OK\r\nX: y"), ValueError),
        (wrong(status="200 日"), UnicodeEncodeError),
        (wrong(status=200), TypeError),
        (wrong(headers=[("X", "a\r\nSet-Cookie: b")]), ValueError),
        (wrong(headers=[("X Y", "a")]), ValueError),
        (wrong(headers=[("X", 1)]), TypeError),
        (wrong(headers=[("X", "日")]), UnicodeEncodeError),
        (wrong(headers=[("Content-Length", "-1")]), ValueError),
        (wrong(headers=[("Content-Length", "x")]), ValueError),
        (wrong(headers=None), TypeError),
        (wrong(data=["text"]), TypeError),
        (wrong(data=5), TypeError),
        (wrong(headers=[("Content-Length", "5")], data=[]), RuntimeError),
    ],
)
def test_whatever_an_application_does_wrong_is_500(
    serve: Serve, log: Log, app: Any, error: type[Exception]
) -> None:
    """Nobody waits for ever for an answer that does not come."""
    assert serve(app).ask().status == 500
    log.expect_failure(error)


def test_a_status_needs_no_words(serve: Serve) -> None:
    assert serve(wrong(status="299")).ask().status == 299


def test_start_response_is_called_again_only_with_an_error(serve: Serve, log: Log) -> None:
    def once_more(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        start_response("201 Created", PLAIN)
        return []

    def with_error(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        try:
            raise ValueError("late")
        except ValueError:
            start_response("503 Sorry", PLAIN, sys.exc_info())
        return [b"sorry"]

    assert serve(App(once_more)).ask().status == 500
    log.expect_failure(RuntimeError)
    answer = serve(App(with_error)).ask()
    assert (answer.status, answer.body) == (503, b"sorry")


def test_an_error_after_the_answer_began_is_raised(serve: Serve, log: Log) -> None:
    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        try:
            raise LookupError("late")
        except LookupError:
            start_response("503 Sorry", PLAIN, sys.exc_info())

    client = serve(App(answer)).client()
    client.send(request())
    assert client.aborted
    log.expect_failure(LookupError)


@pytest.mark.parametrize("after", [b"", b"begun"])
def test_close_is_called_whatever_happens(serve: Serve, log: Log, after: bytes) -> None:
    closed = []

    class Answer:
        def __iter__(self) -> Iterator[bytes]:
            yield after
            raise RuntimeError("no more")

        def close(self) -> None:
            closed.append(True)

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Answer()

    client = serve(App(answer)).client()
    client.send(request())
    assert closed == [True]
    log.expect_failure(RuntimeError)


def test_what_it_says_of_errors_is_logged_as_it_is(serve: Serve) -> None:
    """Braces and all."""

    def answer(environ: Environ, start_response: Start) -> Iterable[bytes]:
        environ["wsgi.errors"].write("a {brace} in it\n")
        environ["wsgi.errors"].writelines(["two ", "parts\n"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", PLAIN)
        return []

    with logged() as events:
        serve(App(answer), access_log=False).ask()
    assert [formatEvent(one) for one in events] == ["door: a {brace} in it", "door: two parts"]


# Threads


def test_threads_stop_when_nobody_needs_them_any_more() -> None:
    """Not while a call runs, which may wait for the reactor, nor while a connection is open."""
    pools: list[NoThreads] = []

    def make() -> NoThreads:
        pools.append(NoThreads(later=True))
        return pools[-1]

    workers = Workers(ThreadlessClock(), make)  # type: ignore[arg-type]
    workers.start()
    (pool,) = pools
    workers.connected()
    workers.callInThread(lambda: None)
    workers.stop()
    assert pool.running
    workers.disconnected()
    assert pool.running
    pool.work()
    assert not pool.running
    workers.start()
    assert [one.running for one in pools] == [False, True]
    workers.stop()
    assert not pools[1].running


def test_a_factory_that_starts_again_before_its_threads_stopped_keeps_them() -> None:
    pool = NoThreads()
    workers = Workers(ThreadlessClock(), lambda: pool)  # type: ignore[arg-type]
    workers.start()
    workers.connected()
    workers.stop()
    workers.start()
    workers.disconnected()
    assert pool.running


def test_a_connection_that_comes_after_all_has_threads() -> None:
    """One whose handshake had only begun when the factory stopped."""
    pools: list[NoThreads] = []

    def make() -> NoThreads:
        pools.append(NoThreads())
        return pools[-1]

    workers = Workers(ThreadlessClock(), make)  # type: ignore[arg-type]
    workers.start()
    workers.stop()
    calls: list[int] = []
    workers.connected()
    workers.callInThread(calls.append, 1)
    workers.disconnected()
    assert calls == [1]
    assert [one.running for one in pools] == [False, False]


def test_the_threads_keep_no_process_from_ending() -> None:
    pool = threads.make_pool(2, "web")
    assert isinstance(pool, ThreadPool)
    pool.start()
    daemon: list[bool] = []
    pool.callInThread(lambda: daemon.append(__import__("threading").current_thread().daemon))
    pool.stop()
    assert daemon == [True]


# Real frameworks


def test_flask_works(serve: Serve, log: Log) -> None:
    """Flask's own WSGI, routes, forms, errors."""
    import flask

    app = flask.Flask("served")

    @app.get("/who")
    def who() -> str:
        peer = flask.request.environ["mtlsgate.peer"]
        return f"{flask.request.scheme} {peer.common_name} {flask.request.remote_user}"

    @app.post("/upload")
    def upload() -> dict[str, Any]:
        return {"size": len(flask.request.get_data()), "form": flask.request.form.to_dict()}

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(iter([b"a" * 70_000, b"b"]), mimetype="text/plain")

    @app.get("/file")
    def file() -> flask.Response:
        return flask.send_file(io.BytesIO(b"f" * 100_000), mimetype="application/x-f")

    @app.get("/fail")
    def fail() -> str:
        raise RuntimeError("secret")

    web = serve(app, remote_user="common_name")
    client = web.client()
    assert web.ask("/who", client=client).body == b"https alice alice"
    assert web.ask("/stream", client=client).body == b"a" * 70_000 + b"b"
    assert web.ask("/file", client=client).body == b"f" * 100_000
    form = "Content-Type: application/x-www-form-urlencoded"
    answer = web.ask("/upload", form, method="POST", body=b"x=1&y=2", client=client)
    assert b'"x":"1"' in answer.body
    client.send(
        request("/upload", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n\r\n"
    )
    (answer,) = parse(client.receive())
    assert b'"size":3' in answer.body
    answer = web.ask("/fail", client=client)
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert web.ask("/nosuch", client=client).status == 404
    assert web.ask("/who", method="DELETE", client=client).status == 405


def test_django_works(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Django's own WSGI handler, URLs, REMOTE_USER, errors."""
    import django
    from django import urls
    from django.conf import empty, settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse

    def who(request: HttpRequest) -> HttpResponse:
        peer = request.META["mtlsgate.peer"]
        secure = request.is_secure()
        return HttpResponse(f"{secure} {peer.common_name} {request.META['REMOTE_USER']}")

    def upload(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{len(request.body)} {request.POST.dict()}")

    def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse([b"a" * 70_000, b"b"])

    def file(request: HttpRequest) -> FileResponse:
        return FileResponse(io.BytesIO(b"f" * 100_000))

    def fail(request: HttpRequest) -> HttpResponse:
        raise RuntimeError("secret")

    views = (who, upload, stream, file, fail)
    # Once in a process, else; and another test may have been first.
    monkeypatch.setitem(vars(settings), "_wrapped", empty)
    settings.configure(
        ROOT_URLCONF="served_urls", ALLOWED_HOSTS=["gate.example"], SECRET_KEY="none",
        LOGGING_CONFIG=None,
    )  # fmt: skip
    django.setup()
    with module("served_urls", urlpatterns=[urls.path(one.__name__, one) for one in views]):
        web = serve(WSGIHandler(), remote_user="common_name")
        client = web.client()
        assert web.ask("/who", client=client).body == b"True alice alice"
        assert web.ask("/stream", client=client).body == b"a" * 70_000 + b"b"
        assert web.ask("/file", client=client).body == b"f" * 100_000
        form = "Content-Type: application/x-www-form-urlencoded"
        answer = web.ask("/upload", form, method="POST", body=b"x=1", client=client)
        assert answer.body == b"3 {'x': '1'}"
        client.send(
            request("/upload", "Transfer-Encoding: chunked", method="POST")
            + b"3\r\nabc\r\n0\r\n\r\n"
        )
        (answer,) = parse(client.receive())
        assert answer.body == b"3 {}"
        answer = web.ask("/fail", client=client)
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert web.ask("/nosuch", client=client).status == 404
