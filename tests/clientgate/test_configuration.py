"""
The ``client`` block: what it takes, what it refuses, and what it warns of.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.load.addresses import UnixAddress
from mtlsgate.load.loading import load
from mtlsgate.load.overview import overview
from tests.kits.keystores import keystore
from tests.kits.pki import NOW, Site, pki, server, site

TLS = """\
server_ca_certificate_file = "root.crt"
client_certificate_file = "client.crt"
client_private_key_file = "client.key"
"""


def client(
    hosts: str = '["127.0.0.1:6379"]',
    target: str = '"gate.example:8443"',
    tls: str = TLS,
    rest: str = "",
    label: str = "redis",
) -> str:
    """:returns: a block; its hosts stand in its second line, its target in its third."""
    return f'client "{label}" {{\nhosts = {hosts}\ntarget = {target}\n{rest}\ntls {{\n{tls}}}\n}}\n'


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def test_a_file_may_have_clients_alone(here: Site) -> None:
    """No server is needed; and several client gates may be in one file."""
    epoch = here.load(client() + client(hosts='["[::1]:6380"]', label="other"))
    assert epoch.servers == ()
    assert [one.gate.name for one in epoch.clients] == ["redis", "other"]
    assert epoch.warnings == ()


def test_clients_stand_beside_servers(here: Site) -> None:
    """Both are in the overview, with their certificates."""
    text = "\n".join(overview(here.load(server() + client()), NOW))
    assert "redis: listening on 127.0.0.1:6379; client gate in plaintext; connects to" in text
    assert "client certificate" in text
    assert "target's CA" in text


@pytest.mark.parametrize(
    "hosts",
    [
        "localhost:6379",
        "127.0.0.2:6379",
        "[::1]:6379",
        "unix:redis.sock",
        "tcp:port=6379:interface=127.0.0.1",
        "systemd:domain=UNIX:name=redis",
    ],
)
def test_local_hosts_are_legal(hosts: str, here: Site) -> None:
    """Loopback addresses and unix sockets, however they are written."""
    assert here.load(client(hosts=f'["{hosts}"]')).clients


@pytest.mark.parametrize(
    "hosts",
    ["*:6379", "6379", "0.0.0.0:6379", "tcp:6379", "systemd:domain=INET:index=0", "systemd:redis"],
)
def test_hosts_that_others_can_reach_are_refused(hosts: str, here: Site) -> None:
    """Unless the block says that this is meant."""
    [problem] = here.problems(client(hosts=f'["{hosts}"]'))
    assert problem.startswith('2:10: client "redis": hosts: ')
    assert "set unsafe_listen = true" in problem
    assert here.load(client(hosts=f'["{hosts}"]', rest="unsafe_listen = true")).clients


@pytest.mark.parametrize(
    ("hosts", "rest", "mode"),
    [
        ("unix:a", "", 0o600),
        ("unix:a:mode=660", "", 0o660),
        ("unix:a", "allow_uids = [0]", 0o666),
        ("unix:a:mode=600", "allow_uids = [0]", 0o600),
    ],
)
def test_who_may_open_the_socket(hosts: str, rest: str, mode: int, here: Site) -> None:
    """Only the gate's user, unless the file says more or the kernel tells who connects."""
    [loaded] = here.load(client(hosts=f'["{hosts}"]', rest=rest)).clients
    [address] = loaded.hosts[0].addresses
    assert isinstance(address, UnixAddress)
    assert address.mode == mode


def test_users_are_numbers_or_names(here: Site) -> None:
    """A name is looked up when the configuration is loaded."""
    [loaded] = here.load(client(hosts='["unix:a"]', rest='allow_uids = ["root", 1000]')).clients
    assert loaded.gate.uids == frozenset({0, 1000})


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (client(hosts="[]"), '2:1: client "redis": hosts is empty'),
        (client(hosts='["nonsense"]'), '2:10: client "redis": hosts: "nonsense": not an address'),
        (client(target='"nonsense"'), '3:10: client "redis": target: "nonsense": write'),
        (client(target="[]"), '3:10: client "redis": target: must be a string'),
        (client(tls=""), "5:1: tls: no CA to verify the target with"),
        (
            client(target='"unix:/run/x.sock"'),
            '3:10: client "redis": target: the target has no host name: set server_name',
        ),
        (
            client(tls=TLS.replace("client.key", "server.key")),
            '8:1: client "redis": client_private_key_file: "server.key" the private key is not',
        ),
        (
            client(tls=TLS.replace("client.crt", "none.crt")),
            '7:1: client "redis": client_certificate_file: "none.crt" no such file',
        ),
        (client(rest="max_connections = 0"), '4:1: client "redis": max_connections must be'),
        (client(rest="allow_uids = [0]"), '4:1: client "redis": allow_uids needs unix sockets'),
        (client(hosts='["unix:a"]', rest="allow_uids = []"), '4:1: client "redis": allow_uids is'),
        (
            client(hosts='["unix:a"]', rest='allow_uids = ["no such user"]'),
            '4:15: client "redis": allow_uids: this machine has no user "no such user"',
        ),
        (
            client(hosts='["unix:a"]', rest="allow_uids = [-1]"),
            '4:15: client "redis": allow_uids: write numbers or names',
        ),
        (
            client(hosts='["unix:a"]', rest="allow_uids = [true]"),
            '4:15: client "redis": allow_uids: write numbers or names',
        ),
        (
            client(tls=TLS.replace("server_ca_certificate_file", "ca_certificate_file")),
            '6:1: tls: unknown attribute "ca_certificate_file"; did you mean "server_ca_certif',
        ),
        (
            client(tls=TLS + 'cert = "x"\n'),
            '9:1: tls: unknown attribute "cert"; did you mean "client_certificate_file"?',
        ),
        (client(rest="unsafe_target = true"), '4:1: client "redis": unknown attribute "unsafe_tar'),
        (client().replace('client "redis"', "client"), "1:1: client: needs a label"),
        ('client "redis" {\n  hosts = ["127.0.0.1:1"]\n}\n', '1:1: client "redis": target is miss'),
        (
            client() + client(label="other"),
            '12:10: client "other": hosts: 127.0.0.1:6379 is taken: see line 2, column 10',
        ),
        (client() + client(hosts='["127.0.0.1:1"]'), '11:1: client "redis": this label is taken'),
    ],
)
def test_mistakes_are_named(block: str, problem: str, here: Site) -> None:
    """With their place, and what to do."""
    problems = here.problems(block)
    assert any(one.startswith(problem) for one in problems), problems


def test_a_server_keeps_its_address_and_name(here: Site) -> None:
    """A client gate may share neither."""
    door = server(hosts='["127.0.0.1:6379"]')
    [problem] = here.problems(client() + door)
    assert "127.0.0.1:6379 is taken: see line" in problem
    [problem] = here.problems(server(label="redis") + client())
    assert problem.endswith("a server has this name: logs and metrics could not tell them apart")


def test_certificates_that_end_are_warned_of(here: Site) -> None:
    """The client's own, of which a target would say no more than an alert."""
    text = client(tls=TLS.replace("client.", "server."))
    warnings = [str(one) for one in here.load(text).warnings]
    assert any("extended key usage does not include clientAuth" in one for one in warnings)
    later = NOW.replace(year=NOW.year + 30)
    warnings = [str(one) for one in here.load(client(), later).warnings]
    assert any("the client certificate expired on" in one for one in warnings)
    assert any("the target's CA expired on" in one for one in warnings)


def test_a_keystore_is_looked_at_like_files(here: Site) -> None:
    """Of the certificate that is in it the same is said, at its line."""
    (here.directory / "app.p12").write_bytes(keystore(pki().client))
    (here.directory / "app.p12").chmod(0o644)
    text = client(
        tls='server_ca_certificate_file = "root.crt"\nclient_pkcs12_file = "app.p12"\n'
        'client_pkcs12_passphrase = "secret"\n'
    )
    warnings = [str(one) for one in here.load(text, NOW.replace(year=NOW.year + 30)).warnings]
    mine = [one for one in warnings if "/gate.hcl:7:1: " in one]
    assert any("the client certificate expired on" in one for one in mine)
    assert any('"app.p12" may be read by everybody on this machine' in one for one in mine)


def test_no_certificate_is_warned_of(here: Site) -> None:
    """It may be meant, but it is not what a client gate is for."""
    [warning] = here.load(client(tls='server_ca_certificate_file = "root.crt"\n')).warnings
    assert "shows no certificate" in str(warning)


def test_a_key_that_everybody_may_read_is_warned_of(here: Site) -> None:
    """As that of a server is."""
    (here.directory / "client.key").chmod(0o644)
    [warning] = here.load(client()).warnings
    assert "may be read by everybody on this machine" in str(warning)


def test_settings_hold_for_clients(here: Site) -> None:
    """What a block does not set comes from the settings."""
    settings = 'settings {\nmax_connections = 7\nidle_timeout = "9s"\non_reload = "keep"\n}\n'
    [loaded] = here.load(settings + client(rest="max_connections = 3")).clients
    terms = loaded.gate.terms
    assert terms.limits.max_connections == 3
    assert terms.idle_timeout == 9
    assert not terms.judged_on_reload


def test_several_files_are_merged(here: Site) -> None:
    """A later file may change one attribute of a client gate."""
    here.write("a.hcl", client())
    here.write("b.hcl", 'client "redis" {\n  target = "other.example:1"\n}\n')
    paths = [str(here.directory / name) for name in ("a.hcl", "b.hcl")]
    [loaded] = load(paths, {}, lambda: NOW).clients
    assert [one.text for one in loaded.gate.targets] == ["other.example:1"]


def test_the_systems_trust_store_is_meant_in_each_of_several_files(here: Site) -> None:
    """And not a file of that name beside the one that it stands in."""
    here.write("a.hcl", client())
    tls = 'tls {\nserver_ca_certificate_file = "system"\n}'
    here.write("b.hcl", f'client "redis" {{\n{tls}\n}}\n')
    paths = [str(here.directory / name) for name in ("a.hcl", "b.hcl")]
    [loaded] = load(paths, {}, lambda: NOW).clients
    assert loaded.gate.tls.anchors is None
