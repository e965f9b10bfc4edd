"""
The files below a directory, over HTTP.

`paths` decides which file a URL means, and whether it may be seen; `conditions` what of it
a client wants; `encodings` in which encoding; `sending` sends it.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import quote

from attrs import field, frozen
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from mtlsgate.http.resources import ResourceRequest
from mtlsgate.protocols.web.conditions import Version, ranges, unmet
from mtlsgate.protocols.web.encodings import choose
from mtlsgate.protocols.web.paths import Directory, NotThere, Opened
from mtlsgate.protocols.web.sending import Part, send

with warnings.catch_warnings():
    # Twisted 26's own module makes instances of what it deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.static import DirectoryLister, File

_DEFAULT_TYPE = "application/octet-stream"
#: A compressed file is not an encoding here: who asks for x.tar.gz wants that file.
_TYPES = {
    **File.contentTypes,
    ".gz": "application/gzip",
    ".bz2": "application/x-bzip2",
    ".tgz": "application/gzip",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svgz": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
#: The ending of a precompressed file, by encoding; the preferred one first.
_ENCODINGS = {b"br": ".br", b"gzip": ".gz"}
#: Types beside ``text/…`` that have a charset.
_TEXT = ("application/javascript", "application/xml", "image/svg+xml")
_WORDS = {
    403: b"This is not for you to read.\n",
    404: b"There is nothing here.\n",
    405: b"This answers to GET and HEAD.\n",
    412: b"It is another version.\n",
}
#: The statuses that may have a page of their own.
PAGED = tuple(_WORDS)


@frozen(kw_only=True)
class FileRules:
    """
    How files are shown.

    :ivar index: the file that a directory is.
    :ivar listing: whether a directory without it shows what is in it.
    :ivar fallback: the names of the file that stands for all that is not there, or None.
    :ivar precompressed: whether ``x.br`` and ``x.gz`` are encodings of ``x``.
    :ivar charset: that text is in; None for none.
    :ivar cache_control: the value for files that match a pattern; the first one counts.
    :ivar error_pages: the names of the file that is shown with a status.
    """

    index: str = "index.html"
    listing: bool = False
    fallback: tuple[str, ...] | None = None
    precompressed: bool = False
    charset: str | None = "utf-8"
    cache_control: Mapping[str, str] = field(factory=dict)
    error_pages: Mapping[int, tuple[str, ...]] = field(factory=dict)


def matcher(pattern: str) -> re.Pattern[str]:
    """
    :param pattern: ``*`` and ``?`` stand for anything in one name, ``**`` also for several.
        Without a slash it is about the name alone, whatever the directory.
    :returns: what matches paths without a slash in front.
    """
    pattern = pattern.removeprefix("/")
    if "/" not in pattern:
        pattern = "**/" + pattern
    text = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        text += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            part, re.escape(part)
        )
    return re.compile(text, re.DOTALL)


class Files(Resource):
    """The resource at a site's root: all paths below it are its own."""

    isLeaf = True

    def __init__(self, directory: Directory, rules: FileRules) -> None:
        super().__init__()
        self._directory = directory
        self._rules = rules
        self._cache_control = [
            (matcher(pattern), value.encode()) for pattern, value in rules.cache_control.items()
        ]

    def render(self, request: Request) -> bytes | int:
        """:returns: NOT_DONE_YET for a file, or else the whole answer."""
        assert isinstance(request, ResourceRequest)
        request.setHeader(b"x-content-type-options", b"nosniff")
        try:
            return self._serve(request, self._directory.names(request.postpath or []))
        except NotThere as error:
            return self._serve_instead(request, error.status)

    def _serve(self, request: ResourceRequest, names: list[str]) -> bytes | int:
        """:raises NotThere: if there is nothing to serve."""
        found = self._directory.open(names)
        wants_directory = not names[-1]
        if found.is_file and not wants_directory:
            return self._serve_file(request, names, found)
        found.close()
        if found.is_file:
            raise NotThere(404)
        _check_method(request)
        if not wants_directory:
            return _redirect(request, names)
        with suppress(NotThere):
            index = [*names[:-1], self._rules.index]
            found = self._directory.open(index)
            if found.is_file:
                return self._serve_file(request, index, found)
            found.close()
        if not self._rules.listing:
            raise NotThere(404)
        visible = list(self._directory.visible(names))
        place = os.path.join(self._directory.path, *names)
        lister = DirectoryLister(place, visible, _TYPES, {}, _DEFAULT_TYPE)
        page: bytes = lister.render(request)
        return _whole(request, page)

    def _serve_instead(self, request: ResourceRequest, status: int) -> bytes | int:
        """Show the fallback, an error page, or a line of text."""
        rules = self._rules
        if status == 404 and rules.fallback is not None and request.method in (b"GET", b"HEAD"):
            with suppress(NotThere):
                found = self._directory.open(rules.fallback)
                if found.is_file:
                    return self._serve_file(request, rules.fallback, found)
                found.close()
        if status == 405:
            request.setHeader(b"allow", b"GET, HEAD")
        request.setResponseCode(status)
        with suppress(NotThere):
            if status in rules.error_pages:
                page = rules.error_pages[status]
                found = self._directory.open(page)
                if found.is_file:
                    self._set_type(request, page)
                    request.setHeader(b"content-length", b"%d" % found.status.st_size)
                    return send(request, found, _body(request, [(0, found.status.st_size)]))
                found.close()
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return _whole(request, _WORDS[status])

    def _serve_file(
        self, request: ResourceRequest, names: Sequence[str], file: Opened
    ) -> bytes | int:
        """Serve an open file, and close it in any case."""
        try:
            _check_method(request)
            encoding, file = self._encoded(request, names, file)
            version = _version(file, encoding)
            fields = partial(_values, request)
            self._describe(request, names, version)
            instead = unmet(fields, version)
            if instead == 304:
                file.close()
                return _not_modified(request)
            if instead is not None:
                raise NotThere(instead)
            if encoding is not None:
                request.setHeader(b"content-encoding", encoding)
            wanted = ranges(fields, version, file.status.st_size)
            return _send_ranges(request, file, wanted)
        except NotThere:
            file.close()
            raise

    def _encoded(
        self, request: ResourceRequest, names: Sequence[str], file: Opened
    ) -> tuple[bytes | None, Opened]:
        """:returns: the encoding that the client gets the file in, and the file in it."""
        if not self._rules.precompressed:
            return None, file
        request.setHeader(b"vary", b"accept-encoding")
        offered: dict[bytes, Opened] = {}
        accepted = request.requestHeaders.getRawHeaders(b"accept-encoding", ())
        if not accepted:
            return None, file
        for encoding, ending in _ENCODINGS.items():
            with suppress(NotThere):
                found = self._directory.open([*names[:-1], names[-1] + ending])
                # One that is older than the file is of another version.
                if found.is_file and found.status.st_mtime >= file.status.st_mtime:
                    offered[encoding] = found
                else:
                    found.close()
        chosen = choose(accepted, offered)
        for encoding, found in offered.items():
            if encoding != chosen:
                found.close()
        if chosen is None:
            return None, file
        file.close()
        return chosen, offered[chosen]

    def _describe(self, request: ResourceRequest, names: Sequence[str], version: Version) -> None:
        """Set the headers that do not depend on which part is sent."""
        request.setHeader(b"accept-ranges", b"bytes")
        request.setHeader(b"last-modified", version.date)
        request.setHeader(b"etag", version.tag)
        path = "/".join(names)
        for pattern, value in self._cache_control:
            if pattern.fullmatch(path):
                request.setHeader(b"cache-control", value)
                break
        self._set_type(request, names)

    def _set_type(self, request: ResourceRequest, names: Sequence[str]) -> None:
        _, ending = os.path.splitext(names[-1])
        kind = _TYPES.get(ending.lower(), _DEFAULT_TYPE)
        charset = self._rules.charset
        if charset is not None and (kind.startswith("text/") or kind in _TEXT):
            kind = f"{kind}; charset={charset}"
        request.setHeader(b"content-type", kind.encode("ascii"))


def _values(request: Request, name: bytes) -> Sequence[bytes]:
    return request.requestHeaders.getRawHeaders(name, ())


def _version(file: Opened, encoding: bytes | None) -> Version:
    status = file.status
    mark = b"" if encoding is None else b"-" + encoding
    tag = b'"%x-%x%s"' % (status.st_mtime_ns, status.st_size, mark)
    # In whole seconds, not rounded up: it must not lie in the future.
    return Version(tag, int(status.st_mtime))


def _check_method(request: Request) -> None:
    if request.method not in (b"GET", b"HEAD"):
        raise NotThere(405)


def _redirect(request: ResourceRequest, names: Sequence[str]) -> bytes:
    """Redirect to the directory's URL with a slash, which relative links need."""
    _, question, query = request.uri.partition(b"?")
    # Built from names, so it cannot begin with two slashes, which would mean another host.
    path = "".join("/" + quote(name, safe="") for name in names)
    request.setResponseCode(301)
    request.setHeader(b"location", path.encode("ascii") + b"/" + question + query)
    request.setHeader(b"content-length", b"0")
    return b""


def _not_modified(request: ResourceRequest) -> int:
    request.responseHeaders.removeHeader(b"content-type")
    request.setResponseCode(304)
    # A body returned to twisted.web, even an empty one, would get a Content-Length.
    request.write(b"")
    request.finish()
    return NOT_DONE_YET


def _whole(request: Request, page: bytes) -> bytes:
    """:returns: the page; to HEAD only its length is told."""
    if request.method != b"HEAD":
        return page
    request.setHeader(b"content-length", b"%d" % len(page))
    return b""


def _body(request: Request, parts: Sequence[Part]) -> Sequence[Part]:
    """:returns: the parts, or none to HEAD."""
    return () if request.method == b"HEAD" else parts


def _send_ranges(
    request: ResourceRequest, file: Opened, wanted: Sequence[tuple[int, int]] | None
) -> int:
    """Send these ranges of the file, or all of it."""
    size = file.status.st_size
    if wanted is None:
        request.setHeader(b"content-length", b"%d" % size)
        return send(request, file, _body(request, [(0, size)]))
    if not wanted:
        request.setResponseCode(416)
        request.setHeader(b"content-range", b"bytes */%d" % size)
        request.setHeader(b"content-length", b"0")
        return send(request, file, ())
    request.setResponseCode(206)
    parts: list[Part] = []
    if len(wanted) == 1:
        [(first, last)] = wanted
        request.setHeader(b"content-range", b"bytes %d-%d/%d" % (first, last, size))
        parts.append((first, last - first + 1))
    else:
        parts = _multipart(request, wanted, size)
    length = sum(len(one) if isinstance(one, bytes) else one[1] for one in parts)
    request.setHeader(b"content-length", b"%d" % length)
    return send(request, file, _body(request, parts))


def _multipart(
    request: ResourceRequest, wanted: Sequence[tuple[int, int]], size: int
) -> list[Part]:
    """:returns: the ranges, each with a head of its own (RFC 9110, 14.6)."""
    boundary = os.urandom(16).hex().encode()
    [kind] = request.responseHeaders.getRawHeaders(b"content-type", [b""])
    parts: list[Part] = []
    for first, last in wanted:
        head = b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
        parts.append(head % (boundary, kind, first, last, size))
        parts.append((first, last - first + 1))
    parts.append(b"\r\n--%s--\r\n" % boundary)
    request.setHeader(b"content-type", b'multipart/byteranges; boundary="%s"' % boundary)
    return parts
