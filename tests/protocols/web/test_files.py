"""
Files below a directory, and no others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.web.http import datetimeToString

from tests.kits.gate import Log
from tests.kits.web import Answer, Web, parse, request

Serve = Callable[..., Web]
THEN = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory, and beside it what nobody is to see."""
    found = tmp_path / "root"
    (found / "sub" / "deep").mkdir(parents=True)
    (found / "index.html").write_text("<p>front</p>")
    (found / "a b.txt").write_text("spaced")
    (found / "ten").write_text("0123456789")
    (found / "empty.txt").write_text("")
    (found / "sub" / "page.html").write_text("page")
    (found / ".hidden").write_text("hidden")
    (found / "sub" / ".git").mkdir()
    (found / "sub" / ".git" / "config").write_text("hidden")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "secret").write_text("secret")
    os.utime(found / "ten", (THEN, THEN + 0.5))
    return found


@pytest.fixture
def serve(log: Log, monkeypatch: pytest.MonkeyPatch, root: Path) -> Serve:
    """Put the directory behind a gate."""
    return lambda **attributes: Web(log, monkeypatch, **{"root": root, **attributes})


def date(seconds: int) -> str:
    text: bytes = datetimeToString(seconds)
    return text.decode()


def test_a_file_is_what_its_name_says(serve: Serve) -> None:
    web = serve()
    answer = web.ask("/sub/page.html")
    assert (answer.status, answer.body) == (200, b"page")
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert answer.header("content-length") == "4"
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("x-content-type-options") == "nosniff"
    assert web.ask("/a%20b.txt").body == b"spaced"
    assert web.ask("/empty.txt").body == b""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x", "application/octet-stream"),
        ("x.unknown", "application/octet-stream"),
        ("x.tar.gz", "application/gzip"),
        ("x.js", "text/javascript; charset=utf-8"),
        ("x.css", "text/css; charset=utf-8"),
        ("x.JSON", "application/json"),
        ("x.rpy", "application/octet-stream"),
    ],
)
def test_types_are_by_ending_and_nothing_is_run(
    serve: Serve, root: Path, name: str, expected: str
) -> None:
    """What is not known is not taken for a page, and what is compressed stays so."""
    (root / name).write_text("1/0")
    answer = serve().ask(f"/{name}")
    assert (answer.status, answer.body) == (200, b"1/0")
    assert answer.header("content-type") == expected
    assert answer.headers.getRawHeaders("content-encoding") is None


def test_a_directory_is_its_index(serve: Serve) -> None:
    assert serve().ask("/").body == b"<p>front</p>"
    assert serve().ask("/?x=1").body == b"<p>front</p>"
    assert serve().ask("/index.html").body == b"<p>front</p>"


def test_a_directory_without_a_slash_is_moved(serve: Serve, root: Path) -> None:
    """For good, to where relative links work; with the query."""
    web = serve()
    for target, location in (("/sub", "/sub/"), ("/sub?x=/y", "/sub/?x=/y")):
        answer = web.ask(target)
        assert (answer.status, answer.header("location")) == (301, location)
    (root / "a:b").mkdir()
    assert web.ask("/a%3Ab").header("location") == "/a%3Ab/"


@pytest.mark.parametrize("target", ["//evil.example/..", "/./sub", "/sub/.", "//../sub"])
def test_a_redirect_leads_nowhere_else(serve: Serve, target: str) -> None:
    """A path that begins with two slashes would be another host's."""
    answer = serve(listing=True).ask(target)
    assert answer.status == 404
    assert answer.headers.getRawHeaders("location") is None


def test_slashes_count_once(serve: Serve) -> None:
    """As with nginx; also in the place that a redirect leads to."""
    web = serve(listing=True)
    assert web.ask("//").body == b"<p>front</p>"
    assert web.ask("///sub//page.html").body == b"page"
    assert web.ask("/sub//").status == 200
    answer = web.ask("//sub?x")
    assert (answer.status, answer.header("location")) == (301, "/sub/?x")


def test_without_an_index_there_is_nothing(serve: Serve) -> None:
    """That a directory is there is not told to who asks for its content."""
    assert serve().ask("/sub/").status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/../secret", "/..%2fsecret", "/%2e%2e/secret", "/%2e%2e%2fsecret", "/sub/../../secret",
        "/sub/..", "/sub/../index.html", "/..", "/%2e%2e", "/..%5csecret", "/%2e", "/.",
        "/sub%2fpage.html", "/%2fetc%2fpasswd", "//etc/passwd", "/%252e%252e/secret",
        "/ten%00", "/ten%00.html", "/%00", "/..%00/secret", "/../root-too/secret",
        "/%c0%ae%c0%ae/secret", "/%ff", "/nosuch", "/ten/", "/ten/x", "/sub/nosuch/x",
        "/" + "x" * 300, "/" + "x/" * 3000, "/index", "/sub/page", "/TEN",
        "/.hidden", "/sub/.git/config", "/%2ehidden", "/sub/.git", "/sub/.git/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_nothing_else_is_there(serve: Serve, target: str, method: str) -> None:
    """However it is written."""
    answer = serve(listing=True).ask(target, method=method)
    assert answer.status == 404
    assert b"secret" not in answer.body


@pytest.mark.parametrize("target", ["/../secret", "/./.hidden", "/sub/../.hidden", "/..", "/."])
def test_dots_alone_mean_nothing_even_where_dot_files_are_shown(serve: Serve, target: str) -> None:
    assert serve(dot_files=True).ask(target).status == 404


def test_dot_files_are_shown_if_that_is_wanted(serve: Serve) -> None:
    web = serve(dot_files=True)
    assert web.ask("/.hidden").body == b"hidden"
    assert web.ask("/sub/.git/config").body == b"hidden"


@pytest.fixture
def links(root: Path) -> None:
    """Symbolic links that lead out of the directory, and some that do not."""
    (root / "out").symlink_to("../secret")
    (root / "absolute").symlink_to(root.parent / "secret")
    (root / "outdir").symlink_to("..")
    (root / "too").symlink_to("../root-too")
    (root / "twice").symlink_to("out")
    (root / "dangling").symlink_to("nosuch")
    (root / "loop").symlink_to("loop")
    (root / "device").symlink_to("/dev/null")
    (root / "sub" / "index.html").symlink_to("../../secret")
    (root / "in").symlink_to("sub/page.html")
    (root / "indir").symlink_to("sub")
    (root / "again").symlink_to(root / "ten")


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize(
    "target",
    [
        "/out", "/absolute", "/outdir/secret", "/outdir", "/outdir/", "/too/secret", "/twice",
        "/dangling", "/loop", "/loop/x", "/device", "/sub/index.html", "/indir/index.html",
        "/outdir/root/ten",
    ],
)  # fmt: skip
def test_no_link_leads_out(serve: Serve, target: str) -> None:
    """Not even one that leads back in by way of what it is in."""
    answer = serve(listing=True).ask(target)
    if target == "/outdir/root/ten":
        # What it is in the end is in the directory.
        assert answer.body == b"0123456789"
    else:
        assert answer.status == 404


@pytest.mark.usefixtures("links")
def test_links_within_are_followed(serve: Serve) -> None:
    web = serve()
    assert web.ask("/in").body == b"page"
    assert web.ask("/indir/page.html").body == b"page"
    assert web.ask("/again").body == b"0123456789"
    assert web.ask("/sub/").status == 404


def test_the_root_may_be_a_link_that_is_switched(serve: Serve, root: Path, tmp_path: Path) -> None:
    """As a deployment does, while the gate runs."""
    link = tmp_path / "current"
    link.symlink_to(root)
    web = serve(root=link)
    assert web.ask("/ten").body == b"0123456789"
    other = tmp_path / "next"
    other.mkdir()
    (other / "ten").write_text("ten")
    link.unlink()
    link.symlink_to(other)
    assert web.ask("/ten").body == b"ten"


def test_what_is_no_file_is_not_opened(serve: Serve, root: Path) -> None:
    """A FIFO nobody writes to would hold up everybody."""
    os.mkfifo(root / "fifo")
    assert serve().ask("/fifo").status == 404


def test_what_may_not_be_read_is_forbidden(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def denied(path: str, flags: int) -> int:
        if flags & os.O_PATH:
            return real(path, flags)
        raise PermissionError

    monkeypatch.setattr("mtlsgate.protocols.web.paths.os.open", denied)
    assert serve().ask("/ten").status == 403


# Listings


@pytest.mark.usefixtures("links")
def test_a_listing_shows_what_can_be_asked_for(serve: Serve, root: Path) -> None:
    """Escaped; and nothing that would be refused."""
    (root / "index.html").unlink()
    (root / "<b>&").write_text("x")
    (root / os.fsdecode(b"\xff")).write_text("x")
    os.mkfifo(root / "fifo")
    page = serve(listing=True).ask("/").body.decode()
    shown = [part.partition('"')[0] for part in page.split('href="')[1:]]
    assert sorted(shown) == sorted(
        ["a%20b.txt", "empty.txt", "ten", "%3Cb%3E%26", "sub/", "indir/", "in", "again"]
    )
    assert "<b>" not in page


def test_a_listing_is_read_only(serve: Serve) -> None:
    web = serve(listing=True)
    assert web.ask("/sub/").status == 200
    answer = web.ask("/sub/", method="POST")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")
    head = web.ask("/sub/", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.header("content-length") or 0) > 100


# Methods, conditions, ranges


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "X"])
@pytest.mark.parametrize("target", ["/ten", "/", "/sub"])
def test_other_methods_are_not_allowed(serve: Serve, method: str, target: str) -> None:
    answer = serve().ask(target, method=method)
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize("target", ["/ten", "/", "/sub", "/nosuch"])
def test_head_is_get_without_its_body(serve: Serve, target: str) -> None:
    web = serve()
    get, head = web.ask(target), web.ask(target, method="HEAD")
    assert head.body == b""
    assert head.status == get.status
    for name in ("content-length", "content-type", "last-modified", "location"):
        assert head.headers.getRawHeaders(name) == get.headers.getRawHeaders(name)


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (date(THEN), 304),
        (date(THEN + 1000), 304),
        (date(THEN - 1), 200),
        ("nonsense", 200),
        ("", 200),
        (" ", 200),
        ("Sun, 06 Nov 1994", 200),
        ("Sun, 99 Xyz 1994 99:99:99 GMT", 200),
        (date(THEN) + "; length=10", 304),
    ],
)
def test_what_has_not_changed_is_not_sent_again(serve: Serve, since: str, status: int) -> None:
    answer = serve().ask("/ten", f"If-Modified-Since: {since}")
    assert answer.status == status
    assert answer.header("last-modified") == date(THEN)


def test_a_tag_is_worth_more_than_a_date(serve: Serve) -> None:
    """It is another's, and what it is about has changed."""
    answer = serve().ask("/ten", f"If-Modified-Since: {date(THEN)}", 'If-None-Match: "x"')
    assert answer.status == 200


def tag_of(web: Web, target: str = "/ten") -> str:
    tag = web.ask(target).header("etag")
    assert tag is not None
    return tag


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_version_that_the_client_has_is_not_sent_again(serve: Serve, method: str) -> None:
    """By its tag, also weakly or among others, or by any: 304 with the tag and without a length,
    and the connection goes on."""
    web = serve()
    tag = tag_of(web)
    client = web.client()
    for value in (tag, f"W/{tag}", f'"x", {tag}', "*", f'"x,y" ,W/"z",{tag}'):
        answer = web.ask("/ten", f"If-None-Match: {value}", method=method, client=client)
        assert answer.status == 304
        assert answer.header("etag") == tag
        assert answer.header("last-modified") == date(THEN)
        for name in ("content-length", "content-type", "transfer-encoding"):
            assert answer.headers.getRawHeaders(name) is None
    assert web.ask("/ten", 'If-None-Match: "x"', client=client).body == b"0123456789"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["If-Match: *"], 200),
        (["If-Match: TAG"], 200),
        (['If-Match: "x", TAG'], 200),
        (['If-Match: "x"', "If-Match: TAG"], 200),
        (['If-Match: "x"'], 412),
        (["If-Match: W/TAG"], 412),
        (["If-Match: nonsense"], 412),
        ([f"If-Unmodified-Since: {date(THEN)}"], 200),
        ([f"If-Unmodified-Since: {date(THEN - 1)}"], 412),
        (["If-Unmodified-Since: nonsense"], 200),
        (["If-Match: TAG", f"If-Unmodified-Since: {date(THEN - 1)}"], 200),
        (["If-Match: TAG", "If-None-Match: TAG"], 304),
        (['If-Match: "x"', "If-None-Match: TAG"], 412),
        ([f"If-Unmodified-Since: {date(THEN)}", f"If-Modified-Since: {date(THEN)}"], 304),
    ],
)
def test_preconditions_are_checked_in_the_order_of_rfc_9110(
    serve: Serve, headers: list[str], status: int
) -> None:
    """In the order of RFC 9110, 13.2.2."""
    web = serve()
    tag = tag_of(web)
    answer = web.ask("/ten", *(one.replace("TAG", tag) for one in headers))
    assert answer.status == status


def test_a_part_of_the_version_that_the_client_has(serve: Serve) -> None:
    """If-Range by tag: strongly."""
    web = serve()
    tag = tag_of(web)
    for value, status in ((tag, 206), (f"W/{tag}", 200), ('"x"', 200), ("*", 200)):
        assert web.ask("/ten", "Range: bytes=0-1", f"If-Range: {value}").status == status


def test_another_version_has_another_tag(serve: Serve, root: Path) -> None:
    """Also one of the same size."""
    web = serve()
    tag = tag_of(web)
    (root / "ten").write_text("9876543210")
    assert tag_of(web) != tag


# What a directory can be told


def test_the_index_can_have_another_name(serve: Serve, root: Path) -> None:
    (root / "main.htm").write_text("main")
    web = serve(index="main.htm")
    assert web.ask("/").body == b"main"
    assert web.ask("/index.html").body == b"<p>front</p>"


@pytest.mark.parametrize("target", ["/nosuch", "/a/b/c", "/sub/", "/.hidden", "/ten/x", "/%ff"])
def test_what_is_not_there_may_be_the_one_page(serve: Serve, target: str) -> None:
    """fallback: with 200, for GET and HEAD alone; what is there stays what it is."""
    web = serve(fallback="index.html")
    answer = web.ask(target)
    assert (answer.status, answer.body) == (200, b"<p>front</p>")
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert web.ask(target, method="HEAD").status == 200
    assert web.ask(target, method="POST").status in (404, 405)
    assert web.ask("/ten").body == b"0123456789"


def compressed(root: Path) -> None:
    for ending, content in (("", "plain"), (".gz", "GZIP"), (".br", "BR")):
        (root / f"app.js{ending}").write_text(content)
        os.utime(root / f"app.js{ending}", (THEN, THEN))


@pytest.mark.parametrize(
    ("accepted", "body", "encoding"),
    [
        (None, b"plain", None),
        ("", b"plain", None),
        ("gzip", b"GZIP", "gzip"),
        ("x-gzip", b"GZIP", "gzip"),
        ("gzip, deflate, br", b"BR", "br"),
        ("br;q=0.5, gzip;q=0.8", b"GZIP", "gzip"),
        ("br;q=0, *", b"GZIP", "gzip"),
        ("*", b"BR", "br"),
        ("*;q=0", b"plain", None),
        ("gzip;q=0", b"plain", None),
        ("gzip;q=0.5, identity", b"plain", None),
        ("gzip;q=0.5, identity;q=0.5", b"GZIP", "gzip"),
        ("GZIP ; Q=1.000", b"GZIP", "gzip"),
        ("gzip;q=2, br;x=1", b"plain", None),
        ("deflate", b"plain", None),
    ],
)
def test_precompressed_files(
    serve: Serve, root: Path, accepted: str | None, body: bytes, encoding: str | None
) -> None:
    """The encoding that the client likes best, of those that there are; caches are told that
    it matters."""
    compressed(root)
    headers = [] if accepted is None else [f"Accept-Encoding: {accepted}"]
    answer = serve(precompressed=True).ask("/app.js", *headers)
    assert (answer.status, answer.body) == (200, body)
    assert answer.header("content-encoding") == encoding
    assert answer.header("vary") == "accept-encoding"
    assert answer.header("content-type") == "text/javascript; charset=utf-8"


def test_encodings_are_versions_of_their_own(serve: Serve, root: Path) -> None:
    """Each has a tag of its own, and ranges are of what is sent."""
    compressed(root)
    web = serve(precompressed=True)
    plain, gzip = (
        web.ask("/app.js", f"Accept-Encoding: {one}").header("etag") for one in ("identity", "gzip")
    )
    assert plain != gzip
    answer = web.ask("/app.js", "Accept-Encoding: gzip", f"If-None-Match: {gzip}")
    assert (answer.status, answer.header("vary")) == (304, "accept-encoding")
    assert web.ask("/app.js", "Accept-Encoding: br", f"If-None-Match: {gzip}").status == 200
    assert web.ask("/app.js", "Accept-Encoding: gzip", "Range: bytes=1-2").body == b"ZI"


def test_what_only_looks_like_an_encoding_is_none(serve: Serve, root: Path) -> None:
    """Without precompressed; one older than its file; a directory; a link that leads out; and
    one without its file is a file of its own."""
    compressed(root)
    assert serve().ask("/app.js", "Accept-Encoding: gzip").body == b"plain"
    assert serve().ask("/app.js").headers.getRawHeaders("vary") is None
    os.utime(root / "app.js.br", (THEN - 1, THEN - 1))
    (root / "app.js.gz").unlink()
    (root / "app.js.gz").mkdir()
    web = serve(precompressed=True)
    assert web.ask("/app.js", "Accept-Encoding: gzip, br").body == b"plain"
    (root / "app.js.gz").rmdir()
    (root / "app.js.gz").symlink_to("../secret")
    assert web.ask("/app.js", "Accept-Encoding: gzip").body == b"plain"
    (root / "alone.gz").write_text("alone")
    assert web.ask("/alone", "Accept-Encoding: gzip").status == 404
    answer = web.ask("/alone.gz", "Accept-Encoding: gzip")
    assert (answer.body, answer.header("content-type")) == (b"alone", "application/gzip")


def test_cache_control_is_by_pattern(serve: Serve, root: Path) -> None:
    """The first that matches; also with 304; not for what is not there."""
    (root / "assets" / "js").mkdir(parents=True)
    (root / "assets" / "js" / "a.js").write_text("x")
    web = serve(
        cache_control={"assets/**": "max-age=9, immutable", "*.html": "no-cache", "t?n": "private"}
    )
    for target, value in (
        ("/assets/js/a.js", "max-age=9, immutable"),
        ("/sub/page.html", "no-cache"),
        ("/", "no-cache"),
        ("/ten", "private"),
        ("/empty.txt", None),
        ("/assets/nosuch", None),
    ):
        assert web.ask(target).header("cache-control") == value
    answer = web.ask("/ten", "If-None-Match: *")
    assert (answer.status, answer.header("cache-control")) == (304, "private")


@pytest.mark.parametrize(
    ("charset", "expected"),
    [("latin-1", "text/plain; charset=latin-1"), ("none", "text/plain")],
)
def test_the_charset_of_text(serve: Serve, charset: str, expected: str) -> None:
    web = serve(charset=charset)
    assert web.ask("/empty.txt").header("content-type") == expected
    assert web.ask("/ten").header("content-type") == "application/octet-stream"


def test_error_pages(serve: Serve, root: Path) -> None:
    """With their own status, whatever the request asks of a file; one that has gone is no
    error of its own."""
    (root / "404.html").write_text("<p>lost</p>")
    web = serve(error_pages={"404": "404.html"})
    for headers in ((), ("Range: bytes=0-1",), ("If-None-Match: *",)):
        answer = web.ask("/nosuch", *headers)
        assert (answer.status, answer.body) == (404, b"<p>lost</p>")
        assert answer.header("content-type") == "text/html; charset=utf-8"
    head = web.ask("/nosuch", method="HEAD")
    assert (head.status, head.body, head.header("content-length")) == (404, b"", "11")
    assert web.ask("/404.html").status == 200
    (root / "404.html").unlink()
    answer = web.ask("/nosuch")
    assert (answer.status, answer.body) == (404, b"There is nothing here.\n")


@pytest.mark.parametrize(
    ("ranges", "content_range", "body"),
    [
        ("bytes=0-0", "0-0", b"0"),
        ("bytes=2-4", "2-4", b"234"),
        ("bytes=7-", "7-9", b"789"),
        ("bytes=-3", "7-9", b"789"),
        ("bytes=-100", "0-9", b"0123456789"),
        ("bytes=0-", "0-9", b"0123456789"),
        ("bytes=5-100", "5-9", b"56789"),
        ("bytes= 5-6 ,", "5-6", b"56"),
        ("BYTES=9-9", "9-9", b"9"),
        ("bytes=20-30, 3-4", "3-4", b"34"),
    ],
)
def test_a_range_is_sent_alone(serve: Serve, ranges: str, content_range: str, body: bytes) -> None:
    answer = serve().ask("/ten", f"Range: {ranges}")
    assert (answer.status, answer.body) == (206, body)
    assert answer.header("content-range") == f"bytes {content_range}/10"
    assert answer.header("content-length") == str(len(body))


@pytest.mark.parametrize("ranges", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-, 50-60"])
def test_a_range_beyond_the_end_cannot_be_had(serve: Serve, ranges: str) -> None:
    answer = serve().ask("/ten", f"Range: {ranges}")
    assert (answer.status, answer.body) == (416, b"")
    assert answer.header("content-range") == "bytes */10"


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes", "bytes=", "bytes=-", "bytes=x-y", "bytes=4-2", "bytes=+1-2", "bytes=1_0-11",
        "bytes=--1", "lines=1-2", "bytes=0-1-2", "bytes=0 - 1", "bytes=1", "\xff",
        "bytes=" + "9" * 5000 + "-", "bytes=0-,0-", "bytes=" + ",".join(["0-0"] * 9),
        "bytes=0-5,4-9", "bytes=0-1,x",
    ],
)  # fmt: skip
def test_a_range_that_makes_no_sense_is_ignored(serve: Serve, ranges: str) -> None:
    """Also many of them, or ones that overlap, which would be a way to get much for little."""
    answer = serve().ask("/ten", f"Range: {ranges}")
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_several_ranges_come_as_parts(serve: Serve) -> None:
    answer = serve().ask("/ten", "Range: bytes=0-1,8-")
    assert answer.status == 206
    kind, _, boundary = (answer.header("content-type") or "").partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = answer.body.split(b"--" + boundary.strip('"').encode())[1:-1]
    assert [part.split(b"\r\n\r\n")[1].rstrip(b"\r\n") for part in parts] == [b"01", b"89"]


@pytest.mark.parametrize(
    ("version", "status"),
    [(date(THEN), 206), (date(THEN - 1), 200), (date(THEN + 1), 200), ('"tag"', 200)],
)
def test_a_part_of_another_version_is_no_part(serve: Serve, version: str, status: int) -> None:
    """If-Range: then the whole of this one is sent."""
    answer = serve().ask("/ten", "Range: bytes=0-1", f"If-Range: {version}")
    assert answer.status == status


def test_an_empty_file_has_no_ranges(serve: Serve) -> None:
    assert serve().ask("/empty.txt", "Range: bytes=0-").status == 416


# While it is sent


def big(root: Path) -> bytes:
    content = os.urandom(1 << 20)
    (root / "big").write_bytes(content)
    return content


def test_large_files_come_whole(serve: Serve, root: Path) -> None:
    content = big(root)
    assert serve().ask("/big").body == content


def test_a_file_is_read_as_the_client_reads_it(serve: Serve, root: Path) -> None:
    content = big(root)
    client = serve().client()
    client.pause_reading()
    client.send(request("/big"))
    assert client.transport.untaken < 300_000
    client.resume_reading()
    (answer,) = parse(client.receive())
    assert answer.body == content


def held(serve: Serve, change: Callable[[], object], *headers: str) -> tuple[Any, bytes]:
    """:returns: a client that stopped reading while the file was changed, and what it got."""
    client = serve().client()
    client.pause_reading()
    client.send(request("/big", *headers))
    change()
    client.resume_reading()
    return client, client.receive()


def test_what_is_appended_meanwhile_is_not_sent(serve: Serve, root: Path) -> None:
    """It would be taken for the next answer."""
    content = big(root)

    def append() -> None:
        with (root / "big").open("ab") as file:
            file.write(b"more")

    _, received = held(serve, append)
    (answer,) = parse(received)
    assert answer.body == content


@pytest.mark.parametrize(
    "headers", [(), ("Range: bytes=0-",), ("Range: bytes=0-9,10-",)], ids=["all", "one", "several"]
)
def test_a_file_that_becomes_shorter_cuts_the_answer(
    serve: Serve, root: Path, headers: tuple[str, ...]
) -> None:
    """What came must not pass for all, and nothing waits for what is not there."""
    big(root)
    client, received = held(serve, lambda: os.truncate(root / "big", 400_000), *headers)
    assert client.aborted
    assert len(received) < 500_000


def files_open(root: Path) -> list[str]:
    """:returns: the files below a directory that this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [one for one in found if one.startswith(str(root))]


def test_a_client_that_leaves_leaves_no_file_open(serve: Serve, root: Path) -> None:
    big(root)
    client = serve().client()
    client.pause_reading()
    client.send(request("/big"))
    assert files_open(root) != []
    client.reset()
    assert files_open(root) == []


def test_requests_leave_no_file_open(serve: Serve, root: Path) -> None:
    """Whatever their answer is."""
    web = serve(listing=True)
    client = web.client()
    answers: list[Answer] = [
        web.ask(target, *headers, method=method, client=client)
        for target in ("/ten", "/ten/", "/sub", "/sub/", "/", "/nosuch")
        for method in ("GET", "HEAD", "POST")
        for headers in ((), (f"If-Modified-Since: {date(THEN)}",), ("Range: bytes=99-",))
    ]
    assert {one.status for one in answers} >= {200, 301, 304, 404, 405, 416}
    assert files_open(root) == []
