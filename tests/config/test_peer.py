from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from attrs import frozen
from twisted.internet.address import IPv6Address

from mtlsgate.config import PeerText, parse_size
from mtlsgate.config.peer import PEER_FIELDS, peer_value
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.peer import VerifiedPeer
from mtlsgate.testing import Authority
from tests.kits.decoding import good, read


@frozen
class One:
    x: PeerText | None = None


@frozen
class Many:
    headers: dict[str, PeerText] | None = None


@frozen
class Peer:
    """What expressions see of a client."""

    common_name: str | None = "alice"
    rule: str = "people"
    dns_names: tuple[str, ...] = ("a.example", "b.example")
    uris: tuple[str, ...] = ()
    serial: int = 0x1F
    resumed: bool = False
    attributes: Mapping[str, str] = MappingProxyType({"tenant": "north"})
    not_after: datetime = datetime(2027, 1, 2, tzinfo=UTC)
    address: IPv6Address = IPv6Address("TCP", "::1", 5)


NAMELESS = Peer(common_name=None, attributes={})


def render(expression: str, peer: object = Peer()) -> object:
    return good(One, f"x = {expression}\n").x.of(peer)


def refusal(expression: str) -> str:
    _, problems = read(One, f"x = {expression}\n")
    [problem] = problems
    return problem


@pytest.mark.parametrize(
    ("expression", "expected", "nameless"),
    [
        ("peer.common_name", "alice", None),
        ("peer.attributes.tenant", "north", None),
        ('peer.attributes["tenant"]', "north", None),
        ('"${peer.attributes.tenant}/1"', "north/1", None),
        ("peer.attributes.other", None, None),
        ('default(peer.attributes.other, "none")', "none", "none"),
        ('peer["common_name"]', "alice", None),
        ('"${peer.common_name}"', "alice", None),
        ('"${peer.common_name}@${peer.rule}"', "alice@people", None),
        ('"${env.SET}-${peer.rule}-${1}-${true}"', "set-people-1-true", "set-people-1-true"),
        ("peer.dns_names", ("a.example", "b.example"), ("a.example", "b.example")),
        ('join("; ", peer.dns_names)', "a.example; b.example", "a.example; b.example"),
        ('join(",", peer.uris)', None, None),
        ("[peer.common_name, env.SET, 5]", ("alice", "set", "5"), ("set", "5")),
        ('join("+", [peer.common_name, peer.rule])', "alice+people", "people"),
        ('default(peer.common_name, "nobody")', "alice", "nobody"),
        ("default(env.UNSET, peer.common_name, peer.rule)", "alice", "people"),
        ('"by ${default(peer.common_name, env.SET)}"', "by alice", "by set"),
        ('trim(" ${peer.common_name} ")', "alice", None),
        ('upper("${peer.common_name}!")', "ALICE!", None),
        ("to_lower(peer.rule)", "people", "people"),
        ('coalesce("", peer.common_name, "x")', "alice", "x"),
        ('coalesce(peer.common_name, "")', "alice", ""),
        ('env.SET == "set" ? "yes" : "no"', "yes", "yes"),
        ('[for n in ["a", "b"] : upper(n)]', ("A", "B"), ("A", "B")),
        ('"fixed"', "fixed", "fixed"),
        ("env.SET", "set", "set"),
        ("7", "7", "7"),
        ('["a", 1]', ("a", "1"), ("a", "1")),
        ("peer.serial", "1f", "1f"),
        ("peer.resumed", "false", "false"),
        ("peer.not_after", "2027-01-02T00:00:00+00:00", "2027-01-02T00:00:00+00:00"),
        ("peer.address", "[::1]:5", "[::1]:5"),
    ],
)
def test_expressions_stand_for_each_client(
    expression: str, expected: object, nameless: object
) -> None:
    """An expression is evaluated for a client; nothing in it makes nothing of a template."""
    assert render(expression) == expected
    assert render(expression, NAMELESS) == nameless


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("peer.rule", None),
        ("peer.dns_names", None),
        ('"${peer.rule}!"', None),
        ('join(",", peer.dns_names)', None),
        ("[peer.rule]", ()),
        ('default(peer.rule, "anyone")', "anyone"),
        ('"fixed"', "fixed"),
    ],
)
def test_without_a_certificate_every_field_is_nothing(expression: str, expected: object) -> None:
    """Where the server asks for no certificate there is no client to speak of."""
    assert render(expression, None) == expected


@pytest.mark.parametrize(
    ("expression", "column", "text"),
    [
        (
            'peer.rule == "a"',
            5,
            "operators, conditionals, for and indexes cannot depend on the client; templates",
        ),
        (
            'peer.rule == "a" ? "b" : "c"',
            5,
            "operators, conditionals, for and indexes cannot depend on the client; templates",
        ),
        (
            "peer.dns_names[0]",
            5,
            "operators, conditionals, for and indexes cannot depend on the client; templates",
        ),
        (
            "[for n in peer.dns_names : n]",
            5,
            "operators, conditionals, for and indexes cannot depend on the client; templates",
        ),
        ('join(",", peer.dns_names...)', 5, '"..." cannot depend on the client'),
        ("peer", 5, "peer stands for the client; name an attribute"),
        ("peer.comon_name", 5, 'there is no peer.comon_name; did you mean "common_name"?'),
        ("peer.zzz", 5, "there is no peer.zzz; there are address, alpn, "),
        ('"a ${peer.leav}"', 10, "there is no peer.leav; there are"),
        ("peer.leaf", 5, "peer.leaf is no text"),
        ("peer.to_dict", 5, "there is no peer.to_dict"),
        ('"a ${peer.uris}"', 10, "a list cannot be part of a template; use join("),
        ("[peer.uris]", 6, "a list cannot be part of a list; use join("),
        ("file(peer.rule)", 5, "file cannot depend on the client; the functions are coalesce,"),
        ("base64_decode(peer.rule)", 5, "base64_decode cannot depend on the client"),
        ("nope(peer.rule)", 5, "nope cannot depend on the client"),
        ('join(",", peer.rule)', 15, "write join(separator, list); this is text"),
        ("join(peer.uris, peer.uris)", 10, "write join(separator, list); this is a list"),
        ("join(peer.uris)", 5, "write join(separator, list); 1 given here"),
        ("trim(peer.uris)", 10, "write trim(text); this is a list"),
        ("default(peer.rule, peer.uris)", 5, "default takes texts or lists, not both"),
        ('"${peer.rule} ${env.NOT_SET}"', 21, "environment variable NOT_SET is not set"),
        ("default(peer.rule, env.NOT_SET)", 24, "environment variable NOT_SET is not set"),
        ("{ a = peer.rule }", 5, "an object has no text"),
        ("{ a = 1 }", 5, "an object has no text"),
        ("[[1]]", 6, "a list cannot be part of a list here"),
    ],
)
def test_what_cannot_work_is_refused_at_load(expression: str, column: int, text: str) -> None:
    """An error names its place, and nothing is left to go wrong later."""
    problem = refusal(expression)
    assert problem.startswith(f"1:{column}: file: x: ")
    assert text in problem


def test_every_fault_of_an_expression_is_said() -> None:
    """One load finds them all."""
    _, problems = read(One, 'x = "${peer.a}${peer.b}${env.NOT_SET}"\n')
    assert [one.split(": ")[0] for one in problems] == ["1:8", "1:17", "1:26"]


@pytest.mark.parametrize(
    "expression", ["peer.rule", '"${peer.rule}"', "[peer.rule]", "trim(peer.rule)"]
)
def test_other_attributes_do_not_take_clients(expression: str) -> None:
    """Everywhere else peer.NAME is an error at its place."""

    @frozen
    class Plain:
        x: object

    _, [problem] = read(Plain, f"x = {expression}\n")
    column = 5 + expression.index("peer")
    assert problem == (
        f"1:{column}: file: x: peer.rule differs from client to client, and this must not"
    )


@pytest.mark.parametrize(
    "text",
    [
        'headers {\n  X-A = peer.rule\n  x_b = "b"\n}\n',
        'headers = {\n  X-A = peer.rule,\n  "x_b" = "b" }\n',
    ],
)
def test_a_block_or_an_object_of_any_names(text: str) -> None:
    """Names are kept as written, with hyphens, and know their place."""
    headers = good(Many, text).headers
    assert {name: value.of(Peer()) for name, value in headers.items()} == {
        "X-A": "people",
        "x_b": "b",
    }
    assert [(one.at.line, one.at.column) for one in headers.values()] == [(2, 3), (3, 3)]
    assert [one.constant for one in headers.values()] == [False, True]
    assert good(Many, "").headers is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('headers = "x"\n', "1:1: file: headers: must be an object: { Name = value }"),
        ("headers {\n  a {}\n}\n", '2:3: headers: unknown block "a"'),
        ('headers "x" {}\n', '1:1: headers "x": takes no label'),
        (
            "headers {}\nheaders {}\n",
            "2:1: headers: only one headers block is allowed here; ",
        ),
        ("headers {\n  A = peer.x\n}\n", "2:7: headers: A: there is no peer.x; there are "),
        ("heders {}\n", '1:1: file: unknown block "heders"; did you mean "headers"?'),
    ],
)
def test_what_is_wrong_with_such_a_block(text: str, problem: str) -> None:
    """Errors stand at their place."""
    _, [found] = read(Many, text)
    assert found.startswith(problem)


def test_the_fields_are_those_of_a_peer() -> None:
    """Every attribute of IVerifiedPeer but the certificates is there, and has a value."""
    others = {"attributes", "certificates", "identity", "leaf", "path", "to_dict"}
    assert set(PEER_FIELDS) == set(IVerifiedPeer) - others
    credential = Authority.create("CA").issue("alice", dns_names=["a.example"])
    peer = VerifiedPeer(
        (credential.certificate,),
        "rule",
        IPv6Address("TCP", "::1", 5),
        None,
        "TLSv1.3",
        "C",
        None,
        None,
    )
    as_json = peer.to_dict()
    renamed = {"serial": "serial_number", "sha256": "fingerprint_sha256"}
    for name, kind in PEER_FIELDS.items():
        value = peer_value(peer, name)
        assert isinstance(value, tuple) == (kind == "list")
        expected = as_json[renamed.get(name, name)]
        if name == "resumed":
            expected = "false"
        assert (list(value) if isinstance(value, tuple) else value) == expected


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("64KiB", 65536), ("10MiB", 10 << 20), ("1GiB", 1 << 30)]
)
def test_sizes_have_binary_units(text: str, size: int) -> None:
    """Sizes have binary units."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0B", "1", "1KB", "-1B", "1.5MiB", "1 MiB", "\u0661KiB"])
def test_what_is_no_size(text: str) -> None:
    """Anything else is refused in words that help."""
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)
