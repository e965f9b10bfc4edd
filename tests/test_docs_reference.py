"""
The tables of attributes say what the models say: which attributes there are, of what
type, and what each is by default.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from attrs import frozen

from mtlsgate.admin.protocol import AdminConfiguration
from mtlsgate.clientgate.configuration import ClientConfiguration
from mtlsgate.config import fields, model
from mtlsgate.config.convert import convert
from mtlsgate.config.expressions import evaluate
from mtlsgate.config.fields import Field, Located, Lone, OrWord, Parsed, fields_of
from mtlsgate.config.scope import Scope
from mtlsgate.config.syntax import parse
from mtlsgate.errors import Report
from mtlsgate.gate.terms import Terms
from mtlsgate.http2.versions import VERSIONS
from mtlsgate.load.authorizers import AUTHORIZE_TIMEOUT
from mtlsgate.load.servers import HANDSHAKE_BYTES, HANDSHAKE_TIMEOUT
from mtlsgate.protocols.aio.plugin import AsyncioConfiguration
from mtlsgate.protocols.aio.prepared import START_TIMEOUT
from mtlsgate.protocols.custom import CustomConfiguration
from mtlsgate.protocols.http.configuration import HttpConfiguration, HttpHealthCheck
from mtlsgate.protocols.proxy import ProxyConfiguration
from mtlsgate.protocols.web import WebConfiguration
from mtlsgate.protocols.web.configuration import FORM_SIZE, MAX_REQUESTS, THREADS
from mtlsgate.upstream.configuration import RETRY_AFTER
from mtlsgate.upstream.tls import TargetTls
from tests.kits.docs import DOCS

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")

#: The table of each block, by page and heading.
TABLES: Mapping[type, tuple[str, str]] = {
    model.Settings: ("configuration.md", "settings"),
    model.Audit: ("configuration.md", "audit"),
    model.Log: ("configuration.md", "log"),
    model.VariableDefaults: ("configuration.md", "defaults"),
    model.Admin: ("configuration.md", "admin"),
    model.Registry: ("configuration.md", "registry"),
    model.Server: ("configuration.md", "server"),
    model.Defaults: ("configuration.md", "Limits for connections"),
    model.Tls: ("configuration.md", "tls"),
    model.ServerCertificate: ("configuration.md", "server_certificate"),
    model.Acme: ("configuration.md", "acme"),
    model.ClientCertificate: ("configuration.md", "client_certificate"),
    model.PinBlock: ("configuration.md", "pin"),
    ClientConfiguration: ("client-gate.md", "Attributes"),
    ProxyConfiguration: ("proxy.md", "Attributes"),
    HttpHealthCheck: ("proxy.md", "Health checks"),
    TargetTls: ("proxy.md", "TLS to the target"),
    HttpConfiguration: ("http.md", "Attributes"),
    WebConfiguration: ("web.md", "Attributes"),
    AsyncioConfiguration: ("asyncio.md", "Attributes"),
}
#: Blocks that are described without such a table: conditions, whose attributes are all
#: lists of strings; `Protocol` and `Client`, which have a label and someone else's attributes.
WITHOUT_TABLE = {
    model.ConditionBlock,
    model.DenyBlock,
    model.Protocol,
    model.Client,
    AdminConfiguration,
    CustomConfiguration,
}
#: What an attribute is in effect if it is not written and its model says None: a value
#: of the code, or words.
_EFFECTIVE: Mapping[type, Mapping[str, object]] = {
    model.Settings: {
        "event_loop": "see right",
        "state_dir": '`$STATE_DIRECTORY`, or `"state"`',
        "group": "the user's",
        "sandbox": "`true` unless code of yours runs in the gate",
    },
    model.Acme: {"storage": '`$STATE_DIRECTORY/acme`, or `"acme"`'},
    model.Defaults: {
        "handshake_timeout": HANDSHAKE_TIMEOUT,
        "handshake_bytes": HANDSHAKE_BYTES,
        "close_on_expiry": Terms().close_on_expiry,
        "on_reload": "judge" if Terms().judged_on_reload else "keep",
        "revoke_grace": Terms().revoke_grace,
        "log_admitted": Terms().log_admitted,
    },
    model.Registry: dict.fromkeys(("prefix", "table"), "see right"),
    model.Server: {"authorize_timeout": AUTHORIZE_TIMEOUT},
    model.Tls: {
        "session_lifetime": model.Tls(at=None, session_resumption=True).resumption  # type: ignore[arg-type]
    },
    model.ServerCertificate: dict.fromkeys(
        ("public_key", "private_key"), "required, unless something delivers it"
    ),
    model.ClientCertificate: {
        "max_depth": "any",
        "crl_scope": "path",
        "spiffe_socket": "see right",
    },
    ClientConfiguration: {
        "allow_uids": "everybody",
        "retry_after": RETRY_AFTER,
        "on_reload": "judge" if Terms().judged_on_reload else "keep",
        "revoke_grace": Terms().revoke_grace,
        "log_admitted": Terms().log_admitted,
    },
    ProxyConfiguration: {"retry_after": RETRY_AFTER},
    HttpHealthCheck: {"status": "200 to 399"},
    TargetTls: {
        "server_ca_certificate": "required, unless there is a pin or a SPIFFE ID",
        "spiffe_socket": "that of `spiffe`",
        "server_name": "the target's host",
    },
    HttpConfiguration: {"retry_after": RETRY_AFTER, "host": "the client's"},
    WebConfiguration: {
        **dict.fromkeys(("asgi", "wsgi", "resource", "root"), "one of these four"),
        "http_versions": VERSIONS,
        "max_requests": MAX_REQUESTS,
        "lifespan_timeout": START_TIMEOUT,
        "threads": THREADS,
        "index": WebConfiguration().file_rules.index,
        "listing": WebConfiguration().file_rules.listing,
        "precompressed": WebConfiguration().file_rules.precompressed,
        "charset": WebConfiguration().file_rules.charset,
        "dot_files": False,
        "max_form_size": FORM_SIZE,
    },
    AsyncioConfiguration: dict.fromkeys(("handler", "factory"), "one of these two"),
}
#: The types of attributes that their code checks itself.
_TYPES = {"target": "string or list", "crl_url": "string or list", "allow_uids": "list"}
_PARSED = {
    fields.parse_duration: "duration",
    fields.parse_duration_or_zero: 'duration, or `"0s"`',
    fields.parse_size: "size",
    fields.parse_size_or_zero: 'size, or `"0B"`',
    fields.parse_instant: "instant",
    fields.parse_file_name: "string",
}
_PRIMITIVES = {str: "string", bool: "boolean", int: "whole number", float: "number"}


@frozen
class Row:
    """
    A row of a table, without its links.

    :ivar names: the attributes that it is about, without their ``_file``.
    """

    names: tuple[str, ...]
    type: str
    default: str


def rows(page: Path, heading: str) -> list[Row]:
    """:returns: the rows of the first table with types and defaults under a heading."""
    title = re.compile(rf"^#+ `?{re.escape(heading)}`?$", re.MULTILINE)
    text = re.split(r"^#", title.split(page.read_text(), maxsplit=1)[1], flags=re.MULTILINE)[0]
    table = re.search(
        r"^\|[^|]*\| type \| default \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    assert table is not None, (page, heading)
    return [_row(line) for line in table[1].splitlines()]


def _row(line: str) -> Row:
    line = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line)
    first, kind, default = (cell.strip() for cell in line.split("|")[1:4])
    names = re.findall(r"`(\w+)`", first)
    alternatives = {f"{name}_file" for name in names}
    return Row(tuple(one for one in names if one not in alternatives), kind, default)


def described(block: type) -> Iterator[Field]:
    """Yield the attributes and blocks of a block that its own table has."""
    elsewhere = set()
    if issubclass(block, model.Defaults) and block is not model.Defaults:
        elsewhere = {one.name for one in fields_of(model.Defaults)}
    for one in fields_of(block):
        is_written = one.source not in ("label", "position", "body", "remainder")
        if is_written and one.name not in elsewhere:
            yield one


def type_of(one: Field) -> str:
    """:returns: the words for what an attribute may be."""
    if one.source in ("block", "blocks", "material"):
        return one.source
    if one.source == "peer_texts":
        return "block or object"
    return _TYPES[one.name] if one.name in _TYPES else _words(one.hint)


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Located:
        return _words(fields.without_none(arguments[0]))
    if origin is Literal:
        *first, last = (f"`{json.dumps(word)}`" for word in arguments)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is tuple:
        inner = _words(arguments[0])
        return f"list of {inner if inner.startswith('`') else f'{inner}s'}"
    if origin is dict:
        return f"object of {_words(arguments[1])}s"
    if origin is Annotated:
        for extra in arguments[1:]:
            if isinstance(extra, Parsed):
                return _PARSED[extra.parse]  # type: ignore[index]
            if isinstance(extra, OrWord):
                return f'whole number, or `"{extra.word}"`'
            if extra is Lone.TEXT:
                return f"string, or {_words(arguments[0])}"
        return _words(arguments[0])
    return _PRIMITIVES[hint]


def default_of(block: type, one: Field) -> object:
    """:returns: what an attribute is if it is not written; None if nothing."""
    if one.required:
        return "required"
    by_name = {attribute.name: attribute.default for attribute in attrs.fields(block)}
    default = by_name[one.name]
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    for base in block.__mro__:
        if one.name in _EFFECTIVE.get(base, {}):
            assert default is None or default == (), "the model says more"
            return _EFFECTIVE[base][one.name]
    return default if default not in ((), {}) else None


def value_of(written: str, hint: Any) -> object:
    """:returns: what HCL says, as the attribute would have it."""
    body = parse(f"x = {written}\n".encode(), Report("f"))
    assert body is not None, written
    read = evaluate(body.attributes[0].expression, Scope({}, Path.read_bytes))  # type: ignore[arg-type]
    found = convert(hint, read)
    return found.value if isinstance(found, Located) else found


@pytest.mark.parametrize("block", TABLES, ids=lambda block: block.__name__)
def test_a_table_says_what_the_model_says(block: type) -> None:
    """Each attribute in a row, with its type and default; nothing else."""
    page, heading = TABLES[block]
    by_name = {name: row for row in rows(DOCS / page, heading) for name in row.names}
    expected = {one.name: one for one in described(block)}
    assert set(by_name) == set(expected)
    for name, one in expected.items():
        row, default = by_name[name], default_of(block, one)
        assert row.type == type_of(one), name
        if default is None or row.default == default:
            assert row.default == (default or "none"), name
        else:
            written = re.fullmatch("`(.*)`", row.default)
            assert written is not None, (name, row.default, default)
            assert value_of(written[1], one.hint) == default, name


def blocks_in(block: type) -> Iterator[type]:
    """Yield a block and all that may stand in it."""
    yield block
    for one in fields_of(block):
        if one.source in ("block", "blocks"):
            yield from blocks_in(one.hint)


def test_every_block_has_a_table() -> None:
    """Of the file itself, and of every protocol that comes with the gate."""
    configurations = (AdminConfiguration, CustomConfiguration, *TABLES)
    found = {one for top in (model.Configuration, *configurations) for one in blocks_in(top)}
    shown = {base for block in TABLES for base in block.__mro__}
    assert found - shown - WITHOUT_TABLE == {model.Configuration}


def test_conditions_are_lists_of_strings() -> None:
    """As their page says for all of them; it has each, and says what it is compared with."""
    text = (DOCS / "configuration.md").read_text()
    for one in fields_of(model.ConditionBlock):
        if one.source == "attribute":
            assert type_of(one) == "list of strings"
            assert re.search(rf"^\| `{one.name}` \|", text, re.MULTILINE), one.name


def test_every_kind_of_value_is_explained() -> None:
    """A duration, a size, an instant and material have a section each in the reference."""
    titles = re.findall(r"^### (\w+)$", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    for word in ("Durations", "Sizes", "Instants", "Material"):
        assert word in titles
