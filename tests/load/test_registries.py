"""What a ``registry`` block says, and which mistakes in it are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.admission.devices import KeyKind
from mtlsgate.errors import ConfigError
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.load.registry_blocks import registry_blocks
from tests.kits.pki import server, site


def read(tmp_path: Path, text: str) -> dict[str, LoadedRegistry]:
    """:returns: the registries of a configuration."""
    path = tmp_path / "gate.hcl"
    path.write_text(text)
    blocks = registry_blocks(str(path), {"REDIS_PASSWORD": "from the environment"})
    return {label: blocks.read(label) for label in blocks.labels}


def problems(tmp_path: Path, text: str) -> str:
    """:returns: what is wrong with a configuration."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return str(caught.value)


def test_a_block_with_a_url_alone_has_defaults(tmp_path: Path) -> None:
    """The label gives the prefix, and the identity is what a client is found by."""
    found = read(tmp_path, 'registry "devices" { url = "redis://127.0.0.1" }')
    registry = found["devices"]
    assert registry.key is KeyKind.IDENTITY
    assert registry.options.prefix == "mtlsgate:devices"
    assert (registry.on_outage, registry.max_staleness) == ("reject", 300)
    assert registry.options.timeout == 1


def test_a_table_is_named_for_the_label_without_quotes(tmp_path: Path) -> None:
    """PostgreSQL's names are letters, digits and underscores."""
    found = read(tmp_path, 'registry "Plant A-1" { url = "postgresql://127.0.0.1/fleet" }')
    assert found["Plant A-1"].options.prefix == "mtlsgate_plant_a_1"


def test_the_password_may_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """Without its line's end; nothing shows it."""
    (tmp_path / "secret").write_text("from a file\n")
    found = read(
        tmp_path,
        """
        registry "a" {
          url      = "redis://127.0.0.1"
          password = env.REDIS_PASSWORD
        }
        registry "b" {
          url           = "redis://user@127.0.0.1/1"
          password_file = "secret"
        }
        """,
    )
    assert found["a"].options.password == "from the environment"
    assert found["b"].options.password == "from a file"
    shown = f"{found} {found['b'].options}"
    assert "from a file" not in shown
    assert "user" not in shown
    assert found["b"].place == "redis://127.0.0.1:6379/1"


def test_the_rest_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """The command line works on a registry although a server's key is unreadable."""
    text = 'registry "a" { url = "redis://127.0.0.1" }\nserver "s" { hosts = 7 }'
    assert list(read(tmp_path, text)) == ["a"]


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ('url = "http://127.0.0.1"', '2:8: registry "d": url: the URL of a registry begins'),
        ('url = "redis://u:hidden@"', "url: the URL needs a host"),
        ('url = "redis://h"\n table = "t"', "table is for a registry in PostgreSQL"),
        ('url = "postgresql://h"\n prefix = "p"', "prefix is for a registry in Redis"),
        ('url = "redis://h"\n max_staleness = "1s"', "max_staleness must be at least timeout"),
        ('url = "redis://h"\n cache_entries = 0', "cache_entries must be 1 or more"),
        ('url = "redis://h"\n timeout = "31s"', "timeout must be at most 30 s"),
        ('url = "redis://h"\n on_outage = "admit"', "on_outage"),
        ('url = "rediss://h"\n ca_file = "missing.pem"', 'ca_file: "missing.pem" '),
        ('url = "rediss://h"\n certificate_file = "c.pem"', "certificate_file needs private_key"),
        ('url = "redis://h"\n prefix = " "', "prefix: write a name"),
        ('url = "redis://:hidden@h"\n password = "other"', "the password is stated twice"),
        ('url = "postgresql://h"\n table = "a-b"', '3:10: registry "d": table: '),
        ('url = "postgresql://h/?sslmod=require"', 'did you mean "sslmode"?'),
        ('url = "postgresql://:hidden@h/?sslmode=often"', "sslmode"),
        ('key = "identity"', "url is missing"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, inside: str, said: str) -> None:
    """With the block, the attribute and the remedy, and without the URL's secrets."""
    told = problems(tmp_path, f'registry "d" {{\n {inside}\n}}')
    assert said in told
    assert "hidden" not in told


ONE, TWO = "redis://127.0.0.1/0", "redis://127.0.0.1/1"
FLEET = "postgresql://127.0.0.1/fleet"


@pytest.mark.parametrize(
    ("first", "second", "is_mixed"),
    [
        (("a", ONE, ""), ("b", ONE, ""), False),
        # What registry "a" finds under "d:x", registry "b" would list as "x".
        (("a", ONE, ""), ("b", ONE, 'prefix = "mtlsgate:a:d"'), True),
        (("b", ONE, 'prefix = "mtlsgate:a:d:c"'), ("a", ONE, ""), True),
        (("a", ONE, ""), ("a:d", ONE, ""), True),
        (("a", ONE, ""), ("a:d", TWO, ""), False),
        (("a", ONE, ""), ("a:de", ONE, ""), False),
        # PostgreSQL's names are narrower than labels.
        (("a-b", FLEET, ""), ("a_b", FLEET, ""), True),
        (("a-b", FLEET, ""), ("a_b", f"{FLEET}2", ""), False),
        (("a-b", FLEET, ""), ("a_b", FLEET, 'table = "b"'), False),
        # The same devices on purpose, with other terms.
        (("a", FLEET, 'table = "t"'), ("b", FLEET, 'table = "t"'), False),
        (("a", ONE, ""), ("b", ONE, 'prefix = "mtlsgate:a"'), False),
    ],
)
def test_two_registries_do_not_share_devices_by_accident(
    tmp_path: Path,
    first: tuple[str, str, str],
    second: tuple[str, str, str],
    is_mixed: bool,
) -> None:
    """Or whoever is listed in one would come in, or stay out, by the other."""
    text = server()
    for label, url, more in (first, second):
        text += f'registry "{label}" {{\n  url = "{url}"\n  {more}\n}}\n'
    try:
        site(tmp_path).load(text)
        told = ""
    except ConfigError as error:
        told = str(error)
    assert (f'registry "{second[0]}": ' in told and "would mix" in told) is is_mixed
    assert bool(told) is is_mixed


def test_a_store_that_others_may_hear_is_warned_of(tmp_path: Path) -> None:
    """It may be meant, as within one machine's network; at the place of its URL."""
    rule = """client_certificate "listed" {
      ca_certificate_file = "issuing.crt"
      registry = "devices"
    }"""
    blocks = 'registry "devices" {\n  url = "redis://:secret@store.example"\n}\n'
    here = site(tmp_path)
    [warning] = here.load(blocks + server(tls=rule)).warnings
    assert 'gate.hcl:2:9: registry "devices": url: the password goes to' in str(warning)
    assert "secret" not in str(warning)


def test_files_for_tls_are_read_with_the_configuration(tmp_path: Path) -> None:
    """As all others are: by who may, so that they are watched, and known to workers. A key that
    everybody may read is warned of."""
    rule = """client_certificate "listed" {
      ca_certificate_file = "issuing.crt"
      registry = "devices"
    }"""
    here = site(tmp_path)
    (here.directory / "client.key").chmod(0o644)
    blocks = """registry "devices" {
      url = "rediss://store.example"
      ca_file = "root.crt"
      certificate_file = "client.crt"
      private_key_file = "client.key"
    }
    """
    seen: dict[Path, Stamp] = {}
    epoch = here.load(blocks + server(tls=rule), seen=seen)
    [registry] = epoch.registries
    paths = [here.directory / name for name in ("root.crt", "client.crt", "client.key")]
    assert registry.options.contents == tuple((str(one), one.read_bytes()) for one in paths)
    assert set(paths) <= set(seen)
    [warning] = epoch.warnings
    assert 'private_key_file: "client.key" may be read by everybody' in str(warning)
