"""``acme`` blocks: what is wrong with one is said at its place, and nobody is asked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mtlsgate import Gate
from mtlsgate.certificates.parsing import MissingCredential
from mtlsgate.errors import ConfigError
from mtlsgate.load import acme
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.loading import load
from mtlsgate.run.listening import entrance_of, places_of
from tests.kits.acme import MemoryCa
from tests.kits.pki import NOW, pki, site

BLOCK = 'directory = "https://ca.example:8000/dir"\nnames = ["gate.example"]'


def config(
    block: str = BLOCK, hosts: str = '"127.0.0.1:443"', more: str = "", own: str = ""
) -> str:
    return f"""\
server "door" {{
  hosts = [{hosts}]
  {more}
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      {own}
      acme {{
{block}
      }}
    }}
    client_certificate {{ ca_certificate_file = "issuing.crt" }}
  }}
}}
"""


class Here:
    def __init__(self, directory: Path) -> None:
        self.site = site(directory)
        self.directory = directory

    def load(self, text: str, **environ: str) -> Epoch:
        self.site.write("gate.hcl", text)
        return load(str(self.directory / "gate.hcl"), environ, lambda: NOW)

    def problems(self, text: str) -> list[str]:
        """:returns: the errors, without the file's name."""
        with pytest.raises(ConfigError) as failed:
            self.load(text)
        path = f"{self.directory / 'gate.hcl'}:"
        return [line.removeprefix(path) for line in str(failed.value).splitlines()]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ('names = ["a.example"]', "directory is missing"),
        ('directory = "https://ca.example/"', "names is missing"),
        ('directory = "http://ca.example/"\nnames = ["a.example"]', "must begin with https://"),
        ('directory = "ca.example"\nnames = ["a.example"]', 'begins with "http://"'),
        ('directory = "https://ca.example/"\nnames = []', "names is empty"),
        (BLOCK.replace("gate.example", "*.example"), "no CA validates a wildcard by TLS-ALPN-01"),
        (BLOCK.replace("gate.example", "192.0.2.1"), "is no DNS name"),
        (BLOCK.replace("gate.example", "gate.example."), "is no DNS name"),
        (BLOCK.replace("gate.example", "gäte.example"), "is no DNS name"),
        (BLOCK.replace("gate.example", "../lock"), "is no DNS name"),
        (BLOCK.replace("gate.example", "a b"), "is no DNS name"),
        (BLOCK.replace('"gate.example"', '"a.example", "A.example"'), "is listed twice"),
        (f'{BLOCK}\ncontact = ["ops@example.com"]', 'write it as "mailto:ops@example.com"'),
        (f'{BLOCK}\ncontact = ["mailto:a@b.c?subject=x"]', "is no contact"),
        (f'{BLOCK}\neab_key_id = "kid"', "eab_key_id needs eab_hmac_key(_file)"),
        (f'{BLOCK}\neab_hmac_key = "abcd"', "eab_hmac_key needs eab_key_id"),
        (f'{BLOCK}\neab_key_id = "k"\neab_hmac_key = "a b"', "is no base64url"),
        (f'{BLOCK}\neab_key_id = "k"\neab_hmac_key_file = "none"', "no such file"),
        (f'{BLOCK}\nca_file = "none.pem"', 'ca_file: "none.pem" no such file'),
        (f'{BLOCK}\nca_file = "server.key"', "is a PRIVATE KEY"),
        (f'{BLOCK}\nstorage = "gate.hcl"', "is not a directory"),
        (f"{BLOCK}\nrenew = 3", "renew"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(here: Here, block: str, problem: str) -> None:
    (here.directory / "none").unlink(missing_ok=True)
    [line] = here.problems(config(block))
    assert problem in line
    assert "acme: " in line
    assert int(line.partition(":")[0]) >= 8


@pytest.mark.parametrize(
    "beside",
    [
        'public_key_file = "server.crt"',
        'private_key_file = "server.key"',
        'private_key_passphrase = "x"',
        "ocsp_stapling = true",
    ],
)
def test_nothing_else_says_where_the_certificate_comes_from(here: Here, beside: str) -> None:
    [line] = here.problems(config(own=beside))
    assert beside.partition(" ")[0] in line
    assert "acme" in line


@pytest.mark.parametrize("written", ['"mailto:ops@a.example"', '["mailto:ops@a.example"]'])
def test_one_contact_needs_no_list(here: Here, written: str) -> None:
    [wanted] = here.load(config(f"{BLOCK}\ncontact = {written}")).wanted
    assert wanted.contact == ("mailto:ops@a.example",)


def test_a_certificate_that_is_not_there_yet_is_no_error(here: Here) -> None:
    epoch = here.load(config())
    [wanted] = epoch.wanted
    [own] = epoch.servers[0].gate.context.policy.own
    assert own == MissingCredential(wanted, ("gate.example",), "the CA has not issued it yet")
    assert epoch.warnings == ()
    assert wanted.storage.directory == here.directory / "acme"
    assert not wanted.storage.directory.exists()


def test_what_the_storage_has_is_used(here: Here) -> None:
    [wanted] = here.load(config()).wanted
    ca = MemoryCa(lambda: NOW)
    wanted.storage.put_certificate(wanted.file_name, ca.issue("gate.example"))
    epoch = here.load(config())
    [credential] = epoch.servers[0].gate.context.policy.credentials
    assert credential.source == wanted
    assert next(iter(epoch.expiries)).first == credential.chain[0].not_after


@pytest.mark.parametrize("data", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAA\n"])
def test_what_is_damaged_will_be_ordered_again(here: Here, data: bytes) -> None:
    [wanted] = here.load(config()).wanted
    wanted.storage.put_certificate(wanted.file_name, data)
    [own] = here.load(config()).servers[0].gate.context.policy.own
    assert isinstance(own, MissingCredential)
    assert "is damaged" in own.why


def test_a_storage_that_others_may_read_is_refused(here: Here) -> None:
    (here.directory / "acme").mkdir(mode=0o700)
    (here.directory / "acme").chmod(0o750)
    [line] = here.problems(config())
    assert "chmod 700" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_storage_of_another_user_is_told(here: Here) -> None:
    (here.directory / "acme").mkdir(mode=0o000)
    assert any("not this user's" in str(one) for one in here.load(config()).warnings)


def test_systemd_says_where_state_is_kept(here: Here) -> None:
    [wanted] = here.load(config(), STATE_DIRECTORY="/var/lib/mtlsgate:/other").wanted
    assert wanted.storage.directory == Path("/var/lib/mtlsgate/acme")
    [wanted] = here.load(config(f'{BLOCK}\nstorage = "/srv/acme"')).wanted
    assert wanted.storage.directory == Path("/srv/acme")


def test_a_port_that_the_ca_does_not_connect_to_is_told(here: Here) -> None:
    [warning] = here.load(config(hosts='"127.0.0.1:8443"')).warnings
    assert "the CA connects to port 443" in str(warning)
    assert "8443" in str(warning)
    assert here.load(config(hosts='"127.0.0.1:8443", "127.0.0.1:443"')).warnings == ()


def test_a_server_that_speaks_plaintext_first_cannot_answer(here: Here) -> None:
    [line] = here.problems(config(more='starttls = "smtp"'))
    assert "the CA speaks TLS at once" in line


@pytest.mark.parametrize("missing", ["acme", "josepy"])
def test_a_missing_library_is_named(
    here: Here, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def absent(_: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(acme, "import_module", absent)
    [line] = here.problems(config())
    assert f"{missing} is not installed: pip install 'mtlsgate[acme]'" in line


def test_the_cas_of_the_directorys_server_are_kept_as_they_were_read(here: Here) -> None:
    """Their file may be for root alone, which the gate is no longer when it orders."""
    [wanted] = here.load(config(f'{BLOCK}\nca_file = "issuing.crt"')).wanted
    assert [one.pem for one in wanted.authorities] == [pki().issuing.pem]
    for _ in range(2):
        path = wanted.storage.put_authorities(wanted.account_name, wanted.authorities)
        assert path.read_bytes() == pki().issuing.pem
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_the_sandbox_must_allow(here: Here) -> None:
    reach = here.load(config()).reach
    [path] = reach.writes
    assert path.parent == here.directory / "acme"
    assert path in reach.reads
    assert reach.ports == {8000}


def test_only_listeners_of_such_servers_look_for_challenges(here: Here) -> None:
    """The others do not even read the ClientHello."""
    other = config(hosts='"127.0.0.1:8443"').replace('"door"', '"other"')
    start, end = other.index("acme {"), other.index("      }\n    }\n") + 8
    files = 'public_key_file = "server.crt"\nprivate_key_file = "server.key"\n'
    epoch = here.load(config() + other[:start] + files + other[end:])
    found = {place.key: entrance_of(place, None) for place in places_of(epoch)}  # type: ignore[arg-type]
    with_acme, without = found.values()
    assert with_acme.challenges is not None
    assert with_acme.reads_hello
    assert without.challenges is None
    assert not without.reads_hello


def test_a_gate_in_python_refuses_it(here: Here) -> None:
    here.site.write("gate.hcl", config())
    with pytest.raises(ConfigError, match="a gate in Python orders no certificates"):
        Gate.from_config(str(here.directory / "gate.hcl"))


def test_its_files_are_no_pins(here: Here) -> None:
    """A directory of pins that has the gate's own certificate would admit the gate."""
    text = config(f'{BLOCK}\nstorage = "pins"').replace(
        'ca_certificate_file = "issuing.crt"', 'leaf_certificate_dir = "pins"'
    )
    (here.directory / "pins").mkdir(mode=0o700)
    here.site.write("pins/a.crt", (here.directory / "client.crt").read_bytes())
    [line] = here.problems(text)
    assert "which is the gate's own" in line
