"""
The attributes of ``protocol "web"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from mtlsgate.config import Duration, FileName, Located, Size
from mtlsgate.http.fields import is_token, is_value
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http2.versions import VERSIONS, HttpVersion, version_problems
from mtlsgate.protocols.web.files import PAGED, FileRules
from mtlsgate.text import quoted

#: How many requests a WSGI application answers at once, by default.
THREADS = 20
#: How many requests an ASGI application may have underway, by default.
MAX_REQUESTS = 1000
#: Bytes of a form, by default.
FORM_SIZE = 1 << 20
#: Seconds for a client that was refused to end its connection.
REFUSED_TIMEOUT = 15.0

_A_NAME = "the name of a file"
_A_PATH = "a path below root, without a slash in front"
#: What a block is about.
_KINDS = ("asgi", "wsgi", "resource", "root")
#: Which of them an attribute goes with.
_BELONGS = {
    "max_requests": "asgi",
    "lifespan_timeout": "asgi",
    "threads": "wsgi",
    "remote_user": "wsgi",
    "max_form_size": "resource",
    "listing": "root",
    "dot_files": "root",
    "index": "root",
    "fallback": "root",
    "precompressed": "root",
    "charset": "root",
    "cache_control": "root",
    "error_pages": "root",
}

RemoteUser = Literal["common_name", "subject", "sha256", "spiffe_id", "rule"]


@frozen
class WebConfiguration:
    """
    :ivar asgi: an ASGI application, as ``package.module:attribute``.
    :ivar wsgi: a WSGI application, likewise.
    :ivar resource: a twisted.web resource, or what makes one.
    :ivar root: a directory.
    :ivar max_requests: how many requests the ASGI application may have underway.
    :ivar lifespan_timeout: seconds that it may take to start, and to end.
    :ivar threads: how many requests the WSGI application answers at once.
    :ivar remote_user: what of the client its REMOTE_USER is.
    :ivar listing: whether directories without an index show what is in them.
    :ivar dot_files: whether to show files whose names begin with a dot.
    :ivar index: the file that a directory is.
    :ivar fallback: the file that stands for all that is not there.
    :ivar precompressed: whether ``x.br`` and ``x.gz`` are encodings of ``x``.
    :ivar charset: that text is in; ``none`` for no charset.
    :ivar cache_control: the value of ``Cache-Control``, by pattern.
    :ivar error_pages: the files that are shown with a status.
    :ivar max_form_size: bytes of a form that becomes a resource's ``request.args``.
    :ivar max_header_size: bytes of a request's line and headers.
    :ivar max_body_size: bytes of a request's body.
    :ivar header_timeout: seconds for a request's headers to come.
    :ivar keep_alive_timeout: seconds that a connection may be silent.
    :ivar send_timeout: seconds that a client may not read its answer.
    :ivar http_versions: that clients may choose from, the preferred one first.
    :ivar access_log: whether to log each request.
    """

    asgi: Located[str] | None = None
    wsgi: Located[str] | None = None
    resource: Located[str] | None = None
    root: Located[FileName] | None = None
    max_requests: int | None = None
    lifespan_timeout: Duration | None = None
    threads: int | None = None
    remote_user: RemoteUser | None = None
    listing: bool | None = None
    dot_files: bool | None = None
    index: str | None = None
    fallback: str | None = None
    precompressed: bool | None = None
    charset: str | None = None
    cache_control: dict[str, str] | None = None
    error_pages: dict[str, str] | None = None
    max_form_size: Size | None = None
    max_header_size: Size = 16384
    max_body_size: Size = 16 << 20
    header_timeout: Duration = 10.0
    keep_alive_timeout: Duration = 60.0
    send_timeout: Duration = 60.0
    http_versions: tuple[HttpVersion, ...] | None = None
    access_log: bool = True

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield what does not go together."""
        yield from version_problems(self.http_versions or VERSIONS)
        given = [one for one in _KINDS if getattr(self, one) is not None]
        if len(given) != 1:
            yield (given[1] if given else None), "set exactly one of asgi, wsgi, resource and root"
            return
        if given == ["asgi"] and self.http_versions not in (None, ("1.1",)):
            yield "http_versions", "http_versions: ASGI applications are served by HTTP/1.1 alone"
        for name, belongs in _BELONGS.items():
            if getattr(self, name) is not None and given != [belongs]:
                yield name, f"{name} goes with {belongs} alone"
        if self.max_requests is not None and self.max_requests < 1:
            yield "max_requests", "max_requests must be 1 or more"
        if self.threads is not None and not 1 <= self.threads <= 1000:
            yield "threads", "threads must be from 1 to 1000"
        yield from self._file_problems()

    def _file_problems(self) -> Iterator[tuple[str, str]]:
        for name, path in (("index", self.index), ("fallback", self.fallback)):
            if path is not None and not _is_path(path, alone=name == "index"):
                yield name, f"{name} must be {_A_NAME if name == 'index' else _A_PATH}"
        if self.charset is not None and not is_token(self.charset.encode()):
            yield "charset", 'charset must be a name such as "utf-8", or "none"'
        for pattern, value in (self.cache_control or {}).items():
            if not pattern.strip("/"):
                yield "cache_control", "cache_control: a pattern must not be empty"
            if not value or not (value.isascii() and is_value(value.encode())):
                yield "cache_control", f"cache_control: {quoted(pattern)} has no value for a header"
        for status, path in (self.error_pages or {}).items():
            if status not in map(str, PAGED):
                known = ", ".join(map(str, PAGED))
                yield "error_pages", f"error_pages: {quoted(status)} is none of {known}"
            elif not _is_path(path):
                yield "error_pages", f"error_pages: {quoted(status)} must be {_A_PATH}"

    @property
    def file_rules(self) -> FileRules:
        """How files are shown."""
        pages = (self.error_pages or {}).items()
        return FileRules(
            index=self.index or "index.html",
            listing=bool(self.listing),
            fallback=None if self.fallback is None else tuple(self.fallback.split("/")),
            precompressed=bool(self.precompressed),
            charset=None if self.charset == "none" else self.charset or "utf-8",
            cache_control=self.cache_control or {},
            error_pages={int(status): tuple(path.split("/")) for status, path in pages},
        )

    @property
    def limits(self) -> HttpLimits:
        """Those of the HTTP server."""
        return HttpLimits(
            head_size=self.max_header_size,
            body_size=self.max_body_size,
            first_timeout=self.keep_alive_timeout,
            head_timeout=self.header_timeout,
            body_timeout=self.keep_alive_timeout,
            idle_timeout=self.keep_alive_timeout,
            send_timeout=self.send_timeout,
            close_timeout=self.keep_alive_timeout,
            refused_timeout=REFUSED_TIMEOUT,
        )


def _is_path(path: str, *, alone: bool = False) -> bool:
    """:returns: whether it names a file below a directory; alone, one in it."""
    names = path.split("/")
    return all(name not in ("", ".", "..") for name in names) and not (alone and len(names) > 1)
