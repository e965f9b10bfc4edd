from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.certificates.development_ca import Authority, Credential, self_signed
from mtlsgate.errors import ConfigError
from tests.kits.pki import NOW, Site, pki, server, site
from tests.kits.revocation import crl

EXPIRED = {"not_before": NOW - timedelta(days=90), "not_after": NOW - timedelta(days=2)}
FUTURE = {"not_before": NOW + timedelta(days=2), "not_after": NOW + timedelta(days=90)}
SOON = {"not_before": NOW - timedelta(days=90), "not_after": NOW + timedelta(days=29)}


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def pem(*ones: Credential | Authority) -> bytes:
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in ones)


def rule(ca: str | None = None, leaf: str | None = None, label: str = "") -> str:
    lines = [f"client_certificate {label and repr(label).replace(chr(39), chr(34))} {{"]
    if ca is not None:
        lines.append(f'ca_certificate_file = "{ca}"')
    if leaf is not None:
        lines.append(f'leaf_certificate_file = "{leaf}"')
    return "\n".join([*lines, "}"])


@pytest.mark.parametrize(
    "tls",
    [
        rule(ca="root.crt"),
        rule(ca="issuing.crt"),
        rule(ca="bundle.crt"),
        rule(leaf="stranger.crt"),
        rule(leaf="clients.crt"),
        rule(ca="issuing.crt", leaf="clients.crt"),
        rule(ca="bundle.crt", leaf="clients.crt"),
        rule(ca="issuing.crt") + "\n" + rule(ca="root.crt"),
        rule(ca="issuing.crt", leaf="client.crt") + "\n" + rule(leaf="stranger.crt"),
        rule(ca="issuing.crt", leaf="client.crt")
        + "\n"
        + rule(ca="issuing.crt", leaf="clients.crt"),
    ],
)
def test_what_is_in_order_is_not_warned_of(here: Site, tls: str) -> None:
    assert here.warnings(server(tls)) == []


@pytest.mark.parametrize(
    ("validity", "expected"),
    [
        (EXPIRED, "expired on 2026-06-13"),
        (FUTURE, "is not valid before 2026-06-17"),
        (SOON, "expires soon, on 2026-07-14"),
    ],
    ids=["expired", "future", "soon"],
)
def test_a_certificate_outside_its_time_is_warned_of(
    here: Site, validity: dict[str, object], expected: str
) -> None:
    """... and keeps nothing from starting: one bad device pin must not stop a fleet."""
    ca = Authority.create("Old CA", **validity)  # type: ignore[arg-type]
    pin = pki().issuing.issue("old", **validity)  # type: ignore[arg-type]
    shown = pki().root.issue("localhost", usages=["server_auth"], **validity)  # type: ignore[arg-type]
    between = pki().root.intermediate("Old issuer", **validity)  # type: ignore[arg-type]
    other = between.issue("localhost", usages=["server_auth"], now=NOW)
    here.write("ca.crt", pem(pki().root, ca))
    here.write("pin.crt", pem(pki().client, pin))
    for name, one in (("a", shown), ("b", other)):
        here.write(f"{name}.crt", one.pem)
        here.write(f"{name}.key", one.key_pem)
    tls = """\
server_certificate "A" {
public_key_file = "a.crt"
private_key_file = "a.key"
}
server_certificate {
public_key_file = "b.crt"
private_key_file = "b.key"
}
client_certificate "IOT" {
ca_certificate_file = "ca.crt"
}
client_certificate {
ca_certificate_file = "issuing.crt"
leaf_certificate_file = "pin.crt"
}"""
    assert here.warnings(server(tls)) == [
        f'5:1: server_certificate "A": the certificate {expected}',
        f"9:1: server_certificate: the intermediate certificate {expected}",
        f"14:1: client_certificate \"IOT\": the CA 'CN=Old CA' {expected}",
        f"18:1: client_certificate: the pin 'CN=old' {expected}",
    ]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (NOW - timedelta(seconds=1), ["expired on 2026-06-15"]),
        (NOW, ["expires soon, on 2026-06-15"]),
        (NOW + timedelta(days=30, seconds=-1), ["expires soon, on 2026-07-15"]),
        (NOW + timedelta(days=30), []),
    ],
)
def test_soon_is_thirty_days(here: Site, end: object, expected: list[str]) -> None:
    pin = self_signed("pin", not_before=NOW - timedelta(days=90), not_after=end)  # type: ignore[arg-type]
    here.write("pin.crt", pem(pin))
    assert here.warnings(server(rule(leaf="pin.crt"))) == [
        f"6:1: client_certificate: the pin 'CN=pin' {text}" for text in expected
    ]


def test_keys_that_openssl_refuses_are_warned_of(here: Site) -> None:
    short = rsa.generate_private_key(65537, 1024)
    curve = ec.generate_private_key(ec.SECP192R1())
    ca = Authority.create("Short CA", key=short, now=NOW)
    here.write("ca.crt", pem(ca))
    here.write("pin.crt", pem(self_signed("curve", key=curve, now=NOW)))
    assert here.warnings(server(rule(ca="ca.crt") + "\n" + rule(leaf="pin.crt"))) == [
        "6:1: client_certificate: the CA 'CN=Short CA' has a key of 1024 bits: OpenSSL refuses "
        "less than 2048",
        "9:1: client_certificate: the pin 'CN=curve' has a key on secp192r1: OpenSSL refuses "
        "curves of less than 224 bits",
    ]


def test_an_intermediate_that_openssl_refuses_is_warned_of(here: Site) -> None:
    """No handshake succeeds with it, although OpenSSL does not say so at load."""
    weak = Authority.create("Weak", key=rsa.generate_private_key(65537, 1024), now=NOW)
    made = weak.issue("localhost", usages=["server_auth"], now=NOW)
    here.write("server.crt", made.pem + weak.pem)
    here.write("server.key", made.key_pem)
    tls = f"""\
server_certificate {{
public_key_file = "server.crt"
private_key_file = "server.key"
}}
{rule(ca="root.crt")}"""
    assert here.warnings(server(tls)) == [
        "5:1: server_certificate: the intermediate certificate has a key of 1024 bits: OpenSSL "
        "refuses less than 2048"
    ]


def with_sha1(made: Credential) -> Credential:
    """What a certificate is called that was signed with SHA-1; the signature is not one."""
    sha256_with_rsa, sha1_with_rsa = (
        bytes.fromhex(f"06092a864886f70d0101{last}0500") for last in ("0b", "05")
    )
    octets = made.certificate.public_bytes(Encoding.DER)
    assert octets.count(sha256_with_rsa) == 2
    changed = x509.load_der_x509_certificate(octets.replace(sha256_with_rsa, sha1_with_rsa))
    return evolve(made, certificate=changed)


def test_a_signature_that_openssl_refuses_is_warned_of(here: Site) -> None:
    """Where it counts: nobody verifies how an anchor, such as a pin without a CA, was signed."""
    ca = Authority.create("RSA CA", key=rsa.generate_private_key(65537, 2048), now=NOW)
    here.write("ca.crt", pem(ca))
    here.write("pin.crt", pem(with_sha1(ca.issue("weak", now=NOW))))
    text = "6:1: client_certificate: the pin 'CN=weak' is signed with sha1: OpenSSL refuses digests"
    with_ca = here.warnings(server(rule(ca="ca.crt", leaf="pin.crt")))
    assert any(one.startswith(text.replace("6:1", "7:1")) for one in with_ca)
    assert here.warnings(server(rule(leaf="pin.crt"))) == []


def test_a_pin_that_is_a_ca_is_warned_of(here: Site) -> None:
    """... unless it is what ``openssl req -x509`` makes of a client's own key."""
    here.write("pin.crt", pem(self_signed("own", is_ca=True, now=NOW)))
    assert here.warnings(server(rule(leaf="pin.crt"))) == []
    here.write("pin.crt", pem(pki().root.issue("own", is_ca=True, now=NOW)))
    assert here.warnings(server(rule(leaf="pin.crt"))) == [
        "6:1: client_certificate: the pin 'CN=own' is a CA (CA:TRUE): it is admitted itself, and "
        "nothing that it issued is"
    ]


def test_a_pin_for_servers_only_is_warned_of(here: Site) -> None:
    here.write("pin.crt", pem(pki().issuing.issue("srv", usages=["server_auth"], now=NOW)))
    assert here.warnings(server(rule(leaf="pin.crt"))) == [
        "6:1: client_certificate: the pin 'CN=srv' can never be admitted: its extended key usage "
        "does not include clientAuth"
    ]


NEVER = "was not issued by any CA of its rule, so it can never be admitted"
PERHAPS = (
    "was not issued by any CA of its rule: unless an intermediate stands between them, it can "
    "never be admitted"
)


@pytest.mark.parametrize(
    ("ca", "leaf", "expected"),
    [
        ("issuing.crt", "client.crt", []),
        # The intermediate comes with the client's chain.
        ("root.crt", "client.crt", [f"the pin 'CN=client' {PERHAPS}"]),
        ("issuing.crt", "stranger.crt", [f"the pin 'CN=stranger' {NEVER}"]),
        ("root.crt", "stranger.crt", [f"the pin 'CN=stranger' {NEVER}"]),
        ("twin.crt", "client.crt", [f"the pin 'CN=client' {NEVER}"]),
        ("twins.crt", "client.crt", []),
        (
            "twin.crt",
            "clients.crt",
            [f"the pin 'CN=client' {NEVER}", f"the pin 'CN=other' {NEVER}"],
        ),
    ],
)
def test_a_pin_that_its_rules_ca_did_not_issue_is_warned_of(
    here: Site, ca: str, leaf: str, expected: list[str]
) -> None:
    """Also where the CA has the issuer's name, and another key."""
    twin = Authority.create("Issuing CA", now=NOW)
    here.write("twin.crt", pem(twin))
    here.write("twins.crt", pem(twin, pki().issuing))
    found = here.warnings(server(rule(ca=ca, leaf=leaf)))
    assert found == [f"7:1: client_certificate: {text}" for text in expected]


@pytest.mark.parametrize("block", ["allow", "deny"])
@pytest.mark.parametrize(
    "attribute", ["common_names", "organizations", "organizational_units", "email_addresses"]
)
def test_a_star_that_stands_for_itself_is_warned_of(here: Site, block: str, attribute: str) -> None:
    """Whoever means a pattern would keep nobody out with it, or let nobody in."""
    condition = f'{block} {{\n{attribute} = ["press-*", "*.example.com", "press"]\n}}'
    tls = rule(ca="root.crt").replace("\n}", f"\n{condition}\n}}")
    [warning] = here.warnings(server(tls))
    assert f'{block}: {attribute}: "press-*" is compared exactly' in warning


def test_a_rule_that_a_wider_one_shadows_is_warned_of(here: Site) -> None:
    wide, narrow = rule(ca="issuing.crt", label="all"), rule("issuing.crt", "client.crt", "one")
    text = 'has no effect: client_certificate "all" in line {} admits every leaf of the same CA'
    assert here.warnings(server(f"{wide}\n{narrow}")) == [
        f'8:1: client_certificate "one": {text.format(5)}'
    ]
    nameless = narrow.replace(' "one"', "")
    assert here.warnings(server(f"{nameless}\n{wide}")) == [
        f"5:1: client_certificate: {text.format(9)}"
    ]


def test_a_rule_with_a_label_that_comes_first_tells_its_clients_apart(here: Site) -> None:
    """`peer.rule` is "admins" for these and "users" for all others."""
    admins = (
        'client_certificate "admins" {\nca_certificate_file = "issuing.crt"\n'
        'allow { common_names = ["client"] }\n}'
    )
    pinned = rule("issuing.crt", "client.crt", "admins")
    users = rule(ca="issuing.crt", label="users")
    lone = rule(leaf="clients.crt", label="users")
    for first, second in ((admins, users), (pinned, users), (pinned, lone)):
        assert here.warnings(server(f"{first}\n{second}")) == []
        assert "has no effect" in here.warnings(server(f"{second}\n{first}"))[0]


def test_a_rule_is_shadowed_only_if_all_of_it_is(here: Site) -> None:
    some = rule(ca="issuing.crt") + "\n" + rule(ca="bundle.crt", leaf="client.crt")
    assert here.warnings(server(some)) == []
    both = rule(ca="bundle.crt", label="all") + "\n" + rule(ca="bundle.crt", leaf="client.crt")
    assert [one.partition(": ")[2] for one in here.warnings(server(both))] == [
        'client_certificate: has no effect: client_certificate "all" in line 5 admits every leaf '
        "of the same CA"
    ]


def test_a_rule_whose_pins_need_no_ca_elsewhere_is_warned_of(here: Site) -> None:
    tls = rule(ca="issuing.crt", leaf="client.crt") + "\n" + rule(leaf="clients.crt")
    assert here.warnings(server(tls)) == [
        "5:1: client_certificate: has no effect: a rule without a CA admits the same leaves"
    ]
    tls = rule(ca="issuing.crt", leaf="clients.crt") + "\n" + rule(leaf="client.crt")
    assert here.warnings(server(tls)) == []


def test_names_in_warnings_cannot_forge_lines(here: Site) -> None:
    pin = self_signed("a\ngate.hcl:1:1: all is well\x1b[2J", **EXPIRED)  # type: ignore[arg-type]
    here.write("pin.crt", pem(pin))
    (warning,) = here.warnings(server(rule(leaf="pin.crt")))
    assert warning.isprintable()


def test_servers_are_warned_of_each_in_its_place(here: Site) -> None:
    here.write("pin.crt", pem(pki().root.issue("own", is_ca=True, now=NOW)))
    text = server(rule(leaf="pin.crt"), label='"a"') + server(rule(leaf="pin.crt"), label='"b"')
    assert [one.partition(": ")[0] for one in here.warnings(text)] == ["6:1", "15:1"]


def test_an_error_comes_before_warnings(here: Site) -> None:
    here.write("pin.crt", pem(self_signed("own", is_ca=True, now=NOW)))
    with pytest.raises(ConfigError):
        here.load(server(rule(leaf="pin.crt")) + server(rule(leaf="nosuch.crt")))


@pytest.mark.parametrize(
    ("left", "expected"),
    [(timedelta(hours=25), False), (timedelta(hours=23), True), (timedelta(0), True)],
)
def test_a_list_in_the_last_tenth_of_its_period_is_warned_of(
    here: Site, left: timedelta, expected: bool
) -> None:
    """Ten days are its period here, so that one day is the tenth of it."""
    end = NOW + left
    one = crl(pki().issuing, now=NOW, this_update=end - timedelta(days=10), next_update=end)
    here.write("one.crl", one.public_bytes(Encoding.PEM))
    text = 'client_certificate {\nca_certificate_file = "issuing.crt"\ncrl_file = "one.crl"\n}'
    found = here.warnings(server(text))
    assert [one.partition(" expires soon, at ")[2] for one in found] == expected * [end.isoformat()]
    newer = crl(pki().issuing, now=NOW, number=2)
    both = one.public_bytes(Encoding.PEM) + newer.public_bytes(Encoding.PEM)
    here.write("one.crl", both)
    assert here.warnings(server(text)) == []


def test_a_ca_that_the_bundles_root_has_revoked_is_warned_of(here: Site) -> None:
    """A CA of the rule itself is not judged by any list: who trusts it no longer removes it."""
    root, issuing = pki().root, pki().issuing
    good, bad = crl(root, now=NOW), crl(root, [issuing], now=NOW, number=2)
    own = crl(issuing, now=NOW)
    text = 'client_certificate {\nca_certificate_file = "bundle.crt"\ncrl_file = "all.crl"\n}'
    for lists, expected in (((good, own), 0), ((bad, own), 1)):
        here.write("all.crl", b"".join(one.public_bytes(Encoding.PEM) for one in lists))
        found = here.warnings(server(text))
        assert len(found) == expected, found
        assert all(
            "the CA 'CN=Issuing CA' is revoked by the CRL of \"CN=Root CA\"" in one for one in found
        )
    # By a list that another CA of that name signed, nothing is.
    other = Authority.create("Root CA", now=NOW)
    here.write(
        "all.crl",
        b"".join(
            one.public_bytes(Encoding.PEM) for one in (good, own, crl(other, [issuing], now=NOW))
        ),
    )
    assert not [one for one in here.warnings(server(text)) if "is revoked by" in one]


def test_names_of_cas_that_are_left_out_are_warned_of(here: Site) -> None:
    """All or none: a client that finds its CA missing would not offer its certificate."""
    long = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{number:060}")])
        for number in range(500)
    ]
    key = pki().client.private_key
    fleet = [self_signed(None, subject=name, key=key, now=NOW) for name in long]
    here.write("few.crt", pem(*fleet[:300]))
    here.write("many.crt", pem(*fleet))
    assert here.warnings(server(rule(leaf="few.crt"))) == []
    [text] = here.warnings(server(rule(leaf="many.crt")))
    assert re.fullmatch(
        r"4:1: tls: the names of its CAs make a CertificateRequest of \d+ bytes; some clients take "
        r"no more than 32768, so no name is sent: name fewer CAs, or set send_ca_names = false",
        text,
    )
    assert here.warnings(server("send_ca_names = false\n" + rule(leaf="many.crt"))) == []
