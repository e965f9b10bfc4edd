"""
The files below a directory, over HTTP.

twisted.web's ``static.File`` sends them.  What is here decides which file a URL
means, and whether it may be seen at all, before that gets to it; and it keeps
from it what it does not cope with.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from twisted.web.http import datetimeToString, stringToDatetime
from twisted.web.resource import Resource
from twisted.web.server import Request

from mtlsgate.protocols.web.site import WebRequest

with warnings.catch_warnings():
    # Twisted 26's own module makes instances of what it deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.static import DirectoryLister, File, Registry

INDEX = "index.html"
#: Where Linux tells what was opened.
DESCRIPTORS = "/proc/self/fd"
_DEFAULT_TYPE = "application/octet-stream"
#: A compressed file is one, and not the encoding of another: whoever asks for
#: x.tar.gz wants to have that.
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
#: More ranges than this at once are a trick, and the whole file is the answer.
_MAX_RANGES = 8
_RANGE = re.compile(rb"(?!-$)([0-9]{0,18})-([0-9]{0,18})")


class Refused(Exception):
    """
    What a URL means is not there, or not to be seen.

    :ivar status: what to answer.
    """

    def __init__(self, status: int) -> None:
        self.status = status


class Files(Resource):
    """
    The resource at a site's root: all paths below it are its own.

    A name is looked up as it is, without any that begins with a dot unless that is
    wanted.  Symbolic links are followed, as long as what they lead to is in the
    directory.
    """

    isLeaf = True

    def __init__(self, root: Path, listing: bool = False, dot_files: bool = False) -> None:
        """
        :param root: the directory.
        :param listing: whether a directory without an index shows what is in it.
        :param dot_files: whether to show names that begin with a dot.
        """
        super().__init__()
        self._root = os.fspath(root)
        self._listing = listing
        self._dot_files = dot_files
        self._registry = Registry()

    def render(self, request: Request) -> bytes | int:
        """:returns: NOT_DONE_YET for a file, or else the whole answer."""
        assert isinstance(request, WebRequest)
        request.setHeader(b"x-content-type-options", b"nosniff")
        try:
            names = self._names(request.postpath or [])
            root = os.path.realpath(self._root)
            path = os.path.join(root, *names)
            body = self._serve(request, root, path)
        except Refused as refused:
            body = _refusal(request, refused.status)
        if request.method == b"HEAD" and isinstance(body, bytes) and body:
            request.setHeader(b"content-length", b"%d" % len(body))
            return b""
        return body

    def _names(self, segments: list[bytes]) -> list[str]:
        """:returns: the names in a URL's path; the last is empty for a directory."""
        *above, last = segments or [b""]
        names = [self._name(one) for one in above]
        return [*names, self._name(last) if last else ""]

    def _name(self, segment: bytes) -> str:
        try:
            name = segment.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(404) from None
        hidden = name.startswith(".") and not self._dot_files
        if name in ("", ".", "..") or "/" in name or "\0" in name or hidden:
            raise Refused(404)
        return name

    def _serve(self, request: WebRequest, root: str, path: str) -> bytes | int:
        descriptor, status = _open(root, path)
        if stat.S_ISREG(status.st_mode) and not path.endswith("/"):
            return self._send(request, path, descriptor, status)
        os.close(descriptor)
        if stat.S_ISREG(status.st_mode):
            raise Refused(404)
        _check_method(request)
        if not path.endswith("/"):
            return _redirect(request)
        with suppress(Refused):
            descriptor, status = _open(root, path + INDEX)
            if stat.S_ISREG(status.st_mode):
                return self._send(request, path + INDEX, descriptor, status)
            os.close(descriptor)
        if not self._listing:
            raise Refused(404)
        names = list(self._visible(root, path))
        lister = DirectoryLister(path, names, _TYPES, {}, _DEFAULT_TYPE)
        body: bytes = lister.render(request)
        return body

    def _send(
        self, request: WebRequest, path: str, descriptor: int, status: os.stat_result
    ) -> bytes | int:
        transport = cast(Any, request.channel.transport)
        file = Snapshot(FileIO(descriptor), status.st_size, transport.abortConnection)
        try:
            _check_method(request)
            _clean(request, status)
            found = _OpenFile(path, file, status, self._registry)
            body: bytes | int = found.render_GET(request)
        except BaseException:
            file.close()
            raise
        return body

    def _visible(self, root: str, directory: str) -> Iterator[str]:
        """Yield the names in a directory that could be asked for, sorted."""
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            raise Refused(404) from None
        for name in names:
            try:
                real = os.path.realpath(os.path.join(directory, self._name(name.encode())))
                mode = os.stat(real).st_mode
            except (Refused, OSError, UnicodeEncodeError):
                continue
            if _inside(root, real) and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield name


def _open(root: str, path: str) -> tuple[int, os.stat_result]:
    """
    :param root: the real path of the directory.
    :returns: the descriptor of an open file or directory that is in it.
    :raises Refused: if there is none.
    """
    try:
        real = os.path.realpath(path, strict=True)
    except (OSError, ValueError):
        raise Refused(404) from None
    if not _inside(root, real):
        raise Refused(404)
    try:
        # Not blocking, for a FIFO that nobody writes to.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise Refused(403) from None
    except OSError:
        raise Refused(404) from None
    try:
        status = os.fstat(descriptor)
        # What was opened, whatever was done to the path in the meantime.
        opened = os.readlink(f"{DESCRIPTORS}/{descriptor}")
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR) or not _inside(root, opened):
            raise Refused(404)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def _inside(root: str, real: str) -> bool:
    return real == root or real.startswith(root.rstrip("/") + "/")


def _check_method(request: Request) -> None:
    if request.method not in (b"GET", b"HEAD"):
        request.setHeader(b"allow", b"GET, HEAD")
        raise Refused(405)


def _refusal(request: Request, status: int) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return {
        403: b"This is not for you to read.\n",
        404: b"There is nothing here.\n",
        405: b"This answers to GET and HEAD.\n",
    }[status]


def _redirect(request: Request) -> bytes:
    """To a directory's own URL, on which the links in it depend."""
    _, question, query = request.uri.partition(b"?")
    # Without empty segments it cannot begin with two slashes, as another
    # host's would.
    path = quote(request.path, safe="/%:@!$&'()*+,;=-._~").encode("ascii")
    request.setResponseCode(301)
    request.setHeader(b"location", path + b"/" + question + query)
    request.setHeader(b"content-length", b"0")
    return b""


class Snapshot:
    """
    An open file as long as it was when it was opened, which is what the
    client was told; whatever is appended meanwhile is not in it.
    """

    def __init__(self, file: FileIO, size: int, abort: Callable[[], object]) -> None:
        """
        :param abort: ends the connection, should the file become shorter.
        """
        self._file = file
        self._left = size
        self._size = size
        self._abort = abort

    def seek(self, offset: int) -> None:
        """Go to a place in it."""
        self._file.seek(offset)
        self._left = self._size - offset

    def read(self, size: int) -> bytes:
        """:returns: the next bytes, at most so many; at its end none."""
        wanted = min(size, self._left)
        data = self._file.read(wanted)
        if wanted and not data:
            # The client must not take what it has for all.  It gets none of
            # these any more; twisted.web would wait for them for ever.
            self._abort()
            data = bytes(wanted)
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _OpenFile(File):
    """A file that is open already, so that nothing about it changes between
    one look and the next."""

    contentTypes = _TYPES
    contentEncodings = {}

    def __init__(
        self, path: str, file: Snapshot, status: os.stat_result, registry: Registry
    ) -> None:
        super().__init__(path, _DEFAULT_TYPE, registry=registry)
        self._open_file = file
        self._status = status

    def restat(self, reraise: bool = True) -> None:
        pass

    def exists(self) -> bool:
        return True

    def isdir(self) -> bool:
        return False

    def openForReading(self) -> Snapshot:
        return self._open_file

    def getFileSize(self) -> int:
        return self._status.st_size

    def getModificationTime(self) -> float:
        # In whole seconds: rounded up, as File would, it may lie in the future.
        return float(int(self._status.st_mtime))


def _clean(request: Request, status: os.stat_result) -> None:
    """Leave no condition or range in a request that twisted.web would trip over."""
    headers = request.requestHeaders
    since = request.getHeader(b"if-modified-since")
    # RFC 9110, 13.1.3: with If-None-Match it does not count; here are no tags to match.
    if since is not None and (headers.hasHeader(b"if-none-match") or not _is_date(since)):
        headers.removeHeader(b"if-modified-since")
    asked = request.getHeader(b"range")
    if asked is None:
        return
    # RFC 9110, 13.1.5: a part of another version is of no use.
    version = datetimeToString(int(status.st_mtime))
    current = request.getHeader(b"if-range") in (None, version)
    ranges = _ranges(asked, status.st_size) if current else None
    if ranges is None:
        headers.removeHeader(b"range")
    else:
        headers.setRawHeaders(b"range", [ranges])


def _is_date(text: bytes) -> bool:
    try:
        stringToDatetime(text.split(b";", 1)[0])
    except Exception:  # noqa: BLE001 -- on nonsense it raises whatever comes of it
        return False
    return True


def _ranges(header: bytes, size: int) -> bytes | None:
    """
    :param header: the value of Range.
    :param size: the file's.
    :returns: the same in plain numbers, none of them beyond the file; or None if it
        is to be ignored (RFC 9110, 14.2).
    """
    unit, _, listed = header.partition(b"=")
    specs = [one for one in (part.strip(b" \t") for part in listed.split(b",")) if one]
    if unit.strip().lower() != b"bytes" or not 0 < len(specs) <= _MAX_RANGES:
        return None
    found = []
    for spec in specs:
        numbers = _RANGE.fullmatch(spec)
        if numbers is None:
            return None
        first, last = numbers.groups()
        if first:
            begin, end = int(first), int(last) if last else size - 1
            if last and end < begin:
                return None
        else:
            begin, end = max(size - int(last), 0), size - 1
        if begin < size and begin <= end:
            found.append((begin, min(end, size - 1)))
    if not found:
        # Which twisted.web answers as it should: 416.
        return b"bytes=%d-" % size
    if sum(end - begin + 1 for begin, end in found) > size:
        return None
    return b"bytes=" + b",".join(b"%d-%d" % one for one in found)
