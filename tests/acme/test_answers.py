"""What a CA answers in passing: when to renew (RFC 9773), and how long to wait."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from attrs import define, field

from mtlsgate.acme.ordering import order, suggestion
from mtlsgate.acme.schedule import ASK_EVERY
from mtlsgate.acme.steps import OrderFailed
from mtlsgate.acme.storage import Storage
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.certificates.parsing import parse_certificates
from mtlsgate.testing import Authority

CA = Authority.create("CA")
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=2)


@define
class FakeCa:
    """
    A CA that gives fixed answers.

    :ivar answers: by path: a status, headers and a body; ``URL`` stands for its own.
    :ivar asked: the paths that were asked for.
    """

    answers: dict[str, tuple[int, dict[str, str], Mapping[str, object]]]
    url: str = ""
    asked: list[str] = field(factory=list)


@contextmanager
def answering(directory: Path, ca: FakeCa) -> Iterator[WantedCertificate]:
    """:returns: a context with a certificate that is wanted from this CA."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ca.asked.append(self.path)
            place = self.path if self.path in ca.answers else self.path.rpartition("/")[0]
            status, headers, body = ca.answers[place]
            data = json.dumps(body).replace("URL", ca.url).encode()
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            kind = "application/json" if status == 200 else "application/problem+json"
            for name, value in {"Content-Type": kind, "Replay-Nonce": "abcd", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    made = CA.issue("ca", ip_addresses=["127.0.0.1"], usages=["server_auth"])
    (directory / "web.crt").write_bytes(made.pem)
    (directory / "web.key").write_bytes(made.key_pem)
    (directory / "ca.pem").write_bytes(CA.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "web.crt", directory / "web.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        ca.url = f"https://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield WantedCertificate(
                directory=f"{ca.url}/dir",
                names=("gate.example",),
                storage=Storage(directory / "acme"),
                authorities=tuple(parse_certificates((directory / "ca.pem").read_bytes())),
            )
        finally:
            server.shutdown()
            thread.join()


DIRECTORY = {
    "newNonce": "URL/nonce",
    "newAccount": "URL/account",
    "newOrder": "URL/order",
    "renewalInfo": "URL/renewal",
    "meta": {},
}
LEAF = CA.issue("gate", dns_names=["gate.example"]).pem


def test_the_ca_says_when_to_renew(tmp_path: Path) -> None:
    window = {"start": BEGIN.isoformat(), "end": END.isoformat()}
    info = (200, {"Retry-After": "7200"}, {"suggestedWindow": window})
    ca = FakeCa({"/dir": (200, {}, DIRECTORY), "/renewal": info})
    with answering(tmp_path, ca) as wanted:
        found = suggestion(wanted, LEAF)
    assert found.at is not None
    assert BEGIN <= found.at <= END
    assert timedelta(hours=1.9) < found.again <= timedelta(hours=2)
    [_, asked] = ca.asked
    # RFC 9773, 4.1: the issuer's key identifier, a dot, and the serial number.
    assert len(asked.removeprefix("/renewal/").split(".")) == 2


@pytest.mark.parametrize(
    "info",
    [
        (500, {}, {"type": "urn:ietf:params:acme:error:serverInternal"}),
        (404, {}, {}),
        (200, {}, {"suggestedWindow": {}}),
        (200, {}, {}),
    ],
)
def test_no_answer_is_no_advice(
    tmp_path: Path, info: tuple[int, dict[str, str], Mapping[str, object]]
) -> None:
    ca = FakeCa({"/dir": (200, {}, DIRECTORY), "/renewal": info})
    with answering(tmp_path, ca) as wanted:
        found = suggestion(wanted, LEAF)
    assert (found.at, found.again) == (None, ASK_EVERY)


def limited(headers: dict[str, str], **problem: object) -> FakeCa:
    body = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\x1b[31m"}
    return FakeCa(
        {
            "/dir": (200, {}, DIRECTORY),
            "/nonce": (200, {}, {}),
            "/account": (429, headers, body | problem),
        }
    )


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [({"Retry-After": "86400"}, 86390, 86400), ({}, 3600, 3600)],
)
def test_a_rate_limit_and_how_long_to_wait(
    tmp_path: Path, headers: dict[str, str], least: int, most: int
) -> None:
    with answering(tmp_path, limited(headers)) as wanted, pytest.raises(OrderFailed) as failed:
        order(wanted)
    assert str(failed.value) == r"the CA refuses: rateLimited: too many\x1b[31m"
    assert failed.value.asked is not None
    assert least <= failed.value.asked.total_seconds() <= most


def test_what_is_wrong_with_each_name_is_told(tmp_path: Path) -> None:
    sub = {
        "type": "urn:ietf:params:acme:error:caa",
        "detail": "forbidden",
        "identifier": {"type": "dns", "value": "gate.example"},
    }
    ca = limited({}, type="urn:ietf:params:acme:error:compound", detail="two", subproblems=[sub])
    with answering(tmp_path, ca) as wanted, pytest.raises(OrderFailed) as failed:
        order(wanted)
    text = "the CA refuses: compound: two; gate.example: caa: forbidden"
    assert str(failed.value) == text
    assert failed.value.asked is None


@pytest.mark.parametrize(
    "directory", [{}, {"newNonce": "URL/nonce"}, {"newNonce": 3, "newAccount": 4, "meta": 5}]
)
def test_a_directory_that_makes_no_sense(tmp_path: Path, directory: dict[str, object]) -> None:
    ca = FakeCa({"/dir": (200, {}, directory), "/nonce": (200, {}, {})})
    with answering(tmp_path, ca) as wanted, pytest.raises(OrderFailed) as failed:
        order(wanted)
    assert "makes no sense" in str(failed.value) or "cannot be reached" in str(failed.value)


def test_a_redirect_leads_nowhere(tmp_path: Path) -> None:
    """The gate connects where its configuration says."""
    ca = FakeCa({"/dir": (301, {"Location": "https://127.0.0.1:1/dir"}, {})})
    with answering(tmp_path, ca) as wanted, pytest.raises(OrderFailed):
        order(wanted)
    assert ca.asked == ["/dir"]
