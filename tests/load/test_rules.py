"""From ``client_certificate`` and ``tls`` blocks to rules, through whole files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.admission import AdmissionPolicy, Admitted, Rejection, Rule
from mtlsgate.certificates.certificate import views
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.overview import describe
from mtlsgate.reasons import Reason
from tests.kits.pki import NOW, Site, pki, server, site


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def policy(epoch: Epoch, at: int = 0) -> AdmissionPolicy:
    admission = epoch.servers[at].gate.context.admission
    assert admission is not None
    return admission


def only(epoch: Epoch) -> Rule:
    [rule] = policy(epoch).rules
    return rule


def rule(body: str, label: str = "") -> str:
    """:returns: a rule; its body's first line is line 6 of the file."""
    return f"client_certificate {label}{{\n{body}\n}}"


CA = 'ca_certificate_file = "issuing.crt"\n'
OPEN = 'client_authentication = "none"'


# Pins


def pin(name: str, body: str) -> str:
    return f'pin "{name}" {{\n{body}\n}}\n'


def test_pins_add_up(here: Site) -> None:
    """The leaf of the rule, those of its directory, and its pin blocks."""
    (here.directory / "pins").mkdir()
    here.write("pins/other.pem", pki().other.certificate.public_bytes(Encoding.PEM))
    one = only(
        here.load(
            server(
                rule(
                    'leaf_certificate_file = "stranger.crt"\n'
                    'leaf_certificate_dir = "pins"\n'
                    + pin(
                        "client",
                        'leaf_certificate_file = "client.der"\n'
                        'not_before = "2026-01-01T00:00:00Z"\n'
                        'retire_after = "2026-12-31T23:59:59.5+02:00"',
                    )
                )
            )
        )
    )
    assert [(one.name, one.not_before, one.retire_after) for one in one.pins] == [
        (None, None, None),
        (None, None, None),
        (
            "client",
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(2026, 12, 31, 21, 59, 59, 500_000, tzinfo=UTC),
        ),
    ]
    assert [one.certificate for one in one.pins] == list(
        views([made.certificate for made in (pki().stranger, pki().other, pki().client)])
    )


def test_a_planned_rotation_needs_no_reload(here: Site) -> None:
    """The old leaf stops at its moment and the new one begins, without a reload."""
    text = server(
        rule(
            CA
            + pin(
                "old", 'leaf_certificate_file = "client.crt"\nretire_after="2026-06-15T12:00:00Z"'
            )
            + pin("new", 'leaf_certificate_file = "other.crt"\nnot_before="2026-06-15T12:00:01Z"')
        )
    )
    here.write("other.crt", pki().other.certificate.public_bytes(Encoding.PEM))
    loaded = policy(here.load(text))
    paths = [(one.certificate, pki().issuing.certificate) for one in (pki().client, pki().other)]
    later = NOW + timedelta(seconds=1)
    for path, now, expected in (
        (paths[0], NOW, "old"),
        (paths[1], NOW, Reason.PIN_NOT_YET_VALID),
        (paths[0], later, Reason.PIN_RETIRED),
        (paths[1], later, "new"),
    ):
        verdict = loaded.judge(views(path), now)
        if isinstance(verdict, Admitted):
            assert verdict.pin is not None
            assert verdict.pin.name == expected
        else:
            assert verdict.reason is expected


LEAF = 'leaf_certificate_file = "client.crt"\n'
WHEN = 'not an instant; write it as "2027-01-31T12:00:00Z"'


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", '6:1: pin "a": leaf_certificate or leaf_certificate_file is missing'),
        (
            'leaf_certificate_file = "no.crt"',
            '7:1: pin "a": leaf_certificate_file: "no.crt" no such file',
        ),
        (
            'leaf_certificate_file = "clients.crt"',
            '7:1: pin "a": leaf_certificate_file: "clients.crt" holds 2 certificates; a pin is '
            "one: name the leaf alone",
        ),
        (
            'leaf_certificate_file = "client.key"',
            '7:1: pin "a": leaf_certificate_file: "client.key" PEM block 1 of 1 is a PRIVATE KEY, '
            "not a CERTIFICATE",
        ),
        (
            'leaf_certificate = "x"',
            '7:1: pin "a": leaf_certificate: is neither PEM nor DER nor base64 of DER',
        ),
        (LEAF + 'retire_after = "soon"', f'8:16: pin "a": retire_after: {WHEN}'),
        (LEAF + 'retire_after = "2027-01-31"', f'8:16: pin "a": retire_after: {WHEN}'),
        (LEAF + 'not_before = "2027-01-31T12:00:00"', f'8:14: pin "a": not_before: {WHEN}'),
        (
            LEAF + 'not_before = "2027-02-31T12:00:00Z"',
            '8:14: pin "a": not_before: not an instant: day is out of range for month',
        ),
        (
            LEAF + 'retire_after = "2027-01-31T12:00:00+25:00"',
            f'8:16: pin "a": retire_after: {WHEN}',
        ),
        (
            LEAF + 'not_before = "2027-01-01T00:00:00Z"\nretire_after = "2027-01-01T00:00:00Z"',
            '9:1: pin "a": retire_after is not after not_before: it would never count',
        ),
        (
            LEAF
            + 'not_before = "2027-01-01T00:00:00Z"\nretire_after = "2027-01-01T01:00:00+02:00"',
            '9:1: pin "a": retire_after is not after not_before: it would never count',
        ),
        (
            LEAF + "retire_after = 5",
            '8:16: pin "a": retire_after: not an instant; write it as "2027-01-31T12:00:00Z"',
        ),
        (
            LEAF + 'expires = "x"',
            '8:1: pin "a": unknown attribute "expires"',
        ),
    ],
)
def test_pins_in_error(here: Site, body: str, problem: str) -> None:
    [found] = here.problems(server(rule(pin("a", body))))
    assert found.startswith(problem)


def test_pins_need_a_name_of_their_own(here: Site) -> None:
    assert here.problems(server(rule("pin {\n" + LEAF + "}"))) == [
        '6:1: pin: needs a label: pin "…" {'
    ]
    assert here.problems(server(rule(pin("a", LEAF) + pin("a", LEAF)))) == [
        '10:1: pin "a": this label is taken by the block in line 6'
    ]


# Conditions, depth


def test_conditions_keep_the_order_of_the_file(here: Site) -> None:
    """Blocks and attributes in the order of the file; several blocks add up."""
    one = only(
        here.load(
            server(
                rule(
                    CA
                    + """\
max_depth = 1
allow {
common_names = ["a", "b"]
dns_names = ["*.b.example"]
}
allow {
serial_numbers = ["0A:1b"]
}
deny {
sha256 = ["%s"]
}"""
                    % ("ab" * 32)
                )
            )
        )
    )
    assert one.max_depth == 1
    assert [
        [(each.attribute, each.written) for each in condition.clauses] for condition in one.allow
    ] == [
        [("common_names", ("a", "b")), ("dns_names", ("*.b.example",))],
        [("serial_numbers", ("0A:1b",))],
    ]
    assert [each.attribute for condition in one.deny for each in condition.clauses] == ["sha256"]


def test_deny_of_a_server_is_for_all_rules(here: Site) -> None:
    epoch = here.load(
        server(
            'deny { common_names = ["client"] }\n'
            + rule(CA)
            + "\n"
            + rule('leaf_certificate_file = "clients.crt"')
        )
    )
    path = views((pki().client.certificate, pki().issuing.certificate))
    verdict = policy(epoch).judge(path, NOW)
    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.DENIED
    assert isinstance(
        policy(epoch).judge(views((pki().other.certificate, *path[1:])), NOW), Admitted
    )


NOTHING = "states nothing, which would match everything: name an attribute"


@pytest.mark.parametrize(
    ("tls", "problems"),
    [
        (rule(CA + "allow {}"), [f"7:1: allow: {NOTHING}"]),
        (rule(CA + "deny {}"), [f"7:1: deny: {NOTHING}"]),
        (rule(CA) + "\ndeny {}", [f"9:1: deny: {NOTHING}"]),
        (
            rule(CA + "allow { common_names = [] }"),
            ["7:9: allow: common_names is empty, which nothing matches: name a value"],
        ),
        (
            rule(CA + 'allow { common_names = "a" }'),
            ["7:24: allow: common_names: must be a list, not a string: put it in [brackets]"],
        ),
        (
            rule(CA + 'allow { common_names = ["a", 5] }'),
            ["7:30: allow: common_names: must be a string, not a whole number: put it in quotes"],
        ),
        (
            rule(CA + 'allow { common_name = ["a"] }'),
            ['7:9: allow: unknown attribute "common_name"; did you mean "common_names"?'],
        ),
        (rule(CA + 'allow "x" { common_names = ["a"] }'), ['7:1: allow "x": takes no label']),
        (
            rule(CA + 'allow { dns_names = ["a", "*", "b.*"] }'),
            [
                '7:27: allow: dns_names: "*" a "*" is one whole label, and the first: write '
                '"*.b.example"',
                '7:32: allow: dns_names: "b.*" a "*" is one whole label, and the first: write '
                '"*.b.example"',
            ],
        ),
        (
            rule(CA + 'allow { uris = ["**"] }'),
            ['7:17: allow: uris: "**" would match everything'],
        ),
        (
            rule(CA) + '\ndeny { spiffe_ids = ["spiffe://*/a"] }',
            [
                '9:22: deny: spiffe_ids: "spiffe://*/a" a pattern never crosses trust domains: '
                "name one"
            ],
        ),
        (
            rule(CA + "max_depth = -1"),
            ["7:1: client_certificate: max_depth is a number of intermediates: 0 or more"],
        ),
        (
            rule(CA + "max_depth = 1.5"),
            ["7:13: client_certificate: max_depth: must be a whole number, not a number"],
        ),
        (
            rule(LEAF + "max_depth = 1"),
            ["7:1: client_certificate: max_depth needs a CA: a leaf alone has no path to count"],
        ),
        (
            rule('crl_file = "a.crl"\n' + LEAF),
            [
                "6:1: client_certificate: crl_file needs a CA: it is the CA that revokes",
                '6:1: client_certificate: crl_file: "a.crl" no such file',
            ],
        ),
        (
            rule('crl_dir = "crls"\n' + LEAF),
            [
                "6:1: client_certificate: crl_dir needs a CA: it is the CA that revokes",
                '6:11: client_certificate: crl_dir: "crls" no such directory',
            ],
        ),
        (
            rule('crl_scope = "leaf"\n' + CA),
            [
                "6:1: client_certificate: crl_scope has no effect without crl_file, crl_dir or "
                "crl_url"
            ],
        ),
        (
            rule('crl_scope = "all"\ncrl_file = "a.crl"\n' + CA),
            [
                '6:13: client_certificate: crl_scope: must be "path" or "leaf"',
                '7:1: client_certificate: crl_file: "a.crl" no such file',
            ],
        ),
        (
            rule('allow { common_names = ["a"] }'),
            [
                "5:1: client_certificate: neither a CA nor a leaf: set ca_certificate(_file), "
                "leaf_certificate(_file) or both"
            ],
        ),
        (
            OPEN + '\ndeny { common_names = ["a"] }',
            [
                '5:1: tls: client_authentication = "none" asks for no certificate, so deny would '
                "never hold: remove one or the other"
            ],
        ),
        (
            OPEN + "\nsession_resumption = true",
            [
                "6:1: tls: session_resumption is for verified clients: a session without a "
                "certificate has nothing to be judged again by"
            ],
        ),
        (
            rule(CA) + '\nsession_lifetime = "1h"',
            ["9:1: tls: session_lifetime needs session_resumption = true"],
        ),
        (
            rule(CA) + '\nsession_resumption = true\nsession_lifetime = "0s"',
            [
                "10:20: tls: session_lifetime: a duration must be longer than zero and shorter "
                "than ten years"
            ],
        ),
        (
            rule(CA) + '\nsession_resumption = "yes"',
            ["9:22: tls: session_resumption: must be true or false, not a string"],
        ),
        (
            rule(CA) + "\nsend_ca_names = 1",
            ["9:17: tls: send_ca_names: must be true or false, not a whole number"],
        ),
        (
            rule(CA) + '\nverification = "twice"',
            ['9:16: tls: verification: must be "strict" or "compatible" or "double"'],
        ),
    ],
)
def test_a_wrong_rule_is_refused_at_its_place(here: Site, tls: str, problems: list[str]) -> None:
    assert here.problems(server(tls)) == problems


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("", (None, True, True, False)),
        ("session_resumption = false", (None, True, True, False)),
        ("session_resumption = true", (3600.0, True, True, False)),
        (
            'session_resumption = true\nsession_lifetime = "90s"',
            (90.0, True, True, False),
        ),
        ("send_ca_names = false", (None, False, True, False)),
        ('verification = "strict"', (None, True, True, False)),
        ('verification = "compatible"', (None, True, False, False)),
        ('verification = "double"', (None, True, True, True)),
    ],
)
def test_settings_of_tls_reach_the_policy(
    here: Site, tls: str, expected: tuple[object, ...]
) -> None:
    built = here.load(server(f"{tls}\n{rule(CA)}")).servers[0].gate.context.policy
    assert (
        built.session_lifetime,
        built.send_ca_names,
        built.strict,
        built.always_ask_twice,
    ) == expected


def test_all_is_said_in_one_go(here: Site) -> None:
    """What can be read of a file that is in error is read, and its problems are told."""
    text = server(
        rule(
            'ca_certificate_file = "client.crt"\n'
            'leaf_certificate_dir = "no"\n'
            'crl_file = "no.crl"\n'
            'allow { ip_addresses = ["::/0"] }\n'
            + pin("a", 'leaf_certificate_file = "no.crt"')
            + "bogus = 1"
        )
    )
    assert [one.partition(": ")[0] for one in here.problems(text)] == [
        "6:1",
        "7:24",
        "8:1",
        "9:25",
        "11:1",
        "13:1",
    ]


def test_what_it_says_of_itself(here: Site) -> None:
    """The start-up line names whatever a rule demands."""
    text = rule(
        CA
        + 'leaf_certificate_file = "clients.crt"\nmax_depth = 2\n'
        + 'allow { common_names = ["client"] }\ndeny { common_names = ["x"] }',
        '"IOT" ',
    )
    [loaded] = here.load(server(text, label='"devices"')).servers
    assert describe(loaded, ["127.0.0.1:1"]) == (
        "devices: listening on 127.0.0.1:1; admits by rule IOT (CA CN=Issuing CA, 2 pins, allow, "
        "deny, at most 2 intermediates); protocol echo"
    )
