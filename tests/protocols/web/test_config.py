from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from zope.interface.verify import verifyObject

from mtlsgate.config import parse_size
from mtlsgate.interfaces import IProtocolPlugin
from mtlsgate.protocols import find_plugin
from mtlsgate.protocols.web import WebPlugin, plugin
from mtlsgate.protocols.web.files import Files
from mtlsgate.protocols.web.site import WebSite
from mtlsgate.protocols.web.wsgi import WsgiSite
from tests.kits.pki import Site, server, site

MODULE = """
    from twisted.web.resource import Resource

    def app(environ, start_response):
        return []

    class Root(Resource):
        pass

    instance = Root()

    def make():
        return Root()

    def needs(argument):
        return Root()

    def refuse():
        raise ValueError("not today")

    def give_class():
        return Root

    text = "text"

    class Apps:
        inner = staticmethod(app)
"""
M = "my_web_module"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A place for configurations, with a module beside them that is forgotten afterwards."""
    path = list(sys.path)
    found = site(tmp_path)
    found.write(f"{M}.py", dedent(MODULE))
    (tmp_path / "files").mkdir()
    yield found
    sys.path[:] = path
    sys.modules.pop(M, None)


def web(*lines: str) -> str:
    """:returns: a configuration; the first of the lines is line 4."""
    return server(protocol="\n".join(['protocol "web" {', *lines, "}"]), label='"web"')


def test_it_is_found_as_anybodys() -> None:
    """By its entry point, and with the interface that is everybody's."""
    assert find_plugin("web") is plugin
    assert verifyObject(IProtocolPlugin, WebPlugin())


@pytest.mark.parametrize("name", ["app", "Apps.inner", "Root"])
def test_a_wsgi_application_is_anything_that_can_be_called(here: Site, name: str) -> None:
    (loaded,) = here.load(web(f'wsgi = "{M}:{name}"')).servers
    assert isinstance(loaded.gate.application, WsgiSite)


@pytest.mark.parametrize("name", ["Root", "instance", "make"])
def test_a_resource_is_one_or_makes_one(here: Site, name: str) -> None:
    (loaded,) = here.load(web(f'resource = "{M}:{name}"')).servers
    assert type(loaded.gate.application) is WebSite
    assert type(loaded.gate.application.resource).__name__ == "Root"


def test_a_root_is_a_directory_beside_the_configuration(here: Site) -> None:
    (loaded,) = here.load(web('root = "files"')).servers
    assert isinstance(loaded.gate.application, WebSite)
    assert isinstance(loaded.gate.application.resource, Files)


@pytest.mark.parametrize(
    ("written", "offered"),
    [("", (b"h2", b"http/1.1")), ('http_versions = ["1.1"]', (b"http/1.1",))],
)
def test_http_2_is_offered_unless_it_is_not_wanted(
    here: Site, written: str, offered: tuple[bytes, ...]
) -> None:
    (loaded,) = here.load(web(f'root = "files"\n{written}')).servers
    assert loaded.gate.context.policy.alpn == offered


ONE = "set exactly one of asgi, wsgi, resource and root"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], f"3:1: {ONE}"),
        (
            ['asgi = "app:app"', 'http_versions = ["2", "1.1"]'],
            "5:1: http_versions: ASGI applications are served by HTTP/1.1 alone",
        ),
        (
            ['root = "files"', 'http_versions = ["2"]'],
            '5:1: http_versions must have "1.1", which clients without ALPN speak',
        ),
        (
            ['root = "files"', 'http_versions = ["1.1", "1.1"]'],
            "5:1: http_versions names a version twice",
        ),
        ([f'wsgi = "{M}:app"', 'root = "files"'], f"5:1: {ONE}"),
        ([f'resource = "{M}:Root"', f'wsgi = "{M}:app"'], f"4:1: {ONE}"),
        (['root = "files"', "threads = 3"], "5:1: threads goes with wsgi alone"),
        ([f'wsgi = "{M}:app"', "listing = true"], "5:1: listing goes with root alone"),
        ([f'resource = "{M}:Root"', "dot_files = true"], "5:1: dot_files goes with root alone"),
        (
            ['root = "files"', 'remote_user = "subject"'],
            "5:1: remote_user goes with wsgi alone",
        ),
        ([f'wsgi = "{M}:app"', "threads = 0"], "5:1: threads must be from 1 to 1000"),
        ([f'wsgi = "{M}:app"', "threads = 1001"], "5:1: threads must be from 1 to 1000"),
        (
            [f'wsgi = "{M}:app"', 'remote_user = "leaf"'],
            '5:15: remote_user: must be "common_name" or "subject" or "sha256" or "spiffe_id" or '
            '"rule"',
        ),
        (
            ['root = "files"', 'max_body_size = "1GB"'],
            '5:17: max_body_size: not a size; write it as "512B", "64KiB", "10MiB" or "1GiB"',
        ),
        (['root = "files"', 'send_timeout = "1"'], "5:16: send_timeout: not a duration; "),
        (['wsgi = "app"'], '4:8: wsgi: "app" is not of the form "package.module:attribute"'),
        (['wsgi = "nosuch_module:app"'], "4:8: wsgi: no module named nosuch_module: install it"),
        ([f'wsgi = "{M}:nosuch"'], f"4:8: wsgi: {M} has no attribute nosuch"),
        ([f'wsgi = "{M}:text"'], f"4:8: wsgi: {M}:text is a str, not a WSGI application"),
        (
            [f'resource = "{M}:text"'],
            f"4:12: resource: {M}:text is a str, not a twisted.web resource",
        ),
        (
            [f'resource = "{M}:needs"'],
            f"4:12: resource: {M}:needs failed: TypeError: needs() missing 1 required",
        ),
        ([f'resource = "{M}:refuse"'], "4:12: resource: not today"),
        (
            [f'resource = "{M}:give_class"'],
            f"4:12: resource: what {M}:give_class returned is a type, not a twisted.web resource",
        ),
        (['root = "files"', 'index = "a/b"'], "5:1: index must be the name of a file"),
        (['root = "files"', 'fallback = "/a"'], "5:1: fallback must be a path below root"),
        (['root = "files"', 'fallback = "a"'], '4:8: fallback: "a" is not there'),
        (['root = "files"', 'charset = "u 8"'], "5:1: charset must be a name such as"),
        (['root = "files"', 'cache_control = { "*" = "ä" }'], '5:1: cache_control: "*" has no'),
        (['root = "files"', 'cache_control = { "/" = "a" }'], "5:1: cache_control: a pattern"),
        (['root = "files"', 'error_pages = { "200" = "a" }'], '5:1: error_pages: "200" is none of'),
        (['root = "files"', 'error_pages = { "404" = "../a" }'], '5:1: error_pages: "404" must be'),
        (['root = "files"', 'error_pages = { "404" = "a" }'], '4:8: error_pages: "a" is not there'),
        ([f'wsgi = "{M}:app"', 'fallback = "a"'], "5:1: fallback goes with root alone"),
        (['root = "files"', 'max_form_size = "1MiB"'], "5:1: max_form_size goes with resource"),
        (['root = "nosuch"'], '4:8: root: "nosuch" no such directory'),
        ([f'root = "{M}.py"'], f'4:8: root: "{M}.py" is not a directory'),
        (['root = "a\\u0000b"'], '4:8: root: "a\\x00b" no such directory'),
        (['root = "."'], '4:8: root: ".": the configuration is in it, and what is beside that: '),
        (['root = ".."'], '4:8: root: "..": the configuration is in it, and what is beside that'),
        (['root = "/"'], '4:8: root: "/": the configuration is in it, and what is beside that'),
        (['roots = "files"'], '4:1: unknown attribute "roots"; did you mean "root"?'),
    ],
)
def test_what_cannot_be_had_is_an_error_at_its_place(
    here: Site, lines: list[str], expected: str
) -> None:
    (problem, *_) = here.problems(web(*lines))
    place, _, text = expected.partition(": ")
    assert problem.startswith(f'{place}: protocol "web": {text}')


def test_files_need_proc(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nobody could say whether what was opened is in the directory."""
    monkeypatch.setattr("mtlsgate.protocols.web.paths.DESCRIPTORS", "/nosuch/fd")
    assert here.problems(web('root = "files"')) == [
        '4:8: protocol "web": root: files are shown only where /nosuch/fd tells which: mount /proc'
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("512B", 512), ("64KiB", 65536), ("10MiB", 10 << 20), ("1GiB", 1 << 30)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "1", "0B", "-1B", "1.5MiB", "1 MiB", "1MB", "1mib", "B", "\u0661B"]
)
def test_a_size_is_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)
