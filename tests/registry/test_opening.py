"""From a URL to a store: what is read, what is refused, and that no secret is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.registry.opening import address_of, exposure_of, module_of, open_store
from mtlsgate.registry.redis_address import Kind, Login, Node, RedisAddress, parse_redis
from mtlsgate.registry.store import StoreError, StoreOptions
from mtlsgate.testing import self_signed

READ = [
    ("redis://r.example", RedisAddress(Kind.SERVER, nodes=(Node("r.example", 6379),))),
    ("redis://r:1/3", RedisAddress(Kind.SERVER, nodes=(Node("r", 1),), database=3)),
    ("redis://r:1?db=3", RedisAddress(Kind.SERVER, nodes=(Node("r", 1),), database=3)),
    ("rediss://[::1]:7/", RedisAddress(Kind.SERVER, tls=True, nodes=(Node("::1", 7),))),
    (
        "redis://gate:p%40ss%23@r",
        RedisAddress(Kind.SERVER, nodes=(Node("r", 6379),), login=Login("gate", "p@ss#")),
    ),
    (
        "redis://:secret@r",
        RedisAddress(Kind.SERVER, nodes=(Node("r", 6379),), login=Login(None, "secret")),
    ),
    ("unix:///run/r.sock", RedisAddress(Kind.UNIX, path="/run/r.sock")),
    (
        "redis+unix://gate:x@/run/my%20r.sock?db=2",
        RedisAddress(Kind.UNIX, path="/run/my r.sock", database=2, login=Login("gate", "x")),
    ),
    (
        "redis+sentinel://a,b:7/main/4?sentinel_username=s&sentinel_password=t",
        RedisAddress(
            Kind.SENTINEL,
            nodes=(Node("a", 26379), Node("b", 7)),
            service="main",
            database=4,
            sentinel_login=Login("s", "t"),
        ),
    ),
    (
        "rediss+cluster://a:1,[::2]:3",
        RedisAddress(Kind.CLUSTER, tls=True, nodes=(Node("a", 1), Node("::2", 3))),
    ),
]


@pytest.mark.parametrize(("url", "address"), READ)
def test_the_url_of_a_redis_is_read(url: str, address: RedisAddress) -> None:
    assert parse_redis(url) == address


REFUSED = [
    ("", "begins with redis://"),
    ("http://r", "begins with redis://"),
    ("mtlsgate:devices", "begins with redis://"),
    ("redis://", "must begin with"),
    ("redis://:hush@", "needs a host"),
    ("redis://a,b", "several hosts need"),
    ("redis://hush@[::1", "IPv6"),
    ("redis://a:hush", "cannot be read"),
    ("redis://a:0", "needs a host"),
    ("redis://a:70000", "cannot be read"),
    ("redis://a/hush", "must be a number"),
    ("redis://a/1/2", "must be the number"),
    ("redis://a/1?db=1", "twice"),
    ("redis://a?db=1&db=2", "twice"),
    ("redis://a?hush", "cannot be read"),
    ("redis://a?hush=1", "none of ours"),
    ("redis://:hush#1@a", "%23"),
    ("unix://", "must begin with"),
    ("unix:///", "path of a socket"),
    ("redis+unix://host/run/r.sock", "path of a socket"),
    ("redis+sentinel://a", "service's name"),
    ("redis+cluster://a/1", "one database only"),
    ("redis+cluster://a?db=1", "none of ours"),
    ("postgresql://:hush#1@a", "%23"),
    ("postgresql://hush@[::1", "IPv6"),
    ("postgresql://a/b?sslrootcert=/hush", "state ca_file beside it"),
    ("postgresql://a/b?passfile=/hush", "state password_file beside it"),
    ("postgresql://a/b?service=hush", "what the service says"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str, why: str) -> None:
    for read in (address_of, lambda url: open_store(StoreOptions(url, "p"))):
        with pytest.raises(StoreError) as refused:
            read(url)
        assert why in str(refused.value)
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://gate:hush@r/2", "redis://r:6379/2"),
        ("rediss://:hush@[::1]:7", "rediss://[::1]:7/0"),
        ("unix://:hush@/run/r.sock", "redis+unix:///run/r.sock?db=0"),
        ("redis+sentinel://u:hush@a/main", "redis+sentinel://a:26379/main/0"),
        ("rediss+cluster://:hush@a,b:2", "rediss+cluster://a:6379,b:2"),
        ("postgres://u:hush@a,b:2/devices?password=hush", "postgresql://a,b:2/devices"),
    ],
)
def test_an_address_shows_hosts_and_database_and_no_secret(url: str, shown: str) -> None:
    assert address_of(url) == shown


def test_no_repr_has_a_password() -> None:
    assert "hush" not in repr(parse_redis("redis+sentinel://:hush@a/m?sentinel_password=hush"))
    assert "hush" not in repr(StoreOptions("redis://:hush@a", "p", password="hush"))


@pytest.mark.parametrize(("extra", "package"), [("redis", "redis"), ("postgresql", "psycopg")])
def test_a_client_library_that_is_missing_is_named_with_what_installs_it(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.startswith((f"{package}.", f"mtlsgate.registry.{extra}_")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert address_of(f"{extra}://r/0")
    with pytest.raises(StoreError) as refused:
        open_store(StoreOptions(f"{extra}://r/0", "p"))
    assert str(refused.value) == (
        f"this registry needs the Python package '{package}': pip install 'mtlsgate[{extra}]'"
    )


def test_what_a_store_needs_can_be_imported_before_it_is_opened() -> None:
    """Workers begin as a user who may be unable to read a library."""
    found = {url: module_of(url) for url in ("rediss://r", "postgresql://p", "nonsense")}
    assert found == {
        "rediss://r": "mtlsgate.registry.redis_store",
        "postgresql://p": "mtlsgate.registry.postgresql_store",
        "nonsense": None,
    }


def test_files_that_do_not_belong_together_are_named_both(tmp_path: Path) -> None:
    """OpenSSL does not say which of them is wrong."""
    ours, other = self_signed("gate"), self_signed("other")
    certificate, key = tmp_path / "gate.crt", tmp_path / "other.key"
    certificate.write_bytes(ours.pem)
    key.write_bytes(other.key_pem)
    options = StoreOptions("rediss://h", "p", certificate_file=str(certificate), key_file=str(key))
    with pytest.raises(StoreError) as caught:
        open_store(options)
    told = str(caught.value)
    assert told.startswith(f"certificate_file {certificate}, private_key_file {key}: ")
    assert "belong together" in told


UNVERIFIED = "libpq's default, verifies no certificate: state ca_file, or in the URL sslmode="


@pytest.mark.parametrize(
    ("url", "beside", "said"),
    [
        ("redis://:p@store.example", {}, "goes to store.example:6379 in plaintext"),
        ("redis://store.example", {"password": "p"}, "write rediss://, for TLS"),
        ("redis://:p@10.0.0.1", {}, "to 10.0.0.1:6379"),
        ("redis+cluster://:p@a,b", {}, "write rediss+cluster://"),
        ("redis+sentinel://127.0.0.1,b/m?sentinel_password=p", {}, "to b:26379"),
        ("redis://store.example", {}, None),
        ("redis://:p@127.0.0.1", {}, None),
        ("redis://:p@localhost", {}, None),
        ("redis://:p@[::1]", {}, None),
        ("rediss://:p@store.example", {}, None),
        ("redis+unix://:p@/run/redis.sock", {}, None),
        ("postgresql://g@db.example/f", {}, UNVERIFIED),
        ("postgresql://g@127.0.0.1,[2001:db8::1]:5433/f", {}, "and 2001:db8::1 can"),
        ("postgresql://g@db.example/f?sslmode=require", {}, "sslmode=require verifies no"),
        ("postgresql://g@db.example/f?sslmode=disable", {}, "sslmode=disable verifies no"),
        ("postgresql://g@/f?host=/run/pg,db.example", {}, "and db.example can"),
        ("postgresql://g@localhost/f?hostaddr=10.0.0.1", {}, "and 10.0.0.1 can"),
        ("postgresql://g@db.example/f", {"ca_file": "ca.crt"}, None),
        ("postgresql://g@db.example/f?sslmode=verify-full", {}, None),
        ("postgresql://g@db.example/f?sslmode=verify-ca", {}, None),
        ("postgresql://g@db.example/f?hostaddr=127.0.0.1", {}, None),
        ("postgresql://g@localhost,127.0.0.2:5433,[::1]/f", {}, None),
        ("postgresql://g@%2Frun%2Fpostgresql/f", {}, None),
        ("postgresql://g@/f?host=/run/postgresql", {}, None),
        ("postgresql:///f", {}, None),
    ],
)
def test_who_can_listen_on_the_way_is_told(
    url: str, beside: dict[str, Any], said: str | None
) -> None:
    """With what to do about it, and without what they would hear."""
    found = exposure_of(StoreOptions(url=url, prefix="p", **beside))
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said in found
        assert ":p@" not in found
        assert found.isprintable()
