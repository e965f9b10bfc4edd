"""
Text for people: nothing that looks like a secret, nothing that forges a line.
"""

from __future__ import annotations

import pytest

from mtlsgate.text import first_line, looks_secret, quoted, shown


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "-----BEGIN PRIVATE KEY-----",
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZk1VKq8vXy3TnB7w",
        "x: MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZk1V and more",
        "9d1a8d7b4c2f6e5a3b0918273645546372819a0b",
        "0123456789abcdef0123456789abcdef",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOHcbrzqgy",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc",
        "AKIA4X7Q2Z9P1W3E5R7T",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    assert looks_secret(text)
    for said in (quoted(text), shown(text)):
        assert said == f"(what looks like a secret, {len(text)} characters)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleet-ca.crt",
        "/etc/ssl/certs/MyCompanyRootCertificateAuthority2024G2.pem",
        "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt",
        "spiffe://plants.example/region/europe-west3/sensor/000000000001",
        "spiffe://td.example/6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "client-certificate-of-the-plant-at-north-2026",
        "systemd:domain=INET:index=0",
        "CN=Issuing CA 1,O=Plants,OU=Gateways of the north",
        "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:8443",
        "handshakes_per_second_per_ip",
        "c" * 100,
        "0" * 64,
    ],
)
def test_names_are_shown(text: str) -> None:
    """What people call things is not taken for a secret."""
    assert not looks_secret(text)
    assert quoted(text) == f'"{text}"'


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
