"""
The admin block: where the endpoint may be, and what it must ask for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.errors import ConfigError, CredentialError
from mtlsgate.load.addresses import SocketAddress
from mtlsgate.load.admin_endpoint import AdminEndpoint, endpoint_of
from mtlsgate.load.overview import overview
from mtlsgate.run.epoch_diff import epoch_diff
from tests.kits.pki import NOW, server, site

TOKEN = "0123456789abcdef"
SERVER = server(label='"door"')


def admin(text: str) -> str:
    """:returns: a file whose admin block begins in line 1."""
    return f"admin {{\n{text}\n}}\n{SERVER}"


def test_a_unix_socket(tmp_path: Path) -> None:
    """Relative to the configuration; no token is needed, as its mode is the owner's."""
    endpoint = site(tmp_path).load(admin('listen = "unix:gate.sock"')).admin
    assert endpoint == AdminEndpoint("unix:gate.sock", tmp_path / "gate.sock")
    absolute = site(tmp_path).load(admin('listen = "unix:/run/gate.sock"')).admin
    assert absolute is not None
    assert absolute.places == (Path("/run/gate.sock"),)


@pytest.mark.parametrize("listen", ["127.0.0.1:9090", "[::1]:9090", "127.8.9.1:9090"])
def test_loopback_with_a_token(tmp_path: Path, listen: str) -> None:
    """A loopback address with a token, inline or in a file."""
    place = site(tmp_path)
    place.write("token", f"{TOKEN}\n")
    (tmp_path / "token").chmod(0o600)
    for token in (f'token = "{TOKEN}"', 'token_file = "token"'):
        endpoint = place.load(admin(f'listen = "{listen}"\n{token}')).admin
        assert endpoint is not None
        assert endpoint.token == TOKEN.encode()
        assert [str(one) for one in endpoint.places] == [listen]
        assert TOKEN not in repr(endpoint)
        assert TOKEN not in repr(place.load(admin(f'listen = "{listen}"\n{token}')))


def test_no_block_is_no_endpoint(tmp_path: Path) -> None:
    """Who does not ask for it does not get it."""
    assert site(tmp_path).load(SERVER).admin is None


@pytest.mark.parametrize(
    "listen",
    [
        "*:9090", "9090", "0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090", "tcp:9090",
        "systemd:domain=UNIX:index=0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("token", ["", f'token = "{TOKEN}"'])
def test_anything_else_is_refused(tmp_path: Path, listen: str, token: str) -> None:
    """Plain HTTP is for this machine alone, with a token or without."""
    found = site(tmp_path).problems(admin(f'listen = "{listen}"\n{token}'))
    [problem] = [one for one in found if one.startswith("2:")]
    assert f'admin: listen: "{listen}": only a unix socket or a loopback address is safe' in problem
    assert 'protocol "admin"' in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'listen = "127.0.0.1:9090"',
            "1:1: admin: over TCP a token is needed, because every user of this machine can "
            'connect: set token_file, or listen = "unix:/run/mtlsgate.sock"',
        ),
        (
            'listen = "127.0.0.1:9090"\ntoken = ""',
            "3:9: admin: token: is empty: write a value, or remove it",
        ),
        (
            'listen = "127.0.0.1:9090"\ntoken = "123456789012345"',
            "3:1: admin: token: 15 characters are too few: 16 at least, as openssl rand -hex 32 "
            "makes them",
        ),
        (
            'listen = "127.0.0.1:9090"\ntoken = "0123456789 abcdef"',
            "3:1: admin: token: letters, digits and -._~+/ only, as openssl rand -hex 32 makes "
            "them",
        ),
        (
            'listen = "127.0.0.1:9090"\ntoken_file = "gone"',
            '3:1: admin: token_file: "gone" no such file',
        ),
        (
            'listen = "127.0.0.1:9090"\ntoken_file = "empty"',
            '3:1: admin: token_file: "empty" is empty',
        ),
        (
            'listen = "unix:gate.sock:mode=666"',
            '2:10: admin: listen: "unix:gate.sock:mode=666": takes no options: the socket\'s mode '
            "is 0600, always",
        ),
        (
            'listen = "unix:"',
            '2:10: admin: listen: "unix:": a socket without a file is open to every user: write '
            '"unix:/run/mtlsgate.sock" or "127.0.0.1:9090"',
        ),
        (
            'listen = "unix:@gate"',
            '2:10: admin: listen: "unix:@gate": a socket without a file is open to every user: '
            'write "unix:/run/mtlsgate.sock" or "127.0.0.1:9090"',
        ),
        ("", "1:1: admin: listen is missing"),
        ('listen = "unix:a"\npassword = "x"', '3:1: admin: unknown attribute "password"'),
    ],
)
def test_what_is_wrong_is_told_at_its_place(tmp_path: Path, text: str, problem: str) -> None:
    """Each mistake is one line, with what to do."""
    place = site(tmp_path)
    place.write("empty", "")
    assert place.problems(admin(text)) == [problem]


def test_a_path_must_fit(tmp_path: Path) -> None:
    """The system has room for some bytes only, and says nothing helpful."""
    [problem] = site(tmp_path).problems(admin(f'listen = "unix:/{"x" * 107}"'))
    assert "the path is too long for a socket: 107 bytes at most" in problem


def test_a_server_that_listens_there_is_told(tmp_path: Path) -> None:
    """An address of a server is taken."""
    text = f'listen = "127.0.0.1:9090"\ntoken = "{TOKEN}"'
    place = site(tmp_path)
    taken = server(hosts='["127.0.0.1:9090"]', label='"door"')
    problem = '2:10: admin: listen: "127.0.0.1:9090": a server listens there'
    assert place.problems(f"admin {{\n{text}\n}}\n{taken}") == [problem]


def test_a_token_that_everybody_reads_is_warned_of(tmp_path: Path) -> None:
    """A file that others may read is no secret."""
    place = site(tmp_path)
    place.write("token", TOKEN)
    (tmp_path / "token").chmod(0o644)
    text = admin('listen = "127.0.0.1:9090"\ntoken_file = "token"')
    [warning] = place.warnings(text)
    assert warning.startswith('3:1: admin: token_file: "token" may be read by everybody')


def test_a_token_never_shows(tmp_path: Path) -> None:
    """No message holds a token, wrong as it may be."""
    secret = "sésame, ouvre-toi"
    [problem] = site(tmp_path).problems(admin(f'listen = "127.0.0.1:1"\ntoken = "{secret}"'))
    assert "ouvre" not in problem


def test_problems_elsewhere_do_not_hide_it(tmp_path: Path) -> None:
    """All problems of a file are told at once, those of the admin block too."""
    place = site(tmp_path)
    broken = SERVER.replace("issuing.crt", "gone.crt")
    found = place.problems(f'admin {{\nlisten = "127.0.0.1:9090"\n}}\n{broken}')
    assert len(found) == 2
    unplaced = f'admin {{\nlisten = "127.0.0.1:9090"\n}}\n{SERVER}nothing = 1\nserver {{}}\n'
    assert any(": admin: over TCP a token is needed" in one for one in place.problems(unplaced))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("", 'listen = "unix:a"', ["admin endpoint at unix:a"]),
        ('listen = "unix:a"', 'listen = "unix:b"', ["admin endpoint at unix:b"]),
        ('listen = "unix:a"', "", ["no admin endpoint"]),
        ('listen = "unix:a"', 'listen = "unix:a"', []),
        (
            f'listen = "unix:a"\ntoken = "{TOKEN}"',
            f'listen = "unix:a"\ntoken = "{TOKEN[::-1]}"',
            ["admin endpoint at unix:a, with a token, which is another"],
        ),
    ],
)
def test_a_reload_tells_what_changed(
    tmp_path: Path, before: str, after: str, told: list[str]
) -> None:
    """The place and the token, but never which token."""
    place = site(tmp_path)
    one, other = (place.load(admin(text) if text else SERVER) for text in (before, after))
    # The self-signed certificate of a server without one is made anew.
    assert [line for line in epoch_diff(one, other) if "admin" in line] == told


def test_check_tells_where_it_is(tmp_path: Path) -> None:
    """As the last line of what the gate would do."""
    text = f'listen = "127.0.0.1:9090"\ntoken = "{TOKEN}"'
    *_, last = overview(site(tmp_path).load(admin(text)), NOW)
    assert last == "admin endpoint at 127.0.0.1:9090, with a token"


# protocol "admin"


def test_the_protocol_needs_verified_clients(tmp_path: Path) -> None:
    """A server that lets in anyone must not let them end the gate."""
    anyone = server('client_authentication = "none"', protocol='protocol "admin" {}')
    [problem] = site(tmp_path).problems(anyone)
    assert problem == (
        '3:1: protocol "admin": whoever comes in may end the gate: the server needs '
        'client_certificate rules, not client_authentication = "none"'
    )
    custom = 'protocol "custom" { factory = "mtlsgate.admin.protocol:plugin" }'
    [problem] = site(tmp_path).problems(server('client_authentication = "none"', protocol=custom))
    assert "whoever comes in may end the gate" in problem


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ('["/metric"]', 'or "/metrics" or'),
        ("[]", "routes is empty, so nothing would be answered"),
    ],
)
def test_wrong_routes_are_refused(tmp_path: Path, routes: str, problem: str) -> None:
    """A misspelt route, or none at all, is an error."""
    text = server(protocol=f'protocol "admin" {{ routes = {routes} }}')
    [said] = site(tmp_path).problems(text)
    assert problem in said


# The block alone, as mtlsgate ctl reads it


def test_ctl_needs_nothing_but_the_block(tmp_path: Path) -> None:
    """The rest may be in error, and its keys and certificates out of reach."""
    config = tmp_path / "gate.hcl"
    config.write_text(
        'admin { listen = "unix:gate.sock" }\n'
        "server {\ntls {\nserver_certificate { private_key = env.GONE }\n}\n}\n"
        'nonsense "x" { y = 1 }\n'
    )
    endpoint = endpoint_of(config)
    assert endpoint is not None
    assert endpoint.path == tmp_path / "gate.sock"
    config.write_text('server "door" {}\n')
    assert endpoint_of(config) is None


def test_ctl_is_told_of_the_blocks_own_errors(tmp_path: Path) -> None:
    """In the words of the loader."""
    config = tmp_path / "gate.hcl"
    config.write_text('admin { listen = "127.0.0.1:9090" }\nserver {}\n')
    with pytest.raises(ConfigError, match="over TCP a token is needed"):
        endpoint_of(config)
    config.write_text("admin {\n")
    with pytest.raises(ConfigError, match=r"gate\.hcl:"):
        endpoint_of(config)
    with pytest.raises(CredentialError, match="no such file"):
        endpoint_of(tmp_path / "gone.hcl")


def test_localhost_is_every_address_it_has(tmp_path: Path) -> None:
    """All of them are loopback, or it is refused."""
    config = tmp_path / "gate.hcl"
    config.write_text(f'admin {{\nlisten = "localhost:9090"\ntoken = "{TOKEN}"\n}}\n')
    endpoint = endpoint_of(config)
    assert endpoint is not None
    assert SocketAddress("127.0.0.1", 9090) in endpoint.addresses
    assert all(one.is_local for one in endpoint.addresses)
