"""Which proxies may say for whom they connect, and how a file says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from mtlsgate.gate.trusted_proxies import TrustedProxies
from mtlsgate.load.overview import describe
from mtlsgate.load.trusted_proxies import read_network
from tests.kits.pki import Site, server, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def v4(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 1)


def v6(host: str) -> IPv6Address:
    return IPv6Address("TCP", host, 1)


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        (["10.0.0.0/8"], v4("10.255.255.255"), True),
        (["10.0.0.0/8"], v4("11.0.0.0"), False),
        (["192.0.2.7"], v4("192.0.2.7"), True),
        (["192.0.2.7"], v4("192.0.2.8"), False),
        (["192.0.2.7", "2001:db8::/32"], v6("2001:db8:ffff::1"), True),
        (["192.0.2.7", "2001:db8::/32"], v6("2001:db9::1"), False),
        # IPv4 is IPv4, whatever the socket calls it, on either side.
        (["10.0.0.0/8"], v6("::ffff:10.1.2.3"), True),
        (["10.0.0.0/8"], v6("::ffff:11.1.2.3"), False),
        (["::ffff:10.0.0.0/104"], v4("10.1.2.3"), True),
        (["::ffff:10.0.0.0/104"], v6("::ffff:10.1.2.3"), True),
        (["::ffff:10.0.0.0/104"], v4("11.1.2.3"), False),
        (["10.0.0.0/8"], v6("::10.1.2.3"), False),
        (["fe80::/64"], v6("fe80::1%eth0"), True),
        (["::1"], v4("127.0.0.1"), False),
        ([], v4("127.0.0.1"), False),
        # Whoever can connect to a unix socket is trusted.
        ([], UNIXAddress(None), True),
        ([], UNIXAddress(b"/run/client"), True),
        (["10.0.0.0/8"], HostnameAddress(b"10.0.0.1", 1), False),
        (["10.0.0.0/8"], v4("proxy.example"), False),
    ],
)
def test_trusted_networks_match_their_addresses(
    networks: list[str], address: IAddress, trusted: bool
) -> None:
    assert TrustedProxies(tuple(map(read_network, networks))).trusts(address) is trusted


def proxied(networks: str | None, hosts: str = '["127.0.0.1:0"]', names: str = "") -> str:
    """:returns: a server whose trusted proxies stand in its fourth line."""
    stated = "" if networks is None else f"trusted_proxies = {networks}"
    return server(
        hosts=hosts,
        protocol=f'proxy_protocol = "required"\n{stated}\n{names}\nprotocol "echo" {{}}',
    )


@pytest.mark.parametrize(
    ("networks", "hosts", "said"),
    [
        (
            '["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]',
            '["127.0.0.1:0"]',
            "10.0.0.0/8 or 192.0.2.7/32 or 2001:db8::/32",
        ),
        ('["::ffff:192.0.2.0/120"]', '["127.0.0.1:0"]', "192.0.2.0/24"),
        # Half of everybody is somebody's choice.
        ('["0.0.0.0/1"]', '["127.0.0.1:0"]', "0.0.0.0/1"),
        (None, '["unix:a.sock", "unix:b.sock"]', "its unix socket"),
        ("[]", '["unix:a.sock"]', "its unix socket"),
        ('["10.0.0.1"]', '["unix:a.sock", "127.0.0.1:0"]', "10.0.0.1/32"),
    ],
)
def test_the_overview_says_which_proxies_are_trusted(
    here: Site, networks: str | None, hosts: str, said: str
) -> None:
    """And the overview says who connects."""
    [loaded] = here.load(proxied(networks, hosts)).servers
    assert loaded.proxies is not None
    assert f"; for clients of proxies at {said}; admits by " in describe(loaded, ["here"])


def test_not_asked_for(here: Site) -> None:
    """Without proxy_protocol nobody is a proxy."""
    [loaded] = here.load(server()).servers
    assert loaded.proxies is None
    assert "prox" not in describe(loaded, ["here"])


NEEDS = (
    "3:1: server: proxy_protocol needs trusted_proxies: name the addresses or networks of the "
    'proxies, as in ["10.0.0.0/8"]'
)
EVERYBODY = " makes it everybody, so any client could claim any address: name the proxies"
NO_ADDRESS = " is no IP address or network: "


@pytest.mark.parametrize(
    ("networks", "problem"),
    [
        (None, NEEDS),
        ("[]", NEEDS),
        ('["0.0.0.0/0"]', '4:20: server: trusted_proxies: "0.0.0.0/0"' + EVERYBODY),
        ('["::/0"]', '4:20: server: trusted_proxies: "::/0"' + EVERYBODY),
        (
            '["::ffff:0.0.0.0/96"]',
            '4:20: server: trusted_proxies: "::ffff:0.0.0.0/96"' + EVERYBODY,
        ),
        (
            '["0.0.0.0/1", "10.0.0.1", "128.0.0.0/1"]',
            '4:45: server: trusted_proxies: "128.0.0.0/1"' + EVERYBODY,
        ),
        (
            '["10.0.0.1/8"]',
            '4:20: server: trusted_proxies: "10.0.0.1/8" has bits beyond its prefix: write '
            '"10.0.0.0/8"',
        ),
        (
            '["fe80::1%eth0"]',
            '4:20: server: trusted_proxies: "fe80::1%eth0" has a zone: leave it out',
        ),
        (
            '["10.0.0.1", "balancer"]',
            '4:32: server: trusted_proxies: "balancer"'
            + NO_ADDRESS
            + "'balancer' does not appear to be an IPv4 or IPv6 address",
        ),
        (
            '["10.0.0.0/255.0.0.0"]',
            '4:20: server: trusted_proxies: "10.0.0.0/255.0.0.0"'
            + NO_ADDRESS
            + "the length of its prefix is no number",
        ),
        (
            '["10.0.0.0/"]',
            '4:20: server: trusted_proxies: "10.0.0.0/"'
            + NO_ADDRESS
            + "the length of its prefix is no number",
        ),
        (
            '["10.0.0.0/33"]',
            '4:20: server: trusted_proxies: "10.0.0.0/33"'
            + NO_ADDRESS
            + "'10.0.0.0/33' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            '["010.0.0.1"]',
            '4:20: server: trusted_proxies: "010.0.0.1"'
            + NO_ADDRESS
            + "'010.0.0.1' does not appear to be an IPv4 or IPv6 address",
        ),
        (
            '["10.0.0.1:8443"]',
            '4:20: server: trusted_proxies: "10.0.0.1:8443"'
            + NO_ADDRESS
            + "'10.0.0.1:8443' does not appear to be an IPv4 or IPv6 address",
        ),
        ('[""]', "4:20: server: trusted_proxies: is empty: write a value, or remove it"),
        (
            '"10.0.0.1"',
            "4:19: server: trusted_proxies: must be a list, not a string: put it in [brackets]",
        ),
    ],
)
def test_a_wrong_network_is_refused_with_what_to_write(
    here: Site, networks: str | None, problem: str
) -> None:
    """Each is an error that says where, and what to write."""
    [said] = here.problems(proxied(networks))
    assert said.startswith(problem)


def test_other_hosts_need_them(here: Site) -> None:
    """One unix socket among the hosts does not do."""
    assert here.problems(proxied(None, '["unix:a.sock", "127.0.0.1:0"]')) == [NEEDS]


@pytest.mark.parametrize("networks", ['["10.0.0.0/8"]', "[]"])
def test_without_proxy_protocol(here: Site, networks: str) -> None:
    text = server(protocol=f'trusted_proxies = {networks}\nprotocol "echo" {{}}')
    assert here.problems(text) == [
        '3:1: server: trusted_proxies has no effect without proxy_protocol = "required"'
    ]


def test_other_values(here: Site) -> None:
    """It is required or not there: to guess whether a header comes is to be deceived."""
    text = proxied('["10.0.0.0/8"]').replace('"required"', '"optional"')
    [said] = here.problems(text)
    assert said.startswith("3:18: server: proxy_protocol: ")
    assert '"required"' in said


def test_twisteds_own(here: Site) -> None:
    """Twisted's endpoint would take a header from anybody, before the gate's."""
    found = here.problems(proxied('["10.0.0.0/8"]', '["unix:a.sock", "haproxy:unix:b.sock"]'))
    assert "a haproxy: endpoint believes everybody: set proxy_protocol" in found[0]


def test_of_a_server_in_error(here: Site) -> None:
    """Lists of a server that lacks a block are not taken for its hosts."""
    text = 'server_names = ["a.example"]\ntrusted_proxies = ["10.0.0.0/8"]'
    assert here.problems(server(protocol=text)) == ["1:1: server: the protocol block is missing"]


SHARED = '["127.0.0.1:7443"]'


def named(name: str, networks: str | None) -> str:
    if networks is None:
        return server(hosts=SHARED, protocol=f'server_names = ["{name}"]\n\n\nprotocol "echo" {{}}')
    return proxied(networks, SHARED, f'server_names = ["{name}"]')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, '["10.0.0.0/8"]'),
        ('["10.0.0.0/8"]', None),
        ('["10.0.0.0/8"]', '["10.0.0.0/8", "192.0.2.7"]'),
    ],
)
def test_servers_on_one_address_disagree(here: Site, one: str | None, other: str | None) -> None:
    """The header comes before the name, so they must agree."""
    [said] = here.problems(named("a.example", one) + named("b.example", other))
    assert said == (
        "12:10: server: hosts: 127.0.0.1:7443 is read with another proxy_protocol or other "
        "trusted_proxies: see line 2, column 10; servers that share an address must agree on them"
    )


def test_servers_on_one_address_agree(here: Site) -> None:
    """The order does not matter."""
    epoch = here.load(
        named("a.example", '["10.0.0.0/8", "192.0.2.7"]')
        + named("b.example", '["192.0.2.7", "10.0.0.0/8"]')
    )
    assert len(epoch.servers) == 2
