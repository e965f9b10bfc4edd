"""
Who may do what in a real Redis: passwords, rights, TLS.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mtlsgate.admission.devices import Device
from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.testing import Authority
from tests.kits.docs import DOCS
from tests.kits.following import followed, run
from tests.kits.programs import free_port
from tests.kits.redis import (
    PREFIX,
    Server,
    opened,
    server,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pump")]

PUMP = {"pump": Device("pump")}


def test_a_password_that_is_wrong_or_missing_is_told_and_never_shown(alone: Server) -> None:
    async def test() -> None:
        alone.do("ACL SETUSER", "gate", "on", ">hush1", "~*", "+@all")
        url = f"unix://{{}}@{alone.socket}"
        async with opened(url.format("gate:hush2")) as store:
            with pytest.raises(StoreError, match="refuses the user or password") as refused:
                await store.find(["pump"])
            assert not isinstance(refused.value, StoreUnavailable)
            assert "hush" not in str(refused.value)
        async with opened(url.format("gate"), password="hush1") as store, followed(store):
            assert await store.find(["pump"]) == PUMP
            # Connections outlive a change of the password; new ones need the new one.
            alone.do("ACL SETUSER", "gate", "resetpass", ">hush3")
            assert await store.find(["pump"]) == PUMP
            alone.do("CLIENT KILL", "TYPE", "normal")
            with pytest.raises(StoreError, match="refuses the user or password"):
                await store.find(["pump"])
        async with opened(url.format("gate:hush3")) as store:
            assert await store.find(["pump"]) == PUMP

    run(test)


def test_a_server_that_needs_a_password_says_so() -> None:
    async def test(locked: Server) -> None:
        async with opened(locked.url) as store:
            with pytest.raises(StoreError, match="needs a password"):
                await store.find(["pump"])

    with server("--requirepass", "hush") as locked:
        run(lambda: test(locked))


def rights_on_the_page() -> list[list[str]]:
    """:returns: the rules of the users in docs/registry-redis.md, for our prefix."""
    page = (DOCS / "registry-redis.md").read_text().replace("mtlsgate:devices", PREFIX)
    return [
        shlex.split(line.partition("ACL SETUSER ")[2])
        for line in page.splitlines()
        if line.startswith("$ redis-cli") and "ACL SETUSER" in line
    ]


def test_the_rights_on_the_page_are_enough_and_no_more(alone: Server) -> None:
    gate_alone, gate_with_leases, clerk_alone = rights_on_the_page()

    async def test() -> None:
        alone.do("ACL SETUSER", *gate_alone)
        alone.do("ACL SETUSER", *clerk_alone)
        async with (
            opened(f"unix://gate:secret1@{alone.socket}?db=1") as gate,
            opened(f"unix://clerk:secret2@{alone.socket}?db=1") as clerk,
            followed(gate) as follow,
        ):
            await clerk.put([Device("pump")])
            await follow.told.told_of("pump")
            assert await gate.find(["pump"]) == PUMP
            assert await clerk.count() == 1
            assert [device async for device in clerk.devices()] == [*PUMP.values()]
            assert await clerk.remove(["pump"]) == 1
            with pytest.raises(StoreError, match=r"does not permit it: .*'del'"):
                await gate.remove(["pump"])
            with pytest.raises(StoreError, match=r"does not permit it: .*'evalsha'"):
                await gate.lease("limit", "holder", 1, 60)
            alone.do("ACL SETUSER", *gate_with_leases)
            assert await gate.lease("limit", "holder", 1, 60)
            await gate.release("limit", "holder")
            with pytest.raises(StoreError, match="does not permit it"):
                await gate.put([Device("pump")])
            assert await gate.find(["pump"]) == {}

    run(test)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server in TLS, of its client, and of a stranger."""
    directory = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority.create(), Authority.create("Stranger")
    for name, issued in {
        "server": authority.issue(
            None, ip_addresses=["127.0.0.1"], usages=["server_auth", "client_auth"]
        ),
        "client": authority.issue("gate"),
        "elsewhere": authority.issue(None, dns_names=["elsewhere"], usages=["server_auth"]),
    }.items():
        (directory / f"{name}.crt").write_bytes(issued.pem)
        (directory / f"{name}.key").write_bytes(issued.key_pem)
    (directory / "ca.crt").write_bytes(authority.pem)
    (directory / "stranger.crt").write_bytes(stranger.pem)
    return directory


def in_tls(files: Path, certificate: str, port: int) -> list[str]:
    """:returns: the options of a server in TLS."""
    return [
        *("--tls-port", str(port), "--tls-ca-cert-file", str(files / "ca.crt")),
        *("--tls-cert-file", str(files / f"{certificate}.crt")),
        *("--tls-key-file", str(files / f"{certificate}.key")),
    ]


def test_tls_is_spoken_with_both_certificates_verified(files: Path) -> None:
    port = free_port()
    url = f"rediss://127.0.0.1:{port}"
    ca, stranger = str(files / "ca.crt"), str(files / "stranger.crt")
    ours = {
        "certificate_file": str(files / "client.crt"),
        "key_file": str(files / "client.key"),
    }

    async def test() -> None:
        async with opened(url, files={"ca_file": ca, **ours}) as store, followed(store) as follow:
            await store.put([Device("pump")])
            await follow.told.told_of("pump")
            assert await store.find(["pump"]) == PUMP
        names = {"ca_file": "/gone/ca", "certificate_file": "/gone/c", "key_file": "/gone/k"}
        found = {"ca_file": ca, **ours}
        contents = tuple((names[one], Path(found[one]).read_bytes()) for one in names)
        async with opened(url, files={**names, "contents": contents}) as store:
            # Read when the configuration was loaded: nothing is read now.
            assert await store.find(["pump"]) == PUMP
        for options in ({"ca_file": stranger, **ours}, ours):
            async with opened(url, files=options) as store:
                with pytest.raises(StoreError, match="certificate that is not trusted") as refused:
                    await store.find(["pump"])
                assert not isinstance(refused.value, StoreUnavailable)
        # In TLS 1.3 the refusal comes after the handshake.
        async with opened(url, ca_file=ca) as store:
            with pytest.raises(StoreError, match=r"in TLS: .*certificate required|closed"):
                await store.find(["pump"])
        async with opened(url.replace("rediss", "redis")) as store:
            with pytest.raises(StoreError, match=r"closed the connection|protocol"):
                await store.find(["pump"])

    with server(*in_tls(files, "server", port)):
        run(test)


def test_a_server_with_anothers_name_is_not_trusted(files: Path) -> None:
    port = free_port()

    async def test() -> None:
        url = f"rediss://127.0.0.1:{port}"
        async with opened(url, ca_file=str(files / "ca.crt")) as store:
            with pytest.raises(StoreError, match="not trusted: IP address mismatch"):
                await store.find(["pump"])

    with server(*in_tls(files, "elsewhere", port), "--tls-auth-clients", "no"):
        run(test)
