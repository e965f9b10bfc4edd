"""
`mtlsgate probe` against the real gate, and against servers of every other sort.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import SSL

from mtlsgate.certificates.certificate import view
from mtlsgate.probe import (
    ALERTS,
    CertificateFacts,
    Ending,
    Outcome,
    ProbeStage,
    Verdict,
    alert_name,
    describe,
    load_identity,
    load_trust,
    parse_target,
    probe,
    to_dict,
)
from mtlsgate.testing import Authority, Credential
from tests.kits.probe import (
    LONG,
    SHORT,
    Tls,
    authority,
    both_versions,
    client_authority,
    drain,
    knock,
    past,
    raw,
    server,
    server_context,
    tls_server,
    write_demo,
)
from tests.kits.programs import RunningGate, gate

# The real gate.


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def running(demo: Path) -> Iterator[RunningGate]:
    with gate(demo / "gate.hcl") as one:
        yield one


def probe_gate(
    demo: Path, running: RunningGate, client: str | None, tls: Tls, wait: float = LONG
) -> Outcome:
    """Probe as an operator would, with the files that ``init`` wrote."""
    names = (None, None) if client is None else (demo / f"{client}.crt", demo / f"{client}.key")
    return probe(
        parse_target(f"127.0.0.1:{running.port('demo')}", "localhost"),
        identity=load_identity(*names),
        trust=load_trust(demo / "ca.crt"),
        version=tls,
        timeout=LONG,
        wait=wait,
    )


@both_versions
def test_the_gate_admits(demo: Path, running: RunningGate, tls: Tls) -> None:
    """The pinned client hears no objection, and all that was seen is said."""
    outcome = probe_gate(demo, running, "client", tls, wait=SHORT)
    assert "admitted 127.0.0.1:" in running.read_until("admitted")
    assert outcome.exit_status == 0
    ca, server, client = (sha256_of(demo, name) for name in ("ca", "server", "client"))
    cipher = {"1.2": "ECDHE-ECDSA-AES256-GCM-SHA384", "1.3": "TLS_AES_256_GCM_SHA384"}[tls]
    lines = describe(outcome)
    assert lines[1].startswith(f"tls        TLSv{tls}, {cipher}, ")
    assert lines[:1] + lines[2:] == [
        f"target     127.0.0.1:{running.port('demo')}",
        "server     CN=localhost, issued by CN=mtlsgate development CA, 364 days left",
        f"             SHA-256 {server}",
        *chain_rest(outcome, ca),
        "verified   the chain leads to a CA in --ca",
        "name       localhost: matches",
        "asked      for a client certificate issued by:",
        "             CN=mtlsgate development CA",
        "presented  CN=client, issued by CN=mtlsgate development CA, 364 days left",
        f"             SHA-256 {client}",
        "admitted   no objection within 0.2 s: admitted, as far as TLS tells",
    ]


def sha256_of(demo: Path, name: str) -> str:
    certificate = x509.load_pem_x509_certificate((demo / f"{name}.crt").read_bytes())
    return CertificateFacts.of(view(certificate)).sha256


def chain_rest(outcome: Outcome, ca: str) -> list[str]:
    """The gate may send its CA along: that is its own affair."""
    root = [
        "           CN=mtlsgate development CA, issued by itself, 364 days left",
        f"             SHA-256 {ca}",
    ]
    return root if len(outcome.chain) == 2 else []


REFUSALS = [
    (None, "1.2", "no_certificate", 40, "no certificate was presented, and the server demands one"),
    (None, "1.3", "no_certificate", 116, ALERTS[116][1]),
    ("not-pinned", "1.2", "leaf_mismatch", 42, ALERTS[42][1]),
    ("not-pinned", "1.3", "leaf_mismatch", 42, ALERTS[42][1]),
    ("stranger", "1.2", "unknown_ca", 48, ALERTS[48][1]),
    ("stranger", "1.3", "unknown_ca", 48, ALERTS[48][1]),
]


@pytest.mark.parametrize(("client", "tls", "reason", "alert", "usually"), REFUSALS)
def test_the_gate_refuses(
    demo: Path,
    running: RunningGate,
    client: str | None,
    tls: Tls,
    reason: str,
    alert: int,
    usually: str,
) -> None:
    """The alert is told, and what it usually means; in TLS 1.3 it comes late."""
    outcome = probe_gate(demo, running, client, tls)
    assert f": {reason}: " in running.read_until("demo: rejected ")
    assert (outcome.verdict, outcome.exit_status) == (Verdict.REFUSED, 1)
    assert (outcome.asked, outcome.presented) == (True, client is not None)
    when = "during" if tls == "1.2" else "after"
    assert describe(outcome)[-2:] == [
        f"refused    the server sent the alert {alert_name(alert)} ({alert}) {when} the handshake",
        f"           usually: {usually}",
    ]


def test_the_gate_is_left_politely(demo: Path, running: RunningGate) -> None:
    """Nothing went wrong on the gate's side, and it was sent no application data."""
    probe_gate(demo, running, "client", "1.3", wait=SHORT)
    probe_gate(demo, running, None, "1.3")
    running.read_until("no_certificate")
    log = "".join(running.lines)
    assert "Traceback" not in log
    assert "GET /" not in log


# Servers of other sorts.


@both_versions
def test_no_client_certificate_is_asked_for(tls: Tls) -> None:
    """A server without client authentication admits; it gets no certificate."""
    handle = tls_server(server_context(server()))
    outcome = knock(handle, client_authority().issue("c"), tls=tls, wait=SHORT)
    assert (outcome.asked, outcome.presented, outcome.ca_names) == (False, False, ())
    assert (outcome.verdict, outcome.exit_status) == (Verdict.ADMITTED, 0)
    assert describe(outcome)[-5:] == [
        "verified   not verified: no --ca was given",
        "name       localhost: matches",
        "asked      for no client certificate",
        "presented  nothing: the server did not ask for it",
        "admitted   no objection within 0.2 s: admitted, as far as TLS tells",
    ]


@both_versions
def test_no_ca_is_named(tls: Tls) -> None:
    """A request may leave open which CAs it is about."""
    handle = tls_server(server_context(server(), client_authority()))
    outcome = knock(handle, client_authority().issue("c"), tls=tls, wait=SHORT)
    assert (outcome.asked, outcome.ca_names, outcome.presented) == (True, (), True)
    assert "asked      for a client certificate, and named no CA" in describe(outcome)


def test_many_cas_are_named() -> None:
    """In words the first ten; in JSON all."""
    context = server_context(server(), client_authority())
    for number in range(12):
        context.add_client_ca(Authority.create(f"CA {number}").certificate)
    outcome = knock(tls_server(context), client_authority().issue("c"), wait=SHORT)
    assert to_dict(outcome)["client"]["ca_names"] == [f"CN=CA {number}" for number in range(12)]
    lines = describe(outcome)
    assert "             CN=CA 9" in lines
    assert "             and 2 more (--json has them all)" in lines
    assert not any("CA 10" in line for line in lines)


@both_versions
def test_the_chain_is_presented(tls: Tls) -> None:
    """What --cert holds after the leaf is sent along, and nothing of --ca is."""
    middle = client_authority().intermediate()
    whole = middle.issue("c")
    alone = Credential(whole.certificate, whole.private_key)
    for shown, trusted, verdict in (
        (whole, authority(), Verdict.ADMITTED),
        (alone, middle, Verdict.REFUSED),
    ):
        wait = SHORT if verdict is Verdict.ADMITTED else LONG
        handle = tls_server(server_context(server(), client_authority()))
        outcome = knock(handle, shown, ca=trusted, tls=tls, wait=wait)
        assert outcome.verdict is verdict


# Alerts.


@both_versions
@pytest.mark.parametrize(
    ("make", "alert"),
    [
        (lambda: None, None),
        (lambda: client_authority().issue("c", not_after=past(3)), 45),
        (lambda: client_authority().issue("c", usages=["server_auth"]), 43),
        (lambda: authority().issue("c"), 48),
    ],
    ids=["none", "expired", "for servers", "unknown CA"],
)
def test_alerts_about_the_client(
    make: Callable[[], Credential | None], alert: int | None, tls: Tls
) -> None:
    """OpenSSL's own verdicts arrive, each as its alert."""
    outcome = knock(tls_server(server_context(server(), client_authority())), make(), tls=tls)
    assert outcome.alert == (alert or {"1.2": 40, "1.3": 116}[tls])
    assert (outcome.verdict, outcome.exit_status) == (Verdict.REFUSED, 1)
    assert outcome.stage is (ProbeStage.HANDSHAKE if tls == "1.2" else ProbeStage.AFTER)
    assert outcome.tls_version == f"TLSv{tls}"


def test_no_version_in_common() -> None:
    """There is nothing to say of a certificate, and nothing is."""
    outcome = knock(tls_server(server_context(server(), tls="1.2")), tls="1.3")
    assert describe(outcome)[1:] == [
        "refused    the server sent the alert protocol_version (70) before it showed a certificate",
        "           usually: the server does not speak a TLS version that was offered",
    ]
    assert outcome.exit_status == 1


@pytest.mark.parametrize("number", [*ALERTS, 99])
def test_every_alert_has_a_name_and_a_meaning(number: int) -> None:
    """As the first thing that the server says, and also where nobody knows it."""
    outcome = knock(raw(bytes([0x15, 3, 3, 0, 2, 2, number])))
    name, meaning = ALERTS.get(number, ("of an unknown kind", "nothing is known of it"))
    assert to_dict(outcome)["alert"] == {"number": number, "name": name}
    assert describe(outcome)[1:] == [
        f"refused    the server sent the alert {name} ({number}) before it showed a certificate",
        f"           usually: {meaning}",
    ]


@both_versions
def test_a_harmless_alert_is_not_taken_for_a_refusal(tls: Tls) -> None:
    """A warning before the ServerHello, as some send for unknown names, refuses nobody."""

    def handle(accepted: socket.socket) -> None:
        accepted.sendall(bytes([0x15, 3, 3, 0, 2, 1, 112]))
        accepted.recv(2**16)
        accepted.close()

    outcome = knock(handle, tls=tls)
    assert (outcome.alert, outcome.exit_status) == (None, 2)


# Other endings.


def reset(_connection: SSL.Connection | None, accepted: socket.socket) -> None:
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()


AFTER: list[tuple[str, Callable[[SSL.Connection, socket.socket], object], Ending, int, list[str]]]
AFTER = [
    (
        "data",
        lambda connection, _socket: connection.sendall(b"220 hello"),
        Ending.DATA,
        0,
        ["admitted   the server sent data after the handshake"],
    ),
    (
        "close_notify",
        lambda connection, _socket: connection.shutdown(),
        Ending.CLOSED,
        2,
        [
            "unknown    the server closed the connection after the handshake, in good order and "
            "without an alert",
            "           usually: its application had nothing to say, or a limit was reached",
        ],
    ),
    (
        "end",
        lambda _connection, accepted: accepted.shutdown(socket.SHUT_WR),
        Ending.CUT,
        1,
        ["refused    the server closed the connection after the handshake, without an alert"],
    ),
    (
        "reset",
        reset,
        Ending.RESET,
        1,
        ["refused    the server reset the connection after the handshake, without an alert"],
    ),
]


@both_versions
@pytest.mark.parametrize(
    ("then", "ending", "status", "said"), [row[1:] for row in AFTER], ids=[row[0] for row in AFTER]
)
def test_after_the_handshake(
    then: Callable[[SSL.Connection, socket.socket], object],
    ending: Ending,
    status: int,
    said: list[str],
    tls: Tls,
) -> None:
    """Whoever hangs up on a client refuses it; a polite end may have other causes."""
    outcome = knock(tls_server(server_context(server()), then), tls=tls)
    assert (outcome.ending, outcome.exit_status) == (ending, status)
    assert describe(outcome)[-len(said) :] == said


def test_a_server_of_another_protocol_is_named_by_its_first_line() -> None:
    """A server of another protocol is told by its first line."""
    outcome = knock(raw(b"HTTP/1.1 400 Bad \x1b[31m Request\r\nServer: x\r\n\r\n"))
    assert describe(outcome)[1:] == [
        "unknown    the server does not speak TLS here: "
        'it began with "HTTP/1.1 400 Bad \\x1b[31m Request"'
    ]
    assert outcome.exit_status == 2


@pytest.mark.parametrize("reply", [b"\n", b"\r\n\r\n", b"\0", b"\xff" * 100])
def test_no_line_at_all(reply: bytes) -> None:
    """Nor does anything else that is not TLS confuse it."""
    assert knock(raw(reply)).ending is Ending.NOT_TLS


def test_damaged_tls() -> None:
    """What begins like TLS and is none fails on the probe's side."""
    outcome = knock(raw(b"\x16\x03\x03\x00\x04\xff\xff\xff\xff"))
    assert (outcome.ending, outcome.verdict) == (Ending.FAILED, Verdict.UNKNOWN)
    assert describe(outcome)[-1].startswith("unknown    TLS failed on this side: ")


@pytest.mark.parametrize(("end", "verb"), [(drain, "closed"), (None, "reset")])
def test_closed_at_once(end: object, verb: str) -> None:
    """Without a ServerHello nobody can tell why."""

    def handle(accepted: socket.socket) -> None:
        if end is None:
            reset(None, accepted)
        else:
            accepted.shutdown(socket.SHUT_WR)
            drain(accepted)

    outcome = knock(handle)
    assert describe(outcome)[1:] == [
        f"unknown    the server {verb} the connection before it showed a certificate, "
        "without an alert",
        "           usually: it does not speak TLS, or turned the address away",
    ]
    assert outcome.exit_status == 2


@both_versions
def test_closed_in_the_middle(tls: Tls) -> None:
    """Whoever hangs up where the client has shown its certificate has refused it."""

    def handle(accepted: socket.socket) -> None:
        context = server_context(server(), client_authority(), "1.2")
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        connection.bio_write(accepted.recv(2**16))
        with suppress(SSL.WantReadError):
            connection.do_handshake()
        accepted.sendall(connection.bio_read(2**16))
        accepted.recv(2**16)
        if tls == "1.2":
            accepted.sendall(bytes([0x15, 3, 3, 0, 2, 1, 0]))
        accepted.shutdown(socket.SHUT_WR)
        drain(accepted)

    outcome = knock(handle, client_authority().issue("c"))
    assert (outcome.stage, outcome.asked, outcome.presented) == (ProbeStage.HANDSHAKE, True, True)
    assert (outcome.verdict, outcome.exit_status) == (Verdict.REFUSED, 1)
    assert "the connection during the handshake" in describe(outcome)[-1]


def test_no_answer() -> None:
    """A server that accepts and says nothing is given up on."""
    outcome = knock(drain, timeout=SHORT)
    assert describe(outcome)[1:] == ["unknown    no answer in TLS within 0.2 s"]
    assert outcome.exit_status == 2


def test_no_end_of_the_handshake() -> None:
    """So is one that stops halfway."""

    def handle(accepted: socket.socket) -> None:
        connection = SSL.Connection(server_context(server(), tls="1.2"), None)
        connection.set_accept_state()
        connection.bio_write(accepted.recv(2**16))
        with suppress(SSL.WantReadError):
            connection.do_handshake()
        accepted.sendall(connection.bio_read(2**16))
        drain(accepted)

    outcome = knock(handle, timeout=SHORT)
    assert describe(outcome)[-3:] == [
        "asked      not known: the handshake did not get so far",
        "presented  nothing: no --cert was given",
        "unknown    the handshake was not done within 0.2 s",
    ]


def test_a_dribbling_server_does_not_hold_it() -> None:
    """The time is for the whole handshake, not for each of its bytes."""

    def handle(accepted: socket.socket) -> None:
        accepted.settimeout(0.01)
        with suppress(ConnectionError):
            accepted.sendall(b"\x16\x03\x03\x40\x00")
            while True:
                accepted.sendall(b"\0")
                with suppress(TimeoutError):
                    if not accepted.recv(2**16):
                        return

    assert knock(handle, timeout=SHORT).ending is Ending.TIMEOUT


# No connection.


def test_nothing_listens() -> None:
    """A refused TCP connection is no verdict."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        outcome = probe(parse_target(f"127.0.0.1:{port}"))
    assert describe(outcome) == [
        f"target     127.0.0.1:{port}",
        f"unknown    no connection: nothing listens on 127.0.0.1:{port}",
    ]
    assert outcome.exit_status == 2


NO_CONNECTION: list[tuple[Exception, str]] = [
    (
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        "gate.example does not resolve: Name or service not known",
    ),
    (
        TimeoutError("timed out"),
        "no answer from gate.example:1 within 10 s; a firewall may be in the way",
    ),
    (OSError(113, "No route to host"), "No route to host"),
    (UnicodeError("label too long"), "gate.example is not a name that can be looked up"),
]


@pytest.mark.parametrize(("error", "said"), NO_CONNECTION)
def test_no_connection(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is no connection is said in words."""

    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    outcome = probe(parse_target("gate.example:1"))
    assert describe(outcome)[-1] == f"unknown    no connection: {said}"
    assert outcome.exit_status == 2


def test_ipv6_targets_are_probed() -> None:
    """``[::1]:8443`` is IPv6."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        port = listener.getsockname()[1]
        outcome = probe(parse_target(f"[::1]:{port}"), timeout=SHORT)
    assert describe(outcome) == [
        f"target     [::1]:{port}",
        "unknown    no answer in TLS within 0.2 s",
    ]
