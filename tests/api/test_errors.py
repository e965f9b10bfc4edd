"""
What a gate in Python says is wrong: in Python's words, with everything in one go.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

import mtlsgate
from mtlsgate import Allow, ConfigError, Deny, Gate, Pin
from mtlsgate import Rule as TypedRule
from mtlsgate.errors import GateError
from tests.kits.application import Certificates

#: What follows is wrong on purpose, and mypy knows.
Rule: Any = TypedRule
SERVER = ("server.crt", "server.key")
FLEET = Rule("fleet", ca="fleet-ca.crt")
PAIR = "Gate: certificate: must be a pair (certificate, key), a Svid, or a list of these"
KIND = ": pass a path, PEM or DER bytes, or an object of cryptography"
DURATION = 'not a duration; write it as "250ms", "10s", "5m" or "1h"'


def problems(*rules: Any, certificate: Any = SERVER, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Gate(certificate=certificate, rules=rules or [FLEET], **options)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (partial(Rule, "x"), "Rule 'x': neither a CA nor a leaf: set ca, leaf or both"),
        (partial(Rule, "x", ca="no.crt"), "Rule 'x': ca: \"no.crt\" no such file"),
        (partial(Rule, "x", ca=["fleet-ca.crt", "no"]), "Rule 'x': ca: \"no\" no such file"),
        (partial(Rule, "x", ca=""), "Rule 'x': ca: is empty: name a file"),
        (partial(Rule, "x", leaf=" "), "Rule 'x': leaf: is empty: name a file"),
        (partial(Rule, "x", leaf=b""), "Rule 'x': leaf: is empty"),
        (partial(Rule, "x", leaf=[]), "Rule 'x': leaf: is an empty list"),
        (
            partial(Rule, "x", ca="fleet-ca.crt", allow=[]),
            "Rule 'x': allow: is an empty list: leave it out to admit without it",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", pin=[]),
            "Rule 'x': pin: is an empty list: leave it out to admit without it",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", allow=iter([Allow(sha256=["ab"])])),
            "Rule 'x': allow: must be a list of Allow, not list_iterator",
        ),
        (partial(Rule, "x", leaf=7), f"Rule 'x': leaf: cannot be of type int{KIND}"),
        (partial(Rule, "x", ca=[None]), f"Rule 'x': ca: cannot be of type NoneType{KIND}"),
        (
            partial(Rule, "x", ca="alice.crt"),
            "Rule 'x': ca: \"alice.crt\" the certificate is not a CA (CA:FALSE): to admit exactly "
            "it, write leaf",
        ),
        (partial(Rule, "x", leaf_certificate_dir=""), "Rule 'x': leaf_certificate_dir: is empty"),
        (partial(Rule, "x", ca="fleet-ca.crt", crl_dir=""), "Rule 'x': crl_dir: is empty"),
        (
            partial(Rule, "x", leaf_certificate_dir="."),
            'Rule \'x\': leaf_certificate_dir: "." holds "server.crt", which is the gate\'s own: '
            "name a directory that holds nothing else",
        ),
        (
            partial(Rule, "x", leaf="alice.crt", crl="fleet.crl"),
            "Rule 'x': crl needs a CA: it is the CA that revokes",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", max_depth="1"),
            "Rule 'x': max_depth: must be a whole number, not a string: write 1, without quotes",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", crl_scope="leaf"),
            "Rule 'x': crl_scope has no effect without crl, crl_dir or crl_url",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", allow=Allow(sha256=["ab"])),
            "Rule 'x': allow: must be a list of Allow, not Allow",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", allow=[Deny(sha256=["ab"])]),
            "Rule 'x': allow: must hold Allows, not Deny",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", allow=[Allow()]),
            "Allow: states nothing, which would match everything: name an attribute",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", allow=[Allow(dns_names="a.example")]),
            "Allow: dns_names: must be a list, not a string: put it in [brackets]",
        ),
        (
            partial(Rule, "x", ca="fleet-ca.crt", deny=[Deny(dns_names=[""])]),
            "Deny: dns_names: is empty",
        ),
        (
            partial(Rule, "x", pin=[Pin("p", "no.crt")]),
            "Pin 'p': leaf: \"no.crt\" no such file",
        ),
        (
            partial(Rule, "x", pin=[Pin("p", "alice.crt", retire_after=datetime(2030, 1, 1))]),
            "Pin 'p': retire_after: not an instant; write it as \"2027-01-31T12:00:00Z\"",
        ),
        (
            partial(Rule, "x", pin=[Pin("p", "alice.crt"), Pin("p", "bob.crt")]),
            "Rule 'x': pin: two of them are called 'p'",
        ),
        (
            partial(Rule, "", leaf="alice.crt"),
            "Rule '': the name must be a string that is not empty",
        ),
    ],
)
def test_a_wrong_rule_is_one_plain_error(here: Certificates, rule: Any, expected: str) -> None:
    assert problems(rule()) == [f"Gate: {expected}"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"certificate": "server.crt"}, [PAIR]),
        ({"certificate": ["server.crt", "server.key"]}, [PAIR]),
        ({"certificate": []}, ["Gate: certificate: is empty: pass (certificate, key)"]),
        ({"certificate": ("no.crt", "server.key")}, ['Gate: certificate: "no.crt" no such file']),
        (
            {"certificate": ("server.crt", "alice.key")},
            ['Gate: key: "alice.key" the private key is not that of the certificate'],
        ),
        (
            {"max_connections": 0},
            ["Gate: max_connections must be more than 0; leave it out for no limit"],
        ),
        (
            {"max_connections": True},
            ["Gate: max_connections: must be a whole number, not true or false"],
        ),
        ({"min_version": "1.1"}, ['Gate: min_version: must be "1.2" or "1.3"']),
        ({"idle_timeout": "ten"}, [f"Gate: idle_timeout: {DURATION}"]),
        ({"idle_timeout": math.nan}, [f"Gate: idle_timeout: {DURATION}"]),
        (
            {"idle_timeout": timedelta(0)},
            ["Gate: idle_timeout: a duration must be longer than zero and shorter than ten years"],
        ),
        (
            {"trusted_proxies": []},
            ['Gate: trusted_proxies has no effect without proxy_protocol = "required"'],
        ),
        ({"server_names": "a.example"}, ["Gate: server_names: must be a list, not a string"]),
        (
            {"authorize": 7},
            [
                'Gate: authorize: "the object given" is a int; name a function or what provides '
                "IAuthorizer"
            ],
        ),
        ({"authorize_timeout": 1}, ["Gate: authorize_timeout has no effect without authorize"]),
        (
            {"client_authentication": "none"},
            [
                'Gate: client_authentication = "none" lets in anyone, so no Rule would be heard: '
                "remove one or the other"
            ],
        ),
    ],
)
def test_a_wrong_option_is_one_plain_error(
    here: Certificates, options: dict[str, Any], expected: list[str]
) -> None:
    found = problems(**options)
    assert len(found) == len(expected)
    assert all(one.startswith(text) for one, text in zip(found, expected, strict=True)), found


def test_all_that_is_wrong_is_told_in_one_go(here: Certificates) -> None:
    rules = [Rule("a"), Rule("a", leaf="alice.crt"), Rule("b", ca="fleet-ca.crt", max_depth=-1)]
    assert problems(*rules, certificate=None, max_connections="x") == [
        PAIR,
        "Gate: rules: two of them are called 'a'",
        "Gate: Rule 'a': neither a CA nor a leaf: set ca, leaf or both",
        "Gate: Rule 'b': max_depth is a number of intermediates: 0 or more",
        "Gate: max_connections: must be a whole number, not a string",
    ]


def test_no_rule_at_all(here: Certificates) -> None:
    with pytest.raises(ConfigError) as caught:
        Gate(certificate=SERVER)
    assert str(caught.value) == (
        "Gate: no Rule says who may come in: add one, or set "
        'client_authentication = "none" to let in anyone'
    )


def test_an_unknown_option_is_an_error_of_the_program(here: Certificates) -> None:
    gate: Any = Gate
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_conections'"):
        gate(certificate=SERVER, rules=[FLEET], max_conections=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_conections'"):
        gate(certificate=SERVER, rules=[FLEET]).reload(max_conections=1)


def test_no_message_holds_what_is_secret(here: Certificates) -> None:
    """PEM where a name belongs, keys where certificates belong."""
    key = here.people["alice"].key_pem
    secret = key.decode().split("\n")[1]
    for given in (key, key.decode(), ["alice.crt", key]):
        [text] = problems(Rule("x", leaf=given))
        assert secret not in text
        assert "PRIVATE KEY, not a CERTIFICATE" in text
    gate = Gate(certificate=("server.crt", here.people["server"].key_pem), rules=[FLEET])
    assert "PRIVATE" not in repr(gate)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("nonsense", "not an address"),
        ("127.0.0.1:99999", "the port is out of range"),
    ],
)
def test_where_it_cannot_listen(here: Certificates, running: Any, host: str, text: str) -> None:
    endpoint = Gate(certificate=SERVER, rules=[FLEET]).endpoint(running.reactor, host)
    with pytest.raises(GateError, match=text):
        running.listen(endpoint, None)


def test_no_host(here: Certificates, running: Any) -> None:
    with pytest.raises(GateError, match='name where to listen, as in "tcp:8443"'):
        Gate(certificate=SERVER, rules=[FLEET]).endpoint(running.reactor)


def test_warnings_are_there_to_read(here: Certificates) -> None:
    ends = here.people["alice"].certificate.not_valid_after_utc
    now = ends - timedelta(days=9)
    gate = Gate(certificate=SERVER, rules=[Rule("x", leaf="alice.crt")], now=lambda: now)
    assert any("Gate: Rule 'x': the pin 'CN=alice' expires soon" in one for one in gate.warnings)


def test_the_public_names_are_all_there() -> None:
    assert {name: getattr(mtlsgate, name) for name in mtlsgate.__all__}
    with pytest.raises(AttributeError, match="has no attribute 'Gates'"):
        _ = mtlsgate.Gates
