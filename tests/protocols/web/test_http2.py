"""
Files, WSGI and resources over HTTP/2: the same as over HTTP/1.1, stream by stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from mtlsgate.testing import Version
from tests.kits.gate import Log
from tests.kits.http2 import GET, POST, PSEUDO, TlsSpeaker
from tests.kits.web import Web, logged, module

Serve = Callable[..., Web]
Environ = dict[str, Any]
BIG = 1_000_000


@pytest.fixture
def serve(log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Serve:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_bytes(b"hello")
    (tmp_path / "files" / "big").write_bytes(os.urandom(BIG))

    def make(**attributes: Any) -> Web:
        return Web(log, monkeypatch, tmp_path, **attributes)

    return make


@pytest.fixture
def files(serve: Serve) -> Web:
    return serve(root="files")


def connect(web: Web, settings: dict[int, int] | None = None, **options: Any) -> TlsSpeaker:
    return TlsSpeaker(web.client(alpn=["h2", "http/1.1"], **options), settings)


def path(name: bytes, method: bytes = b"GET") -> list[tuple[bytes, bytes]]:
    return [(b":method", method), *PSEUDO[1:], (b":path", name)]


def test_a_file_is_sent(files: Web, version: Version) -> None:
    client = connect(files, max_version=version)
    with logged() as events:
        client.send(client.headers(1, path(b"/a.txt")), client.headers(3, path(b"/none")))
    assert (client.status(1), client.body(1)) == (200, b"hello")
    assert client.heads(1)[0][b"content-type"] == b"text/plain; charset=utf-8"
    assert client.status(3) == 404
    assert [(event["path"], event["status"]) for event in events] == [
        ("/a.txt", 200),
        ("/none", 404),
    ]


def test_conditions_and_ranges_hold(files: Web) -> None:
    client = connect(files)
    client.send(client.headers(1, [*path(b"/a.txt"), (b"range", b"bytes=1-2")]))
    tag = client.heads(1)[0][b"etag"]
    client.send(client.headers(3, [*path(b"/a.txt"), (b"if-none-match", tag)]))
    client.send(client.headers(5, path(b"/a.txt", b"HEAD")))
    assert (client.status(1), client.body(1)) == (206, b"el")
    assert (client.status(3), client.body(3)) == (304, b"")
    assert client.heads(5)[0][b"content-length"] == b"5"
    assert all(client.is_complete(number) for number in (1, 3, 5))


def test_a_large_file_is_read_as_the_client_takes_it(files: Web, tmp_path: Path) -> None:
    """And does not keep others waiting."""
    client = connect(files)
    client.send(client.headers(1, path(b"/big")))
    assert len(client.body(1)) == 65535
    client.send(client.window(0, 1000), client.headers(3, path(b"/a.txt")))
    assert client.body(3) == b"hello"
    client.send(client.window(0, 2 * BIG), client.window(1, 2 * BIG))
    assert client.body(1) == (tmp_path / "files" / "big").read_bytes()
    assert client.is_complete(1)


def test_a_file_that_becomes_shorter_resets_its_stream_alone(files: Web, tmp_path: Path) -> None:
    client = connect(files)
    client.send(client.headers(1, path(b"/big")))
    os.truncate(tmp_path / "files" / "big", 200_000)
    client.send(client.window(0, 2 * BIG), client.window(1, 2 * BIG))
    assert (client.is_complete(1), client.reset_code(1)) == (False, ErrorCodes.INTERNAL_ERROR)
    client.send(client.headers(3, path(b"/a.txt")))
    assert client.body(3) == b"hello"


def test_a_body_sent_to_a_file_is_kept_nowhere(files: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may leave no place for temporary files."""

    def no_place(*args: object, **named: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("twisted.web.http.tempfile.TemporaryFile", no_place)
    client = connect(files)
    client.send(client.headers(1, path(b"/a.txt", b"POST"), end=False))
    client.send(client.data(1, bytes(16384), end=True))
    assert client.status(1) == 405
    large = [*path(b"/a.txt"), (b"content-length", b"200000")]
    client.send(client.headers(3, large, end=False), client.reset(3), client.headers(5))
    assert client.status(5) == 404
    answer = files.ask("/a.txt", body=bytes(200_000))
    assert answer.body == b"hello"


def test_a_client_that_resets_leaves_no_file_open(files: Web, tmp_path: Path) -> None:
    client = connect(files)
    client.send(client.headers(1, path(b"/big")))

    def is_open() -> bool:
        names = [f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd")]
        big = str(tmp_path / "files" / "big")
        return big in {os.readlink(name) for name in names if os.path.exists(name)}

    assert is_open()
    client.send(client.reset(1))
    files.clock.advance(0)
    assert not is_open()


def application(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    body = environ["wsgi.input"].read()
    said = [environ["SERVER_PROTOCOL"], environ["HTTP_HOST"], environ["SSL_CLIENT_S_DN_CN"]]
    said.append(environ.get("HTTP_COOKIE", ""))
    return [" ".join(said).encode(), b" ", body]


def test_wsgi_gets_requests_and_their_clients(serve: Serve) -> None:
    with module("wsgi_app", app=application):
        web = serve(wsgi="wsgi_app:app")
    client = connect(web)
    cookies = [(b"cookie", b"a=1"), (b"cookie", b"b=2")]
    client.send(client.headers(1, [*POST, *cookies], end=False), client.data(1, b"xyz", end=True))
    assert client.body(1) == b"HTTP/2.0 a.example alice a=1; b=2 xyz"
    assert client.is_complete(1)


@pytest.mark.parametrize("more", [[], [(b"content-length", b"3")]])
def test_a_body_has_a_length_when_it_is_here(serve: Serve, more: list[tuple[bytes, bytes]]) -> None:
    """Applications trust CONTENT_LENGTH alone, and over HTTP/2 it need not be said."""

    def lengths(environ: Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [environ["CONTENT_LENGTH"].encode()]

    with module("wsgi_app", app=lengths):
        web = serve(wsgi="wsgi_app:app")
    client = connect(web)
    client.send(client.headers(1, [*POST, *more], end=False), client.data(1, b"xyz", end=True))
    assert client.body(1) == b"3"
    client.send(client.headers(3))
    assert client.body(3) == b""


def test_an_application_that_fails_amid_an_answer_resets_its_stream(serve: Serve, log: Log) -> None:
    def failing(environ: Environ, start: Callable[..., Any]) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        yield b"begun"
        raise OSError

    with module("wsgi_app", app=failing):
        web = serve(wsgi="wsgi_app:app")
    client = connect(web)
    client.send(client.headers(1))
    web.clock.advance(0)
    client.receive()
    assert (client.is_complete(1), client.reset_code(1)) == (False, ErrorCodes.INTERNAL_ERROR)
    log.expect_failure(OSError)
    assert client.goaway is None


class Waiting(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[Any] = []

    def render(self, request: Request) -> int:
        request.write(b"begun")
        request.notifyFinish().addErrback(self.gone.append)
        return NOT_DONE_YET


def test_a_resource_hears_that_its_client_is_gone(serve: Serve) -> None:
    root = Waiting()
    with module("waiting_app", root=root):
        web = serve(resource="waiting_app:root")
    client = connect(web)
    client.send(client.headers(1, GET))
    assert client.body(1) == b"begun"
    client.send(client.reset(1))
    assert len(root.gone) == 1


def test_websockets_are_for_http_1(files: Web) -> None:
    """The settings say so, and a client that asks all the same is told."""
    client = connect(files)
    fields = [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")]
    client.send(client.headers(1, fields, end=False))
    assert client.reset_code(1) == ErrorCodes.PROTOCOL_ERROR
