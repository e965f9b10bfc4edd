"""
A gate in Python, on real sockets: who gets in, and what a reload changes.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from zope.interface.verify import verifyObject

from mtlsgate import Allow, ConfigError, Deny, Gate, Pin, Rule
from mtlsgate.errors import GateError
from tests.kits.application import CONFIG, VERSIONS, Certificates, Client, Greeters, Loop, admitted
from tests.kits.revocation import crl

SENSORS = Allow(spiffe_ids=["spiffe://plants.example/sensor/*"])
SERVER = ("server.crt", "server.key")


def a_gate(*rules: Rule, **options: Any) -> Gate:
    return Gate(certificate=SERVER, rules=rules or [Rule("fleet", ca="fleet-ca.crt")], **options)


def open_gate(gate: Gate, running: Loop, here: Certificates) -> tuple[Client, Greeters]:
    """:returns: a client of the gate, and the application behind it."""
    application = Greeters()
    port = running.listen(gate.endpoint(running.reactor, "127.0.0.1:0"), application)
    return Client(here.directory, port.getHost()), application


def address(port: IListeningPort) -> tuple[str, int]:
    """:returns: where a port listens."""
    where: Any = port.getHost()
    return where.host, where.port


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([Rule("fleet", ca="fleet-ca.crt")], {"alice", "bob"}),
        ([Rule("fleet", ca="fleet-ca.crt", allow=[SENSORS])], {"alice"}),
        ([Rule("fleet", ca="fleet-ca.crt", deny=[Deny(common_names=["alice"])])], {"bob"}),
        ([Rule("laptop", leaf="mallory.crt")], {"mallory"}),
        ([Rule("both", ca="fleet-ca.crt", leaf=["bob.crt", "carol.crt"])], {"bob"}),
        ([Rule("both", ca=["fleet-ca.crt", "office-ca.crt"])], {"alice", "bob", "carol"}),
        ([Rule("pins", pin=[Pin("laptop", "mallory.crt")])], {"mallory"}),
        ([Rule("a", ca="office-ca.crt"), Rule("b", leaf="alice.crt")], {"alice", "carol"}),
    ],
)
def test_who_gets_in(
    here: Certificates, running: Loop, rules: list[Rule], expected: set[str], version: str
) -> None:
    client, application = open_gate(a_gate(*rules), running, here)
    assert admitted(running, client, version) == expected
    assert {peer.common_name for peer in application.peers if peer} == expected
    assert len(application.protocols) == len(expected)


def sources(here: Certificates) -> dict[str, Any]:
    alice = here.people["alice"].certificate
    return {
        "str": "alice.crt",
        "path": here.directory / "alice.crt",
        "pem": alice.public_bytes(Encoding.PEM),
        "pem text": alice.public_bytes(Encoding.PEM).decode(),
        "der": alice.public_bytes(Encoding.DER),
        "object": alice,
        "list": ["bob.crt", alice],
        "mixed": (alice.public_bytes(Encoding.DER), Path("bob.crt")),
    }


@pytest.mark.parametrize(
    "kind", ["str", "path", "pem", "pem text", "der", "object", "list", "mixed"]
)
def test_a_certificate_in_any_form(here: Certificates, running: Loop, kind: str) -> None:
    client, _ = open_gate(a_gate(Rule("pins", leaf=sources(here)[kind])), running, here)
    expected = {"alice", "bob"} if kind in ("list", "mixed") else {"alice"}
    assert admitted(running, client) == expected


@pytest.mark.parametrize("kind", ["paths", "bytes", "objects"])
def test_the_servers_own_in_any_form(here: Certificates, running: Loop, kind: str) -> None:
    own = here.people["server"]
    pair: Any = {
        "paths": (Path("server.crt"), "server.key"),
        "bytes": (own.pem, own.key_pem),
        "objects": ([own.certificate], own.private_key),
    }[kind]
    gate = Gate(certificate=pair, rules=[Rule("fleet", ca="fleet-ca.crt")])
    client, _ = open_gate(gate, running, here)
    assert running.call(lambda: client.ask("alice")) == "hello alice by fleet"


def test_the_name_that_a_client_asks_for_chooses_the_certificate(
    here: Certificates, running: Loop
) -> None:
    gate = Gate(
        certificate=[SERVER, ("other.crt", "other.key")], rules=[Rule("f", ca="fleet-ca.crt")]
    )
    client, _ = open_gate(gate, running, here)

    def shown(name: str) -> bytes | None:
        with client.connect("alice", server_name=name) as connection:
            return connection.getpeercert(binary_form=True)

    for name, who in (("localhost", "server"), ("other.example", "other")):
        expected = here.people[who].certificate.public_bytes(Encoding.DER)
        assert running.call(partial(shown, name)) == expected


def test_it_is_an_endpoint_of_twisted(here: Certificates, running: Loop) -> None:
    """The application's factory is started and stopped as by any port."""
    gate, application = a_gate(), Greeters()
    endpoint = gate.endpoint(running.reactor, "127.0.0.1:0")
    assert verifyObject(IStreamServerEndpoint, endpoint)
    port = running.listen(endpoint, application)
    assert verifyObject(IListeningPort, port)
    assert application.started == 1
    running.wait(maybeDeferred(port.stopListening))
    assert application.started == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(port))


def test_connections_outlive_their_port(here: Certificates, running: Loop) -> None:
    """... still watched: a reload that rejects a client closes it."""
    gate, application = a_gate(), Greeters()
    port = running.listen(gate.endpoint(running.reactor, "127.0.0.1:0"), application)
    client = Client(here.directory, port.getHost())
    with running.call(lambda: client.connect("alice")) as connection:
        connection.sendall(b"one")
        assert running.call(lambda: connection.recv(100)) == b"one alice by fleet"
        running.wait(maybeDeferred(port.stopListening))
        connection.sendall(b"two")
        assert running.call(lambda: connection.recv(100)) == b"two alice by fleet"
        gate.reload(rules=[Rule("pins", leaf="bob.crt")])
        running.until(lambda: application.lost)
    running.until(lambda: not application.started)


def test_an_address_that_is_taken(here: Certificates, running: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = a_gate().endpoint(running.reactor, f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(GateError, match="another process listens there"):
            running.listen(endpoint, Greeters())


def test_a_factory_that_fails_to_start_frees_the_address(here: Certificates, running: Loop) -> None:
    class Broken(Greeters):
        def startFactory(self) -> None:
            raise RuntimeError("no")

    endpoint = a_gate().endpoint(running.reactor, free())
    with pytest.raises(GateError, match="a protocol failed to start: RuntimeError: no"):
        running.listen(endpoint, Broken())
    running.listen(endpoint, Greeters())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reload_replaces_the_rules_in_place(
    here: Certificates, running: Loop, version: str
) -> None:
    """Who is no longer admitted is closed; who is stays, by the rule that holds now."""
    gate = a_gate()
    client, application = open_gate(gate, running, here)
    alice = running.call(lambda: client.connect("alice", version))
    bob = running.call(lambda: client.connect("bob", version))
    for connection in (alice, bob):
        connection.sendall(b"hi")
        assert running.call(partial(connection.recv, 100))
    gate.reload(rules=[Rule("chosen", leaf="bob.crt")])
    running.until(lambda: application.lost)
    [lost] = application.lost
    assert lost.transport is not None
    bob.sendall(b"still")
    assert running.call(lambda: bob.recv(100)) == b"still bob by chosen"
    assert admitted(running, client, version) == {"bob"}
    assert application.started == 1
    alice.close()
    bob.close()


def test_a_reload_reads_the_files_again(scratch: Path, shared: Certificates, running: Loop) -> None:
    gate = a_gate(Rule("pins", leaf="alice.crt"))
    client, _ = open_gate(gate, running, evolve(shared, directory=scratch))
    assert admitted(running, client) == {"alice"}
    (scratch / "alice.crt").write_bytes(shared.people["bob"].pem)
    gate.reload()
    assert running.call(lambda: client.ask("carol")) == ""
    client = evolve(client, directory=shared.directory)
    assert admitted(running, client) == {"bob"}


def test_a_reload_in_error_changes_nothing(here: Certificates, running: Loop) -> None:
    gate = a_gate(max_connections=3)
    client, _ = open_gate(gate, running, here)
    with pytest.raises(ConfigError, match=r'^Gate: Rule \'x\': leaf: "no.crt" no such file$'):
        gate.reload(rules=[Rule("x", leaf="no.crt")])
    assert admitted(running, client) == {"alice", "bob"}
    gate.reload()
    assert admitted(running, client) == {"alice", "bob"}


def test_a_reload_replaces_what_is_given_and_nothing_else(
    here: Certificates, running: Loop
) -> None:
    gate = a_gate()
    client, application = open_gate(gate, running, here)
    with running.call(lambda: client.connect("alice")) as connection:
        connection.sendall(b"1")
        assert running.call(lambda: connection.recv(100))
        gate.reload(max_connections=1)
        assert running.call(lambda: client.ask("bob")) == ""
        connection.sendall(b"2")
        assert running.call(lambda: connection.recv(100)) == b"2 alice by fleet"
    running.until(lambda: application.lost)
    assert running.call(lambda: client.ask("bob")) == "hello bob by fleet"


def test_several_ports_follow_a_reload(here: Certificates, running: Loop) -> None:
    gate = a_gate()
    clients = [open_gate(gate, running, here)[0] for _ in range(2)]
    gate.reload(rules=[Rule("office", ca="office-ca.crt")])
    for client in clients:
        assert admitted(running, client) == {"carol"}


def test_a_revocation_list(here: Certificates, running: Loop) -> None:
    """... keeps a client out, and throws it out when it comes with a reload."""
    now = datetime.now(UTC)
    empty = crl(here.fleet, now=now)
    full = crl(here.fleet, [here.people["bob"]], now=now, number=2)
    rule = Rule("fleet", ca="fleet-ca.crt", crl=empty)
    gate = a_gate(rule)
    client, application = open_gate(gate, running, here)
    with running.call(lambda: client.connect("bob")) as connection:
        connection.sendall(b"1")
        assert running.call(lambda: connection.recv(100)) == b"1 bob by fleet"
        gate.reload(rules=[evolve(rule, crl=[full])])
        running.until(lambda: application.lost)
    assert admitted(running, client) == {"alice"}


def test_a_client_leaves_when_its_certificate_ends(here: Certificates, running: Loop) -> None:
    """The gate's watch goes on in an application of one's own."""
    now = datetime.now(UTC)
    gate = a_gate(now=lambda: now)
    client, _ = open_gate(gate, running, here)
    with running.call(lambda: client.connect("alice")) as connection:
        connection.sendall(b"1")
        assert running.call(lambda: connection.recv(100))
        now += timedelta(days=4000)
        assert running.call(lambda: client.ask("bob")) == ""


def test_server_names(here: Certificates, running: Loop) -> None:
    """A gate with names answers to them, and to no other."""
    gate = a_gate(server_names=["localhost"])
    client, application = open_gate(gate, running, here)
    assert running.call(lambda: client.ask("alice")) == "hello alice by fleet"
    assert running.call(lambda: client.ask("alice", server_name="other.example")) == ""
    assert len(application.protocols) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_proxy_protocol(here: Certificates, running: Loop, version: str) -> None:
    """The header comes first; without it nobody gets in."""
    gate = a_gate(proxy_protocol="required", trusted_proxies=["127.0.0.1"])
    client, application = open_gate(gate, running, here)
    assert running.call(lambda: client.ask("alice", version)) == ""
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 8443\r\n"
    with running.call(lambda: client.connect("alice", version, header=header)) as connection:
        connection.sendall(b"hi")
        assert running.call(lambda: connection.recv(100)) == b"hi alice by fleet"
    [peer] = application.peers
    assert peer is not None
    assert getattr(peer.address, "host", None) == "192.0.2.7"


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume_if_asked_and_not_after_a_reload(
    here: Certificates, running: Loop, version: str
) -> None:
    """They resume if that is asked for, and none of before a reload does."""
    gate = a_gate(session_resumption=True)
    client, application = open_gate(gate, running, here)

    def visit(earlier: Any = None) -> Any:
        with client.connect("alice", version, earlier=earlier) as connection:
            connection.sendall(b"hi")
            assert connection.recv(100) == b"hi alice by fleet"
            return connection.context, connection.session

    first = running.call(visit)
    second = running.call(partial(visit, first))
    gate.reload()
    running.call(partial(visit, second))
    assert [peer and peer.resumed for peer in application.peers] == [False, True, False]


@pytest.mark.parametrize("answer", [True, False])
def test_an_authorizer_is_a_callable(here: Certificates, running: Loop, answer: bool) -> None:
    asked: list[str] = []

    def authorize(peer: Any) -> bool:
        asked.append(peer.common_name)
        return answer

    client, _ = open_gate(a_gate(authorize=authorize), running, here)
    assert bool(running.call(lambda: client.ask("alice"))) is answer
    assert running.call(lambda: client.ask("carol")) == ""
    assert asked == ["alice"]


def test_anyone_may_come_in_if_so_asked(here: Certificates, running: Loop) -> None:
    gate = Gate(certificate=SERVER, client_authentication="none")
    client, _ = open_gate(gate, running, here)
    assert running.call(lambda: client.ask(None)) == "hello nobody"


def test_one_server_of_a_configuration(scratch: Path, shared: Certificates, running: Loop) -> None:
    """Its protocol, and what other servers name, are nobody's business."""
    (scratch / "gate.hcl").write_text(CONFIG)
    gate = Gate.from_config("gate.hcl", "devices")
    assert gate.name == "devices"
    application = Greeters()
    port = running.listen(gate.endpoint(running.reactor), application)
    client = Client(scratch, port.getHost())
    assert admitted(running, client) == {"alice", "bob"}
    text = CONFIG.replace('"fleet-ca.crt" }', '"office-ca.crt" }')
    (scratch / "gate.hcl").write_text(text)
    gate.reload()
    assert admitted(running, client) == {"carol"}
    with pytest.raises(TypeError, match="read from a file"):
        gate.reload(max_connections=1)


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (None, 'several servers: name one of "devices", "other"'),
        ("nobody", 'no server "nobody": name one of "devices", "other"'),
    ],
)
def test_which_server(scratch: Path, server: str | None, problem: str) -> None:
    (scratch / "gate.hcl").write_text(CONFIG)
    with pytest.raises(ConfigError) as caught:
        Gate.from_config("gate.hcl", server)
    assert str(caught.value).endswith(f"gate.hcl:1:1: configuration: {problem}")


def free() -> str:
    """:returns: an address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def two_gates(running: Loop, here: Certificates) -> tuple[Gate, Gate, Client, list[Greeters]]:
    fleet = a_gate(name="fleet", server_names=["localhost"])
    office = Gate(
        certificate=("other.crt", "other.key"),
        rules=[Rule("office", ca="office-ca.crt")],
        name="office",
        server_names=["other.example"],
    )
    applications = [Greeters(), Greeters()]
    endpoint = fleet.endpoint(running.reactor, free(), beside=[(office, applications[1])])
    port = running.listen(endpoint, applications[0])
    return fleet, office, Client(here.directory, port.getHost()), applications


@pytest.mark.parametrize("version", VERSIONS)
def test_several_gates_on_one_address(here: Certificates, running: Loop, version: str) -> None:
    """The name chooses the gate: its rules, its certificate, its application, its reload."""
    fleet, office, client, applications = two_gates(running, here)

    def ask(name: str, server_name: str) -> str:
        return running.call(partial(client.ask, name, version, server_name))

    assert ask("alice", "localhost") == "hello alice by fleet"
    assert ask("alice", "other.example") == ""
    assert ask("carol", "other.example") == "hello carol by office"
    assert ask("carol", "localhost") == ""
    assert ask("carol", "third.example") == ""
    office.reload(rules=[Rule("changed", leaf="bob.crt")])
    assert ask("bob", "other.example") == "hello bob by changed"
    assert ask("carol", "other.example") == ""
    fleet.reload(rules=[Rule("one", leaf="alice.crt")])
    assert ask("alice", "localhost") == "hello alice by one"
    assert ask("bob", "other.example") == "hello bob by changed"
    assert [len(one.protocols) for one in applications] == [2, 3]


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ({"name": "a"}, {"name": "b"}, "servers that share an address need server_names each"),
        (
            {"name": "a", "server_names": ["x.example"]},
            {"name": "b", "server_names": ["x.example"]},
            'has a server for "x.example" already',
        ),
        (
            {"name": "a", "server_names": ["x.example"]},
            {"name": "a", "server_names": ["y.example"]},
            "two gates are called 'a': give each a name of its own",
        ),
    ],
)
def test_gates_that_cannot_share_an_address(
    here: Certificates, running: Loop, first: Any, second: Any, problem: str
) -> None:
    beside = [(a_gate(**second), Greeters())]
    endpoint = a_gate(**first).endpoint(running.reactor, free(), beside=beside)
    with pytest.raises(ConfigError) as caught:
        running.listen(endpoint, Greeters())
    assert problem in str(caught.value)
    assert "line" not in str(caught.value)


def test_gates_do_not_share_port_0(here: Certificates, running: Loop) -> None:
    beside = [(a_gate(name="b", server_names=["y.example"]), Greeters())]
    gate = a_gate(name="a", server_names=["x.example"])
    with pytest.raises(ConfigError, match="each would get a port of its own"):
        running.listen(gate.endpoint(running.reactor, "127.0.0.1:0", beside=beside), Greeters())


def test_several_hosts_of_one_endpoint(scratch: Path, running: Loop) -> None:
    """They share the gate's limits, as the hosts of one server do."""
    gate, application = a_gate(max_connections=1), Greeters()
    endpoint = gate.endpoint(running.reactor, "127.0.0.1:0", "unix:gate.sock")
    port = running.listen(endpoint, application)
    client = Client(scratch, port.getHost())
    assert (scratch / "gate.sock").is_socket()
    with running.call(lambda: client.connect("alice")) as connection:
        connection.sendall(b"hi")
        assert running.call(lambda: connection.recv(100)) == b"hi alice by fleet"
        by_socket = evolve(client, address=str(scratch / "gate.sock"))
        assert running.call(lambda: by_socket.ask("bob")) == ""
    running.until(lambda: application.lost)
    assert running.call(lambda: by_socket.ask("bob")) == "hello bob by fleet"
    running.wait(maybeDeferred(port.stopListening))
    assert not (scratch / "gate.sock").exists()


def test_proxies_must_be_named_where_anybody_can_connect(scratch: Path, running: Loop) -> None:
    """On a unix socket its mode says who can; on TCP nothing else does."""
    gate = a_gate(proxy_protocol="required")
    running.listen(gate.endpoint(running.reactor, "unix:gate.sock"), Greeters())
    with pytest.raises(ConfigError, match="proxy_protocol needs trusted_proxies: name"):
        running.listen(gate.endpoint(running.reactor, "127.0.0.1:0"), Greeters())
