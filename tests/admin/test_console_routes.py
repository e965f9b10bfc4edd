"""
The routes that the console reads, in memory.
"""

from __future__ import annotations

import json
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address

from mtlsgate.admin.console import CONSOLE_PATHS
from mtlsgate.admin.guard import Guard
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import GATHERED
from mtlsgate.observe.history import MINUTES
from mtlsgate.testing import Client
from tests.kits.admin import PORT, Endpoint, Running, reply, running_handle
from tests.kits.gate import Log
from tests.kits.pki import NOW, der, pki, server

FINGERPRINT = sha256(der(pki().client)).hexdigest()
TOKEN = b"0123456789abcdef"
OWN = 'server_certificate {\npublic_key_file = "server.crt"\nprivate_key_file = "server.key"\n}'


@pytest.fixture
def audit(running: Running, tmp_path: Path) -> AuditLog:
    """Its audit log, in audit.log."""
    audit = running.service.observers.audit
    running.text = 'settings {\naudit { file = "audit.log" }\n}\n' + running.text
    running.site.write("gate.hcl", running.text)
    settings = running.site.load(running.text).settings
    audit.turn_to(audit.prepare(str(running.site.config), settings.audit))
    return audit


def written(running: Running) -> list[dict[str, object]]:
    lines = (running.site.config.parent / "audit.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


# The page


@pytest.mark.parametrize("path", sorted(CONSOLE_PATHS))
def test_the_page_and_its_files_need_no_token(running: Running, path: bytes) -> None:
    """They hold no data, and may do nothing but ask this endpoint."""
    guard = Guard(lambda: TOKEN, is_loopback=True)
    host = IPv4Address("TCP", "127.0.0.1", PORT)
    endpoint = Endpoint(running_handle(running), guard, running.clock, host)
    found = endpoint.ask("GET", path.decode())
    assert found.status == 200
    assert found.body
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert endpoint.ask("POST", path.decode()).status == 405
    assert endpoint.ask("GET", path.decode() + "?x=1").status == 400
    assert endpoint.ask("GET", "/status").status == 401


def test_the_page_is_there_before_the_gate() -> None:
    """It says itself that there is no answer yet."""

    def starting() -> None:
        raise LookupError

    endpoint = Endpoint(starting)  # type: ignore[arg-type]
    assert endpoint.ask("GET", "/").status == 200


def test_nothing_in_the_page_is_inline_or_from_elsewhere() -> None:
    """What the policy forbids is not even tried."""
    directory = Path(__file__).parents[2] / "mtlsgate" / "admin" / "console_files"
    names = {path.name for path in directory.iterdir()}
    assert names == {path.rpartition(b"/")[2].decode() or "index.html" for path in CONSOLE_PATHS}
    for name in names:
        text = (directory / name).read_text()
        text = text.replace("http://www.w3.org/2000/svg", "")
        for inline in ("http://", "https://", "//cdn", "innerHTML", "outerHTML", "eval(", "style="):
            assert inline not in text, (name, inline)


# What has happened


def test_history_counts_by_minutes(endpoint: Endpoint, running: Running) -> None:
    """The last hour, the current minute last; servers without a client are left out."""
    assert endpoint.ask("GET", "/history").value["servers"] == []
    running.client(pki().client)
    running.clock.advance(60)
    running.client(None)
    running.client(pki().client)
    running.clock.advance(120)
    [server] = endpoint.ask("GET", "/history").value["servers"]
    assert server["name"] == "door"
    assert len(server["admitted"]) == len(server["rejected"]) == MINUTES
    assert server["admitted"][-4:] == [1, 1, 0, 0]
    assert server["rejected"][-4:] == [0, 1, 0, 0]
    running.clock.advance(60 * (MINUTES - 3))
    [server] = endpoint.ask("GET", "/history").value["servers"]
    assert (server["admitted"][0], sum(server["admitted"])) == (1, 1)
    running.clock.advance(60)
    assert endpoint.ask("GET", "/history").value["servers"] == []


def test_a_health_check_is_no_rejection(endpoint: Endpoint, running: Running) -> None:
    """Who connects and leaves without a byte is not in the chart."""
    [listener] = running.service.runner.listeners.values()
    client = Client(listener, None, clock=running.clock)
    client.transport.finish()
    assert running.recent.count == 1
    assert endpoint.ask("GET", "/history").value["servers"] == []


def test_changes_wait_for_one(endpoint: Endpoint, running: Running) -> None:
    """The answer comes with the next event, or when the time is over."""
    number = endpoint.ask("GET", "/changes").value["number"]
    request = f"GET /changes?after={number}&wait=20 HTTP/1.1\r\nHost: gate\r\n\r\n".encode()
    channel, transport = endpoint.connect()
    channel.dataReceived(request)
    running.clock.advance(19)
    assert transport.value() == b""
    running.client(pki().client)
    running.clock.advance(GATHERED)
    assert reply(transport).value["number"] > number
    number = endpoint.ask("GET", "/changes").value["number"]
    channel, transport = endpoint.connect()
    channel.dataReceived(request.replace(b"after=0", f"after={number}".encode()))
    running.clock.advance(20)
    assert reply(transport).value == {"number": number}


def test_a_flood_is_one_change(endpoint: Endpoint, running: Running) -> None:
    """Who waits is told once of what happens in half a second, and whoever has gone
    meanwhile is not missed."""
    waiting = [endpoint.connect() for _ in range(3)]
    for channel, _ in waiting:
        channel.dataReceived(b"GET /changes?after=0&wait=20 HTTP/1.1\r\nHost: gate\r\n\r\n")
    for _ in range(5):
        running.client(None)
    waiting[0][0].connectionLost()
    running.clock.advance(GATHERED)
    assert waiting[0][1].value() == b""
    assert {reply(transport).value["number"] for _, transport in waiting[1:]} == {5}


def test_a_reload_is_a_change(endpoint: Endpoint, running: Running) -> None:
    """So is what an operator does."""
    before = endpoint.ask("GET", "/changes").value["number"]
    endpoint.ask("POST", "/reload")
    assert endpoint.ask("GET", "/changes").value["number"] > before


# When it ends


def test_periods_are_those_of_the_configuration(tmp_path: Path, log: Log) -> None:
    """Certificates, CAs, pins with their windows, and lists; the first to end first."""
    later = (NOW + timedelta(days=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    rule = f"""client_certificate "fleet" {{
      ca_certificate_file = "issuing.crt"
      pin "laptop" {{
        leaf_certificate_file = "client.crt"
        retire_after = "{later}"
      }}
    }}"""
    text = server(f"{OWN}\n{rule}", label='"door"')
    running = Running(tmp_path, text)
    endpoint = Endpoint(running_handle(running), clock=running.clock)
    periods = endpoint.ask("GET", "/periods").value["periods"]
    assert [one["ends"] for one in periods] == sorted(one["ends"] for one in periods)
    kinds = {one["kind"]: one for one in periods}
    assert kinds.keys() == {"server_certificate", "ca", "pin"}
    pin = kinds["pin"]
    assert (pin["server"], pin["rule"], pin["name"]) == ("door", "fleet", "laptop")
    assert pin["ends"].startswith(later[:-1])
    assert pin["sha256"] == FINGERPRINT
    assert kinds["ca"]["rule"] == "fleet"
    assert kinds["server_certificate"]["rule"] is None
    running.stop()


# Why


def test_a_certificate_is_explained(endpoint: Endpoint, running: Running) -> None:
    """What each rule makes of it, by all servers or one, now or at another time."""
    found = endpoint.ask("POST", "/explain", body=pki().client.pem).value
    [one] = found["explanations"]
    assert (one["server"], one["admitted"]) == ("door", True)
    assert found["pin_block"].startswith('pin "')
    [one] = endpoint.ask("POST", "/explain?server=door", body=pki().stranger.pem).value[
        "explanations"
    ]
    assert (one["admitted"], one["reason"]) == (False, "unknown_ca")
    assert one["rules"][0]["admitted"] is False
    late = pki().client.certificate.not_valid_after_utc + timedelta(days=1)
    path = f"/explain?at={late:%Y-%m-%dT%H:%M:%SZ}"
    [one] = endpoint.ask("POST", path, body=pki().client.pem).value["explanations"]
    assert (one["admitted"], one["reason"]) == (False, "expired")
    assert running.recent.count == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/explain", b"", 400, "the body must be a certificate"),
        (
            "/explain",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            400,
            "body",
        ),
        ("/explain", b"\x30\x80" * 50, 400, "the body must be a certificate"),
        ("/explain?at=tomorrow", None, 400, "at: "),
        ("/explain?server=window", None, 404, "no server"),
        ("/explain?rule=x", None, 400, "unknown parameter"),
    ],
)
def test_what_cannot_be_explained(
    endpoint: Endpoint, path: str, body: bytes | None, status: int, said: str
) -> None:
    """It is an error in one line; none quotes what was sent."""
    found = endpoint.ask("POST", path, body=pki().client.pem if body is None else body)
    assert found.status == status
    assert said in found.value["error"]
    assert "AAAA" not in found.value["error"]


def test_a_private_key_is_not_repeated(endpoint: Endpoint, log: Log) -> None:
    """Whoever pastes the wrong file finds nothing of it in the answer."""
    found = endpoint.ask("POST", "/explain", body=pki().client.key_pem)
    assert found.status == 400
    key = pki().client.key_pem.split(b"\n")[1]
    assert key not in found.body


def test_a_rejection_is_explained(endpoint: Endpoint, running: Running) -> None:
    """By its id, with the leaf that is remembered, by its own server."""
    running.client(pki().stranger)
    running.client(None)
    without, stranger = endpoint.ask("GET", "/rejections").value["rejections"]
    assert (without["id"], stranger["id"]) == (2, 1)
    found = endpoint.ask("GET", "/rejections/1/explain").value
    [one] = found["explanations"]
    assert (one["server"], one["reason"]) == ("door", stranger["reason"])
    assert endpoint.ask("GET", "/rejections/2/explain").status == 404
    assert endpoint.ask("GET", "/rejections/99/explain").status == 404


def test_many_rules_are_explained_in_turns(tmp_path: Path, log: Log) -> None:
    """Each rule in a turn of its own, so that others have theirs."""
    rules = "\n".join(
        f'client_certificate "r{n}" {{\nca_certificate_file = "issuing.crt"\n'
        f'allow {{ common_names = ["c{n}"] }}\n}}'
        for n in range(50)
    )
    text = server(rules, label='"door"')
    running = Running(tmp_path, text)
    endpoint = Endpoint(running_handle(running), clock=running.clock)
    [one] = endpoint.ask("POST", "/explain", body=pki().client.pem).value["explanations"]
    assert len(one["rules"]) == 50
    assert all(rule["hints"] for rule in one["rules"])
    running.stop()


# What an operator does


def test_eject_ends_all_connections_of_a_client(
    endpoint: Endpoint, running: Running, audit: AuditLog
) -> None:
    """By its fingerprint; others stay, and the audit log has who did it."""
    first, second, other = (
        running.client(one) for one in (pki().client, pki().client, pki().other)
    )
    found = endpoint.ask("POST", f"/clients/{FINGERPRINT}/eject")
    assert (found.status, found.value) == (200, {"closed": 2})
    for client in (first, second, other):
        client.pump()
    assert first.disconnected
    assert second.disconnected
    assert not other.disconnected
    assert endpoint.ask("POST", f"/clients/{FINGERPRINT}/eject").status == 404
    assert endpoint.ask("POST", f"/clients/{FINGERPRINT.upper()}/eject").status == 404
    [line] = [one for one in written(running) if one["event"] == "operator"]
    assert (line["action"], line["subject"]) == (
        "eject",
        f"the client with the certificate {FINGERPRINT}",
    )
    other.close()


def test_the_audit_log_has_every_action(
    endpoint: Endpoint, running: Running, audit: AuditLog
) -> None:
    """Reload, close and drain with the caller; a dry run and a look are none."""
    client = running.client(pki().client)
    endpoint.ask("POST", "/reload?dry_run=1")
    endpoint.ask("GET", "/status")
    endpoint.ask("POST", "/connections/99/close")
    endpoint.ask("POST", "/connections/1/close")
    endpoint.ask("POST", "/reload")
    for _ in range(2):
        endpoint.ask("POST", "/drain")
    actions = [one for one in written(running) if one["event"] == "operator"]
    assert [(one["action"], one["subject"]) for one in actions] == [
        ("close", "connection 1"), ("reload", None), ("drain", None),
    ]  # fmt: skip
    assert all(one["who"] for one in actions)
    client.pump()
    assert client.disconnected
