"""
The console: a page for browsers, and its files.

The page holds no data.  It asks for the token where one is set, and reads everything
through the other routes.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib.resources import files

from mtlsgate.admin.answers import Answer

#: What the page may do: run its own script, and ask this endpoint.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Referrer-Policy", "same-origin"),
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES = {
    b"/": "index.html",
    **{
        b"/console/" + name.encode(): name
        for name in (
            "console.css",
            "icon.svg",
            "api.js",
            "dom.js",
            "chart.js",
            "actions.js",
            "overview.js",
            "connections.js",
            "rejections.js",
            "expiry.js",
            "certificate.js",
            "dry-run.js",
            "explanation.js",
            "shadow.js",
            "main.js",
        )
    },
}
#: They need no token.
CONSOLE_PATHS = frozenset(_FILES)


def page_of(path: bytes) -> Answer | None:
    """:returns: the console's page or one of its files; None for other paths."""
    name = _FILES.get(path)
    return None if name is None else _file(name)


@cache
def _file(name: str) -> Answer:
    content = (files("mtlsgate.admin") / "console_files" / name).read_bytes()
    return Answer(HTTPStatus.OK, content, _TYPES[name.rpartition(".")[2]], _HEADERS)
