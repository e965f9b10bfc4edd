from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.admission import Pin, Rule, lone_pins_of
from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.certificates.development_ca import Authority
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.overview import overview
from tests.kits.forgery import raw
from tests.kits.pki import NOW, Site, pki, server, site

CLIENT, OTHER, STRANGER = pki().client, pki().other, pki().stranger


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def only(epoch: Epoch) -> Rule:
    [loaded] = epoch.servers
    assert loaded.gate.context.admission is not None
    [rule] = loaded.gate.context.admission.rules
    return rule


def test_what_a_pin_keeps() -> None:
    """The DER, its digest and no certificate, so that a fleet fits in memory."""
    pin = Pin(CLIENT.certificate, "name")
    assert pin.der == CLIENT.certificate.public_bytes(Encoding.DER)
    assert pin.digest == view(CLIENT.certificate).sha256
    assert pin.certificate == view(CLIENT.certificate)
    assert not any(
        isinstance(one, Certificate | x509.Certificate) for one in attrs.astuple(pin, recurse=False)
    )


def test_equal_pins() -> None:
    """Two of the same leaf are equal if name and times are."""
    assert Pin(CLIENT.certificate) == Pin(CLIENT.certificate)
    assert hash(Pin(CLIENT.certificate)) == hash(Pin(CLIENT.certificate))
    assert Pin(CLIENT.certificate) != Pin(OTHER.certificate)
    assert Pin(CLIENT.certificate) != Pin(CLIENT.certificate, "name")
    assert CLIENT.certificate.public_bytes(Encoding.DER).hex() not in repr(Pin(CLIENT.certificate))


def test_a_serial_number_that_cryptography_warns_of(here: Site) -> None:
    """Nothing warns of it when the pin is read, nor when it is looked at again."""
    odd = raw(Authority.create("CA"), CLIENT.private_key, serial=b"\xff")
    here.write("odd.der", odd)
    epoch = here.load(server('client_certificate { leaf_certificate_file = "odd.der" }'))
    rule = only(epoch)
    assert [pin.der for pin in rule.pins] == [odd]
    assert [one.der for one in lone_pins_of([rule])] == [odd]
    assert any(rule.pins[0].digest.hex() in line for line in overview(epoch, NOW))


def test_an_allow_block_that_any_pin_satisfies(here: Site) -> None:
    """... is not warned of, wherever the pin was read; one that none does is."""
    pems = {one: one.certificate.public_bytes(Encoding.PEM) for one in (CLIENT, OTHER, STRANGER)}
    (here.directory / "pins").mkdir()
    here.write("pins/other.pem", pems[OTHER])
    here.write("leaf.pem", pems[CLIENT])
    tls = """client_certificate {
leaf_certificate_file = "leaf.pem"
leaf_certificate_dir = "pins"
pin "third" { leaf_certificate_file = "stranger.crt" }
allow { common_names = ["client"] }
allow { common_names = ["other"] }
allow { common_names = ["stranger"] }
allow { common_names = ["nobody"] }
}"""
    assert here.warnings(server(tls)) == [
        "12:1: client_certificate: no pin of the rule satisfies this allow block"
    ]


def test_a_pin_that_its_server_denies(here: Site) -> None:
    """The server's blocks count as the rule's do; each pin is named at its place."""
    tls = """deny { common_names = ["client"] }
client_certificate {
leaf_certificate_file = "client.crt"
pin "second" { leaf_certificate_file = "stranger.crt" }
deny { common_names = ["stranger"] }
}"""
    assert here.warnings(server(tls)) == [
        "7:1: client_certificate: the pin 'CN=client' is denied by a deny block",
        "8:1: client_certificate: the pin 'CN=stranger' is denied by a deny block",
    ]
