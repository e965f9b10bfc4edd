"""
``mtls:`` in a string, by Twisted's own parsers: servers, clients, and `twistd web`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.plugin import getPlugins

from mtlsgate import ConfigError
from mtlsgate.upstream.verified import NotVerified
from tests.kits.application import CONFIG, VERSIONS, Certificates, Client, Greeters, Loop, admitted

OWN = "certificate=server.crt:key=server.key"


@pytest.mark.parametrize(
    "interface", [IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor]
)
def test_twisted_finds_it(interface: Any) -> None:
    assert [one.prefix for one in getPlugins(interface) if one.prefix == "mtls"] == ["mtls"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("ca=fleet-ca.crt", {"alice", "bob"}),
        ("ca=fleet-ca.crt:leaf=alice.crt", {"alice"}),
        ("leaf=mallory.crt", {"mallory"}),
        ("ca=fleet-ca.crt:common_names=bob,carol", {"bob"}),
        (r"ca=fleet-ca.crt:spiffe_ids=spiffe\://plants.example/sensor/*", {"alice"}),
        ("ca=fleet-ca.crt:handshake_timeout=5s:max_depth=0:send_ca_names=false", {"alice", "bob"}),
    ],
)
def test_a_server(
    here: Certificates, running: Loop, stated: str, expected: set[str], version: str
) -> None:
    text = f"mtls:0:interface=127.0.0.1:{stated}:{OWN}"
    port = running.listen(serverFromString(running.reactor, text), Greeters())
    assert admitted(running, Client(here.directory, port.getHost()), version) == expected


@pytest.mark.parametrize("where", ["0:interface=127.0.0.1:", ""])
def test_a_server_of_a_configuration(scratch: Path, running: Loop, where: str) -> None:
    """... where the string says, or else where the file does."""
    (scratch / "gate.hcl").write_text(CONFIG)
    text = f"mtls:{where}config=gate.hcl:server=devices"
    port = running.listen(serverFromString(running.reactor, text), Greeters())
    assert admitted(running, Client(scratch, port.getHost())) == {"alice", "bob"}


@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        ("8443", ValueError, "mtls: certificate and key missing: name the server's certificate"),
        (f"8443:{OWN}", ConfigError, "Gate: no Rule says who may come in"),
        ("8443:config=no.hcl", ConfigError, "no.hcl:1:1: configuration: no such file"),
        (f"8443:config=no.hcl:{OWN}", ValueError, "mtls: unknown option 'certificate'"),
        (f"8443:{OWN}:ca=fleet-ca.crt:cert=x", ValueError, "mtls: unknown option 'cert'"),
        (f"8443:{OWN}:ca=", ConfigError, "Gate: Rule 'gate': ca: is empty: name a file"),
        (f"8443:{OWN}:ca=no.crt", ConfigError, "Gate: Rule 'gate': ca: \"no.crt\" no such file"),
        (f"8443:{OWN}:leaf=alice.crt:max_depth=x", ValueError, "max_depth must be a whole number"),
        (f"8443:{OWN}:leaf=alice.crt:default_server=1", ValueError, 'must be "true" or "false"'),
        (f"8443:{OWN}:leaf=alice.crt:min_version=1.1", ConfigError, 'must be "1.2" or "1.3"'),
    ],
)
def test_a_server_in_error(
    here: Certificates, running: Loop, text: str, kind: type[Exception], problem: str
) -> None:
    with pytest.raises(kind) as caught:
        serverFromString(running.reactor, f"mtls:{text}")
    assert problem in str(caught.value)


class Asker(Protocol):
    """Says hello, and notes the answer."""

    answer = b""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.answer += data


class Dialled(Factory):
    """Counts whom it was connected to."""

    noisy = False
    protocol = Asker
    count = 0

    def buildProtocol(self, addr: object) -> Asker:
        self.count += 1
        return Asker()


def dial(running: Loop, text: str) -> Any:
    dialled = Dialled()
    try:
        return running.wait(clientFromString(running.reactor, text).connect(dialled))
    finally:
        assert dialled.count <= 1


@pytest.fixture
def listening(here: Certificates, running: Loop) -> int:
    text = f"mtls:0:interface=127.0.0.1:ca=fleet-ca.crt:{OWN}"
    port: Any = running.listen(serverFromString(running.reactor, text), Greeters())
    return int(port.getHost().port)


ALICE = "certificate=alice.crt:key=alice.key"


@pytest.mark.parametrize(
    "stated", ["{host}:ca=fleet-ca.crt", "127.0.0.1:{port}:ca=fleet-ca.crt:server_name=localhost"]
)
def test_a_client(listening: int, running: Loop, stated: str) -> None:
    text = stated.replace("{host}", "localhost:{port}").format(port=listening)
    protocol = dial(running, f"mtls:{text}:{ALICE}")
    running.until(lambda: protocol.answer)
    assert protocol.answer == b"hello alice by gate"


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ("127.0.0.1:{port}:ca=fleet-ca.crt", "it is not 127.0.0.1: the certificate is for localh"),
        ("localhost:{port}:ca=office-ca.crt", "the issuer is unknown"),
        ("localhost:{port}:ca=fleet-ca.crt:server_name=other.example", "it is not other.example"),
    ],
)
def test_a_client_refuses_another_server(
    listening: int, running: Loop, stated: str, problem: str
) -> None:
    """No protocol is built for a server that is not the one meant."""
    with pytest.raises(NotVerified, match=problem):
        dial(running, f"mtls:{stated.format(port=listening)}:{ALICE}")


def test_a_client_refuses_a_server_without_a_name(
    scratch: Path, shared: Certificates, running: Loop
) -> None:
    """A certificate of the right CA that says no name at all is nobody's."""
    own = shared.fleet.issue("localhost", dns_names=[], usages=["server_auth"])
    (scratch / "server.crt").write_bytes(own.pem)
    (scratch / "server.key").write_bytes(own.key_pem)
    text = f"mtls:0:interface=127.0.0.1:ca=fleet-ca.crt:{OWN}"
    port: Any = running.listen(serverFromString(running.reactor, text), Greeters())
    with pytest.raises(NotVerified, match="it is not localhost"):
        dial(running, f"mtls:localhost:{port.getHost().port}:ca=fleet-ca.crt:{ALICE}")


@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        ("h:1", ConfigError, 'ca: missing: name the CAs to verify the server with, or "system"'),
        ("h:1:ca=no.crt", ConfigError, 'ca: "no.crt" no such file'),
        ("h:1:ca=fleet-ca.crt:key=alice.key", ConfigError, "certificate: missing"),
        ("h:1:ca=fleet-ca.crt:certificate=alice.crt", ConfigError, "key: missing"),
        ("h:1:ca=fleet-ca.crt:certificate=alice.crt:key=bob.key", ConfigError, 'key: "bob.key"'),
        ("h*:1:ca=fleet-ca.crt", ConfigError, "server_name must be a DNS name"),
        ("h:x:ca=fleet-ca.crt", ValueError, "the port must be a number from 1 to 65535"),
        ("h:1:ca=fleet-ca.crt:timeout=soon", ValueError, "timeout must be a number of seconds"),
        ("h:1:ca=fleet-ca.crt:verify=no", ValueError, "unknown option 'verify'"),
    ],
)
def test_a_client_in_error(
    here: Certificates, running: Loop, text: str, kind: type[Exception], problem: str
) -> None:
    with pytest.raises(kind) as caught:
        clientFromString(running.reactor, f"mtls:{text}")
    assert problem in str(caught.value)


def test_the_plugins_cost_no_start(tmp_path: Path) -> None:
    """Twisted imports every plugin whenever it looks for one: neither OpenSSL nor the
    gate is imported for that."""
    code = (
        "import sys, twisted.plugins.mtlsgate_plugin as plugin\n"
        "assert plugin.mtls_server.prefix == plugin.mtls_client.prefix == 'mtls'\n"
        "print(sorted(one for one in sys.modules if one in ('OpenSSL', 'mtlsgate.api.gate',"
        " 'mtlsgate.load.loading', 'twisted.internet.reactor')))"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "[]\n"
