"""Orders from a real CA, with its faults, and a real gate."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mtlsgate.acme.challenge import PendingChallenges
from mtlsgate.acme.ordering import order, suggestion
from mtlsgate.acme.steps import OrderFailed
from mtlsgate.acme.storage import Storage, parse_kept
from mtlsgate.acme.wanted import AccountBinding, WantedCertificate
from mtlsgate.certificates.parsing import ServerCredential, parse_certificates
from mtlsgate.tls.challenge import ACME_TLS, challenge_engine
from mtlsgate.tls.clienthello import ClientHello, ClientHelloReader
from mtlsgate.tls.engine import Event
from tests.kits.pebble import Pebble, pebble
from tests.kits.programs import BIN, gate, run
from tests.kits.service import ALICE, ROOT
from tests.kits.tls_client import echoed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]


def wanted(ca: Pebble, directory: Path, *names: str, **options: object) -> WantedCertificate:
    authorities = tuple(parse_certificates(ca.ca_file.read_bytes()))
    given = {"authorities": authorities, "contact": ("mailto:ops@example.com",)} | options
    return WantedCertificate(
        directory=ca.directory,
        names=names or ("gate.example",),
        storage=Storage(directory / "acme"),
        **given,  # type: ignore[arg-type]
    )


@contextmanager
def answering(found: WantedCertificate) -> Iterator[int]:
    """
    Answer a CA's challenges as a gate does.

    :returns: a context with the port.
    """
    pending = PendingChallenges.of([found])
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    _answer(sock, pending)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _answer(sock: socket.socket, pending: PendingChallenges) -> None:
    hello = sock.recv(2**16)
    read = ClientHelloReader().feed(hello)
    assert isinstance(read, ClientHello)
    assert read.offers_only(ACME_TLS)
    credential = pending.find(read.server_name or "")
    if credential is None:
        return
    engine = challenge_engine(credential)
    engine.feed(hello)
    while engine.next() is not Event.HANDSHAKEN:
        sock.sendall(engine.outgoing())
        data = sock.recv(2**16)
        if not data:
            return
        engine.feed(data)
    engine.close()
    sock.sendall(engine.outgoing())


def credential(found: WantedCertificate) -> ServerCredential:
    data = found.storage.certificate(found.file_name)
    assert data is not None
    return parse_kept(data)


def test_a_ca_with_all_its_faults(tmp_path: Path) -> None:
    """It refuses every second nonce, validates late, and knows a name already or not."""
    names = ("gate.example", "b.gate.example")
    faults = {
        "PEBBLE_WFE_NONCEREJECT": "50",
        "PEBBLE_AUTHZREUSE": "100",
        "PEBBLE_VA_NOSLEEP": "",
        "PEBBLE_VA_SLEEPTIME": "1",
        "PEBBLE_CHAIN_LENGTH": "2",
    }
    first = WantedCertificate(directory="", names=names, storage=Storage(tmp_path / "acme"))
    with answering(first) as port, pebble(tmp_path, port, faults=faults) as ca:
        found = wanted(ca, tmp_path, *names)
        order(found)
        one = credential(found)
        assert set(one.dns_names) == set(names)
        assert len(one.chain) == 3
        order(found)
        another = credential(found)
        assert another.chain[0] != one.chain[0]
        assert another.chain[0].spki != one.chain[0].spki
        log = ca.log.read_text()
    assert log.count("There are now 1 accounts") == 1
    assert not list((tmp_path / "acme").glob("challenge-*"))
    assert list((tmp_path / "acme").glob("account-*.pem"))


def test_what_a_ca_says_when_it_cannot_validate_a_name(tmp_path: Path) -> None:
    with pebble(tmp_path) as ca:
        found = wanted(ca, tmp_path)
        with pytest.raises(OrderFailed) as failed:
            order(found)
    text = str(failed.value)
    assert text.startswith("the CA does not believe that gate.example is ours: unauthorized: ")
    assert "Failed to connect" in text
    assert not list((tmp_path / "acme").glob("challenge-*"))
    assert found.storage.certificate(found.file_name) is None


def test_a_ca_that_wants_to_know_its_customer(tmp_path: Path) -> None:
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    faults = {"PEBBLE_VA_ALWAYS_VALID": "1"}
    with pebble(tmp_path, faults=faults, keys={"kid-1": secret}) as ca:
        with pytest.raises(OrderFailed, match="eab_key_id and eab_hmac_key_file"):
            order(wanted(ca, tmp_path))
        wrong = AccountBinding(key_id="kid-1", hmac_key="d3Jvbmc")
        with pytest.raises(OrderFailed, match="the CA refuses: "):
            order(wanted(ca, tmp_path, binding=wrong))
        right = wanted(ca, tmp_path, binding=AccountBinding(key_id="kid-1", hmac_key=secret))
        order(right)
        assert credential(right).dns_names == ("gate.example",)
        # With its account it needs no customer any more.
        order(wanted(ca, tmp_path))


def test_a_ca_that_forgot_its_accounts_gets_another(tmp_path: Path) -> None:
    faults = {"PEBBLE_VA_ALWAYS_VALID": "1"}
    with pebble(tmp_path, faults=faults) as ca:
        order(wanted(ca, tmp_path))
        port = int(ca.directory.rpartition(":")[2].partition("/")[0])
        [account] = (tmp_path / "acme").glob("account-*.pem")
        key = account.read_bytes()
    with pebble(tmp_path, faults=faults, port=port) as ca:
        order(wanted(ca, tmp_path))
        assert account.read_bytes() == key
        order(wanted(ca, tmp_path, contact=("mailto:new@example.com",)))


def test_a_ca_that_is_down_or_is_not_the_one(tmp_path: Path) -> None:
    with pebble(tmp_path) as ca:
        with pytest.raises(
            OrderFailed,
            match=r"its certificate: [^;]+; ca_file names",
        ):
            order(wanted(ca, tmp_path, authorities=()))
        found = wanted(ca, tmp_path)
        nowhere = WantedCertificate(
            directory=ca.directory.replace("/dir", "/none"),
            names=found.names,
            storage=found.storage,
            authorities=found.authorities,
        )
        with pytest.raises(OrderFailed, match="404"):
            order(nowhere)
    with pytest.raises(OrderFailed, match="cannot be reached: Connection refused"):
        order(found)


def test_a_ca_without_renewal_info_is_no_trouble(tmp_path: Path) -> None:
    with pebble(tmp_path, faults={"PEBBLE_VA_ALWAYS_VALID": "1"}) as ca:
        found = wanted(ca, tmp_path)
        order(found)
        data = found.storage.certificate(found.file_name)
        assert data is not None
        assert suggestion(found, data.partition(b"-----END PRIVATE KEY-----\n")[2]).at is None
    assert suggestion(found, data).at is None


CONFIG = """\
settings {{ {settings} }}
server "door" {{
  hosts = ["127.0.0.1:{port}"]
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      acme {{
        directory = "{directory}"
        names     = ["gate.example"]
        contact   = ["mailto:ops@example.com"]
        ca_file   = "{ca_file}"
      }}
    }}
    client_certificate "rule" {{ ca_certificate_file = "ca.crt" }}
  }}
}}
admin {{ listen = "unix:admin.sock" }}
"""


def configured(directory: Path, ca: Pebble, settings: str = "") -> Path:
    """:returns: a configuration of a gate whose certificate the CA issues."""
    text = CONFIG.format(
        port=ca.tls_port, directory=ca.directory, ca_file=ca.ca_file, settings=settings
    )
    (directory / "gate.hcl").write_text(text)
    (directory / "ca.crt").write_bytes(ROOT.pem)
    (directory / "alice.crt").write_bytes(ALICE.pem)
    (directory / "alice.key").write_bytes(ALICE.key_pem)
    return directory / "gate.hcl"


@pytest.mark.parametrize("settings", ["", "workers = 2"])
def test_a_gate_gets_its_first_certificate(tmp_path: Path, settings: str) -> None:
    """In its sandbox; with several workers one orders, and all of them use it."""
    with pebble(tmp_path) as ca:
        config = configured(tmp_path, ca, settings)
        status, text = run(BIN / "mtlsgate", "check", "--config", config)
        assert status == 0
        assert "none yet: the CA has not issued it yet" in text
        with gate(config) as running:
            for _ in range(2 if settings else 1):
                running.read_until("the certificate for gate.example is in use, valid until")
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                for _ in range(4 if settings else 1):
                    assert (
                        "Pebble" in echoed(tmp_path, ca.tls_port, version).issuer.rfc4514_string()
                    )
            status, text = run(BIN / "mtlsgate", "ctl", "--config", config, "status", "--json")
            assert status == 0
            [found] = json.loads(text)["orders"]
            assert found["names"] == ["gate.example"]
            assert found["problem"] is None
            rest = "".join(running.lines) + running.stop()
        assert rest.count("ordering a certificate for gate.example") == 1
        assert rest.count("the CA has issued a certificate") == 1
        assert "Traceback" not in rest
        assert "PRIVATE KEY" not in rest
        status, text = run(BIN / "mtlsgate", "check", "--config", config)
        assert status == 0
        assert "none yet" not in text
    # Without its CA, after a restart.
    with gate(config):
        assert (
            "Pebble"
            in echoed(tmp_path, ca.tls_port, ssl.TLSVersion.TLSv1_3).issuer.rfc4514_string()
        )
