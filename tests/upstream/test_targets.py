"""
What a target's text means, and what it dials.
"""

from __future__ import annotations

import pytest
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.upstream.dialling import SocketEndpoint
from mtlsgate.upstream.targets import Listed, Target, parse_target, parse_targets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", Target("127.0.0.1:80", True, "127.0.0.1", 80)),
        ("127.8.9.10:80", Target("127.8.9.10:80", True, "127.8.9.10", 80)),
        ("10.0.0.1:65535", Target("10.0.0.1:65535", False, "10.0.0.1", 65535)),
        ("0.0.0.0:1", Target("0.0.0.0:1", False, "0.0.0.0", 1)),
        ("[::1]:5432", Target("[::1]:5432", True, "::1", 5432)),
        ("[2001:db8::1]:1", Target("[2001:db8::1]:1", False, "2001:db8::1", 1)),
        ("[fe80::1%eth0]:1", Target("[fe80::1%eth0]:1", False, "fe80::1%eth0", 1)),
        ("localhost:1", Target("localhost:1", True, "localhost", 1)),
        ("LocalHost.:1", Target("LocalHost.:1", True, "LocalHost.", 1)),
        ("localhost.example:1", Target("localhost.example:1", False, "localhost.example", 1)),
        ("db_1.internal:5432", Target("db_1.internal:5432", False, "db_1.internal", 5432)),
        ("tcp:5432", Target("tcp:5432", False, "tcp", 5432)),
        ("unix:/run/x.sock", Target("unix:/run/x.sock", True, path="/run/x.sock")),
        (
            "unix:/run/x:timeout=3",
            Target(
                "unix:/run/x:timeout=3", True, path="/run/x", description="unix:/run/x:timeout=3"
            ),
        ),
        (
            r"unix:path=/run/a\:b",
            Target(
                r"unix:path=/run/a\:b", True, path="/run/a:b", description=r"unix:path=/run/a\:b"
            ),
        ),
        (
            "tcp:host=127.0.0.1:port=80",
            Target(
                "tcp:host=127.0.0.1:port=80",
                True,
                "127.0.0.1",
                80,
                description="tcp:host=127.0.0.1:port=80",
            ),
        ),
        (
            "tcp:example.com:80:timeout=3",
            Target(
                "tcp:example.com:80:timeout=3",
                False,
                "example.com",
                80,
                description="tcp:example.com:80:timeout=3",
            ),
        ),
    ],
)
def test_each_way_to_write_a_target_is_read(text: str, expected: Target) -> None:
    """Each way to write a target means what it says, and is local only if nothing leaves
    the machine."""
    assert parse_target(text) == expected
    assert str(parse_target(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'write "host:port"'),
        ("example", 'write "host:port"'),
        ("example:http", 'write "host:port"'),
        ("::1:5432", 'write "host:port"'),
        ("http://example/", 'write "host:port"'),
        (":80", "not a host name"),
        ("a b:80", "not a host name"),
        ("-a.b:80", "not a host name"),
        ("bücher.example:80", "A-labels"),
        ("127.1:80", "neither an IPv4 address nor a host name"),
        ("256.0.0.1:80", "neither an IPv4 address nor a host name"),
        ("1:2", "neither an IPv4 address nor a host name"),
        ("[example]:80", "not an IPv6 address"),
        ("[127.0.0.1]:80", "not an IPv6 address"),
        ("a:0", "from 1 to 65535"),
        ("a:65536", "from 1 to 65535"),
        ("a:" + "9" * 5000, "from 1 to 65535"),
        ("unix:run.sock", "must begin with /"),
        ("unix:", "must begin with /"),
        ("unix:/" + "a" * 107, "108 bytes long"),
        ("unix:/a\0b", "NUL"),
        ("tcp:host=example.com:timeout=3", "needs a host and a port"),
        ("tcp:example.com:http", "needs a host and a port"),
        ("tls:example.com:443", "a tls block"),
        ("ssl:example.com:443:x=1", "a tls block"),
    ],
)
def test_a_wrong_target_is_refused_with_what_to_write(text: str, problem: str) -> None:
    """What is no target is refused in one line that says what to write."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_target(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.0.0.1:80", SocketEndpoint),
        ("[::1]:80", SocketEndpoint),
        ("example.com:80", HostnameEndpoint),
        ("unix:/x", SocketEndpoint),
        ("unix:/x:timeout=3", UNIXClientEndpoint),
        ("tcp:example.com:80:timeout=3", TCP4ClientEndpoint),
    ],
)
def test_each_target_has_its_endpoint(text: str, kind: type) -> None:
    """Addresses are dialled by the gate, names and endpoint strings by Twisted's endpoints."""
    endpoint = parse_target(text).endpoint(MemoryReactorClock(), 5.0)
    assert isinstance(endpoint, kind)
    assert IStreamClientEndpoint.providedBy(endpoint)


@pytest.mark.parametrize(
    "text", ["tcp:example.com:80:timeout=soon", "tcp:example.com:80:nonsense=1", "tcp:a:80:b:c"]
)
def test_endpoint_strings_in_error(text: str) -> None:
    """An endpoint string that Twisted does not take is one line at load, not a traceback
    at the first connection."""
    with pytest.raises(ValueError, match="no endpoint that Twisted understands") as caught:
        parse_target(text).endpoint(MemoryReactorClock(), 5.0)
    assert str(caught.value).isprintable()


LOCAL = parse_target("127.0.0.1:80")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("127.0.0.1:80", [Listed(LOCAL)]),
        (["127.0.0.1:80"], [Listed(LOCAL)]),
        ({"address": "127.0.0.1:80", "weight": 3}, [Listed(LOCAL, 3)]),
        (
            ["127.0.0.1:80", {"address": "[::1]:80", "backup": True}],
            [Listed(LOCAL), Listed(parse_target("[::1]:80"), 1, True)],
        ),
        ([{"address": "127.0.0.1:80", "weight": None, "backup": None}], [Listed(LOCAL)]),
    ],
)
def test_a_list_may_hold_objects(written: object, expected: list[Listed[Target]]) -> None:
    """With a weight, or as a backup."""
    assert parse_targets(written, parse_target) == expected


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ([], "must be a string, or a list of strings that is not empty"),
        ({}, "must be a string, or a list of strings that is not empty"),
        ([{"weight": 3}], 'an object with an "address" may stand for a string'),
        (["127.0.0.1:80", 80], "must be a string, or a list"),
        (["127.0.0.1:80", {"address": "127.0.0.1:80"}], '"127.0.0.1:80" is listed twice'),
        (
            {"address": "127.0.0.1:80", "wieght": 3},
            '"127.0.0.1:80": unknown "wieght"; did you mean "weight"? (there are: address',
        ),
        ({"address": "127.0.0.1:80", "weight": 0}, "weight must be a whole number from 1 to 100"),
        ({"address": "127.0.0.1:80", "weight": 101}, "weight must be a whole number from"),
        ({"address": "127.0.0.1:80", "weight": 1.5}, "weight must be a whole number from"),
        ({"address": "127.0.0.1:80", "weight": True}, "weight must be a whole number from"),
        ({"address": "127.0.0.1:80", "backup": "yes"}, "backup must be true or false"),
        ({"address": "127.0.0.1:80", "backup": True}, "all are backups: at least one must not be"),
    ],
)
def test_a_list_in_error(written: object, problem: str) -> None:
    """Each is said in one line."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_targets(written, parse_target)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()
