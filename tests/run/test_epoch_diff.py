from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.load.epoch import Epoch
from mtlsgate.run.epoch_diff import epoch_diff
from tests.kits.pki import NOW, pki, site
from tests.kits.revocation import crl, der
from tests.kits.service import ISSUING, PINNED, a_server

CLIENT = 'client_certificate "pinned" {\nca_certificate_file = "issuing.crt"\n%s\n}'
ONE = CLIENT % 'leaf_certificate_file = "client.crt"'
TWO = CLIENT % 'leaf_certificate_file = "clients.crt"'
NAMED = CLIENT % 'pin "a" {\nleaf_certificate_file = "client.crt"%s\n}'


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (a_server(), a_server(), []),
        (a_server(), a_server("other"), ["server door: removed", "server other: added"]),
        (
            a_server(),
            a_server().replace("unix:door.sock", "unix:gate.sock"),
            ["server door: listens on unix:gate.sock, and no longer on unix:door.sock"],
        ),
        (
            a_server(),
            a_server().replace('"echo"', '"whoami"'),
            ["server door: protocol whoami, and no longer echo"],
        ),
        (a_server(), a_server(rest="max_handshakes = 5"), ["server door: other limits"]),
        (
            a_server(),
            a_server(rest="log_admitted = false"),
            ["server door: no longer logs who is admitted"],
        ),
        (
            a_server(),
            a_server().replace("server.crt", "client.crt").replace("server.key", "client.key"),
            ["server door: another server certificate"],
        ),
        (
            a_server(),
            a_server(rules=PINNED),
            [
                "server door: rule fleet removed",
                "server door: rule pinned (CA CN=Issuing CA, 1 pin) added",
            ],
        ),
        (
            a_server(),
            a_server(rules=ISSUING.replace("issuing.crt", "root.crt")),
            ["server door: rule fleet (CA CN=Root CA) changed"],
        ),
        (
            a_server(),
            a_server(rules=ISSUING.replace("}", "max_depth = 3\n}")),
            ["server door: rule fleet (CA CN=Issuing CA, at most 3 intermediates) changed"],
        ),
        (
            a_server(),
            a_server(rules='deny { common_names = ["x"] }\n' + ISSUING),
            ["server door: another deny"],
        ),
        (
            a_server(rules=ONE),
            a_server(rules=TWO),
            ["server door: rule pinned: pin added: CN=other"],
        ),
        (
            a_server(rules=TWO),
            a_server(rules=ONE),
            ["server door: rule pinned: pin removed: CN=other"],
        ),
        (
            a_server(rules=NAMED % ""),
            a_server(rules=NAMED % '\nretire_after = "2031-01-01T00:00:00Z"'),
            ["server door: rule pinned (CA CN=Issuing CA, 1 pin) changed"],
        ),
        (
            a_server(),
            a_server(rules='client_authentication = "none"'),
            ["server door: lets in anyone", "server door: rule fleet removed"],
        ),
        (
            a_server(rules='client_authentication = "none"'),
            a_server(),
            [
                "server door: asks for a certificate",
                "server door: rule fleet (CA CN=Issuing CA) added",
            ],
        ),
    ],
)
def test_what_changes(tmp_path: Path, before: str, after: str, expected: list[str]) -> None:
    """In words that name servers, rules and pins."""
    here = site(tmp_path)
    found = list(epoch_diff(here.load(before), here.load(after)))
    assert [line.partition(" sha256=")[0] for line in found] == expected


def test_many_pins_are_counted(tmp_path: Path) -> None:
    """Of a fleet some are named."""
    from mtlsgate.testing import self_signed

    here = site(tmp_path)
    here.write("fleet.pem", b"".join(self_signed(f"d{number}").pem for number in range(25)))
    pins = 'client_certificate "fleet" { leaf_certificate_file = "%s" }'
    one = here.load(a_server(rules=pins % "stranger.crt"))
    many = here.load(a_server(rules=pins % "fleet.pem"))
    found = list(epoch_diff(one, many))
    assert len(found) == 12
    assert found[10] == "server door: rule fleet: 15 more pins added"
    assert "pin removed: CN=stranger" in found[11]


LISTED = """
client_certificate "fleet" {
  ca_certificate_file = "issuing.crt"
  crl_file = "issuing.crl"
  crl_scope = "leaf"
}
"""


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, [0xA, 0xB], "CRL of CN=Issuing CA added: 2 entries"),
        ([0xA], None, "CRL of CN=Issuing CA removed"),
        ([0xA], [0xA], "CRL of CN=Issuing CA replaced: the same 1 entry"),
        ([], [], "CRL of CN=Issuing CA replaced: the same 0 entries"),
        ([0xA], [0xA, 0x2B], "CRL of CN=Issuing CA replaced: 1 entry added: 2b"),
        (
            [0xA, 0xB],
            [0xC],
            "CRL of CN=Issuing CA replaced: 1 entry added: c; 2 entries removed: a, b",
        ),
        (
            [],
            list(range(1, 26)),
            "CRL of CN=Issuing CA replaced: 25 entries added: 1, 2, 3, 4, 5, 6, 7, 8, 9, a "
            "and 15 more",
        ),
    ],
)
def test_entries_of_revocation_lists(
    tmp_path: Path, before: list[int] | None, after: list[int] | None, expected: str
) -> None:
    """Which were added, and which removed, by their serial numbers."""
    here = site(tmp_path)

    def loaded(serials: list[int] | None, number: int) -> Epoch:
        if serials is None:
            return here.load(a_server(rules=ISSUING))
        here.write("issuing.crl", der(crl(pki().issuing, serials, now=NOW, number=number)))
        return here.load(a_server(rules=LISTED))

    lines = epoch_diff(loaded(before, 1), loaded(after, 2))
    assert lines[0] == f"server door: rule fleet: {expected}"


def test_the_same_revocation_list_is_no_change(tmp_path: Path) -> None:
    """However often it is loaded."""
    here = site(tmp_path)
    here.write("issuing.crl", der(crl(pki().issuing, [1], now=NOW)))
    assert epoch_diff(here.load(a_server(rules=LISTED)), here.load(a_server(rules=LISTED))) == ()
