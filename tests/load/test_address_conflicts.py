"""Which servers may listen where, and which answers to which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.pki import Site, server, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def named(names: str | None, hosts: str = '["127.0.0.1:7443"]', default: str = "") -> str:
    """:returns: a server of nine lines; its hosts stand in its second line, its
    names in its third."""
    stated = "" if names is None else f"server_names = {names}"
    return server(hosts=hosts, protocol=f'{stated}\nprotocol "echo" {{}}\n{default}')


@pytest.mark.parametrize(
    "servers",
    [
        [named('["a.example"]'), named('["b.example"]')],
        [named('["a.example", "b.example"]'), named('["*.b.example"]')],
        # Exact before wildcard, so these are not the same.
        [named('["a.b.example"]'), named('["*.b.example"]')],
        [named('["a.example"]'), named('["b.example"]', default="default_server = true")],
        [
            named('["a.example"]', '["127.0.0.1:7443"]'),
            named('["a.example"]', '["127.0.0.1:7444"]'),
        ],
        [
            named('["a.example"]', '["127.0.0.1:7443"]'),
            named('["a.example"]', '["127.0.0.2:7443"]'),
        ],
        [
            named('["a.example"]', '["127.0.0.1:7443", "127.0.0.1:7444"]'),
            named('["b.example"]', '["127.0.0.1:7443"]'),
            named('["c.example"]', '["127.0.0.1:7444"]'),
        ],
        # A port that the system chooses is another each time.
        [named(None, '["127.0.0.1:0"]'), named(None, '["127.0.0.1:0"]')],
        [named('["a.example"]', '["unix:a.sock"]'), named('["b.example"]', '["unix:b.sock"]')],
        [named('["*.example"]', default="default_server = true")],
        [named("[]", default="default_server = false")],
    ],
)
def test_addresses_that_do_not_conflict_are_legal(here: Site, servers: list[str]) -> None:
    epoch = here.load("".join(servers))
    assert len(epoch.servers) == len(servers)


A, B = named('["a.example"]'), named('["b.example"]')
BARE = (
    "tls: no server_certificate block: a self-signed one is made only where every host is "
    "loopback; name a certificate and its key"
)
TAKEN = "11:10: server: hosts: 127.0.0.1:7443 "


@pytest.mark.parametrize(
    ("servers", "problems"),
    [
        (
            [named(None), named(None)],
            [
                TAKEN + "is taken: see line 2, column 10; servers that share an address need "
                "server_names each"
            ],
        ),
        (
            [A, named(None)],
            [
                TAKEN + "is taken: see line 2, column 10; servers that share an address need "
                "server_names each"
            ],
        ),
        (
            [named(None, default="default_server = true"), B],
            [
                TAKEN + "is taken: see line 2, column 10; servers that share an address need "
                "server_names each"
            ],
        ),
        ([A, A], [TAKEN + 'has a server for "a.example" already: see line 2, column 10']),
        (
            [A, named('["c.example", "A.EXAMPLE."]')],
            [TAKEN + 'has a server for "a.example" already: see line 2, column 10'],
        ),
        (
            [named('["*.b.example"]'), named('["*.B.example"]')],
            [TAKEN + 'has a server for "*.b.example" already: see line 2, column 10'],
        ),
        (
            [
                named('["a.example"]', default="default_server = true"),
                named('["b.example"]', default="default_server = true"),
            ],
            [TAKEN + "has a default_server already: see line 2, column 10"],
        ),
        (
            [A, named('["b.example"]', '["0.0.0.0:7443"]')],
            ["11:10: server: hosts: 0.0.0.0:7443 is taken: see line 2, column 10", f"15:1: {BARE}"],
        ),
        (
            [named('["a.example"]', '["0.0.0.0:7443"]'), B],
            [TAKEN + "is taken: see line 2, column 10", f"6:1: {BARE}"],
        ),
        (
            [named('["a.example"]', '["127.0.0.1:7443", "127.0.0.1:7443"]')],
            ["2:28: server: hosts: 127.0.0.1:7443 is taken: see line 2, column 10"],
        ),
        (
            [named('["a.example"]', '["unix:a.sock"]')] * 2,
            [
                '11:10: server: hosts: "unix:a.sock" has a server for "a.example" already: see '
                "line 2, column 10"
            ],
        ),
        (
            [A, named('["b.example"]', default='starttls = "smtp"')],
            [
                TAKEN + "is read with another starttls: see line 2, column 10; servers that share "
                "an address must agree on it"
            ],
        ),
        # The second has the third's name, which is told at the third.
        (
            [A, B, named('["b.example"]')],
            [
                '20:10: server: hosts: 127.0.0.1:7443 has a server for "b.example" already: see '
                "line 11, column 10"
            ],
        ),
    ],
)
def test_addresses_taken_twice(here: Site, servers: list[str], problems: list[str]) -> None:
    assert sorted(here.problems("".join(servers))) == sorted(problems)


@pytest.mark.parametrize(
    ("names", "problems"),
    [
        ('[""]', ["3:17: server: server_names: is empty: write a value, or remove it"]),
        ('["."]', ['3:17: server: server_names: "." is empty']),
        (
            '["*"]',
            [
                '3:17: server: server_names: "*" a "*" is one whole label, and the first: write '
                '"*.b.example"'
            ],
        ),
        (
            '["a.*.example"]',
            [
                '3:17: server: server_names: "a.*.example" a "*" is one whole label, and the '
                'first: write "*.b.example"'
            ],
        ),
        (
            '["bücher.example"]',
            [
                '3:17: server: server_names: "bücher.example" is not ASCII: write an '
                "internationalized name with its A-labels, xn--…"
            ],
        ),
        (
            '["a.example", "b.example", "A.example."]',
            ['3:43: server: server_names: "A.example." is listed twice'],
        ),
        (
            '"a.example"',
            ["3:16: server: server_names: must be a list, not a string: put it in [brackets]"],
        ),
        (
            "[5]",
            ["3:17: server: server_names: must be a string, not a whole number: put it in quotes"],
        ),
    ],
)
def test_names_in_error(here: Site, names: str, problems: list[str]) -> None:
    assert here.problems(named(names)) == problems


def test_a_server_is_called_by_its_first_name(here: Site) -> None:
    """... where it has no label: its address is that of others, too."""
    epoch = here.load(A + B + server(label='"c"', hosts='["127.0.0.1:7444"]'))
    assert [one.gate.name for one in epoch.servers] == ["a.example", "b.example", "c"]


def test_many_servers(here: Site) -> None:
    """Each is compared with those of its port only, so a thousand names load at once."""
    servers = [named(f'["{number}.example"]') for number in range(60)]
    assert len(here.load("".join(servers)).servers) == 60
