"""
Who comes from ghostunnel or stunnel finds their flags in tables, and what the tables say to
write instead loads.

In a row with a block in its last column, what is in backquotes in the second is the content of
that block; ``and`` joins two lines, ``or`` begins another way.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import frozen

from mtlsgate.load.loading import load
from tests.kits.docs import DOCS, make_files, sections

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")

CLIENT = """
client "app" {
  hosts  = ["127.0.0.1:0"]
  target = "gate.example:8443"
  tls {
    server_ca_certificate_file = "gate-ca.crt"
    client_certificate_file    = "app.crt"
    client_private_key_file    = "app.key"
  }
}
"""
SERVER = """
server "door" {
  hosts = ["127.0.0.1:0"]
  protocol "proxy" {
    target = "127.0.0.1:6379"
  }
  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "fleet" {
      ca_certificate_file = "fleet-ca.crt"
    }
  }
}
"""
#: For each block how a file changes it, and ``%s`` in the place of the lines.
OF_CLIENT = {
    "client": 'client "app" {\n%s}\n',
    "tls": 'client "app" {\ntls {\n%s}\n}\n',
}
OF_SERVER = {
    "server": 'server "door" {\n%s}\n',
    "protocol": 'server "door" {\nprotocol "proxy" {\n%s}\n}\n',
    "tls": 'server "door" {\ntls {\n%s}\n}\n',
    "server_certificate": 'server "door" {\ntls {\nserver_certificate {\n%s}\n}\n}\n',
    "client_certificate": 'server "door" {\ntls {\nclient_certificate "fleet" {\n%s}\n}\n}\n',
    "allow": (
        'server "door" {\ntls {\nclient_certificate "fleet" {\n'
        'ca_certificate_file = "fleet-ca.crt"\nallow {\n%s}\n}\n}\n}\n'
    ),
}
OF_HTTP = {
    "http": 'server "door" {\nprotocol "http" {\n%s}\n}\n',
    "proxy": 'server "door" {\nprotocol "proxy" {\n%s}\n}\n',
    "web": 'server "door" {\nprotocol "web" {\n%s}\n}\n',
    "target's tls": (
        'server "door" {\nprotocol "http" {\ntarget = "https://a.example"\ntls {\n%s}\n}\n}\n'
    ),
}
OF_ALL = {
    "settings": "settings {\n%s}\n",
    "defaults": "defaults {\n%s}\n",
    "admin": "admin {\n%s}\n",
    "log": "settings {\nlog {\n%s}\n}\n",
}


@frozen
class Row:
    """
    A row of a table.

    :ivar page: where it is.
    :ivar flag: its first column.
    :ivar here: its second.
    :ivar block: its third.
    """

    page: str
    flag: str
    here: str
    block: str

    def __str__(self) -> str:
        return f"{self.page}: {self.flag}"

    @property
    def ways(self) -> list[str]:
        """What to write, in lines; each way is one of several."""
        ways = re.split(r"(?<=`), or ", self.here)
        lines = ["".join(f"{one}\n" for one in re.findall(r"`([^`]+)`", way)) for way in ways]
        return [one for one in lines if one]


def rows(page: str, program: str = "") -> list[Row]:
    """:returns: all rows of a page's tables for those who come from elsewhere, or from one
    program."""
    found = []
    for title, text in sections(DOCS / page, 2).items():
        if title.startswith(f"Coming from {program}"):
            for line in re.findall(r"^\| (.*) \|$", text, re.MULTILINE):
                flag, here, block = (cell.strip() for cell in re.split(r"(?<= )\| ?", f"{line} "))
                if flag not in ("flag", "option", "directive", "attribute or block"):
                    found.append(Row(page, flag, here, block))
    return found


def loads(directory: Path, base: str, changes: str) -> None:
    """Load a configuration with changes, and find no warning in it."""
    make_files(directory, base + changes)
    for name, text in (("base.hcl", base), ("changes.hcl", changes)):
        (directory / name).write_text(text)
    paths = [str(directory / name) for name in ("base.hcl", "changes.hcl")]
    assert load(paths, {"PASS": "x"}).warnings == ()


@pytest.mark.parametrize(
    ("page", "base", "places", "least"),
    [
        ("client-gate.md", CLIENT, OF_CLIENT | OF_ALL, 25),
        ("proxy.md", SERVER, OF_SERVER | OF_ALL, 25),
        ("how-to/moving.md", SERVER, OF_SERVER | OF_HTTP | OF_ALL, 35),
    ],
)
def test_what_replaces_a_flag_loads(
    page: str, base: str, places: dict[str, str], least: int, tmp_path: Path
) -> None:
    """Each row that has a block, by itself."""
    found = rows(page)
    tried = 0
    for row in found:
        if not row.block:
            continue
        assert row.ways, row
        for way in row.ways:
            tried += 1
            if row.block in ("protocol", "http") and not re.search("^target ", way, re.MULTILINE):
                # A later file replaces the whole block.
                way += 'target = "127.0.0.1:6379"\n'
            if row.block == "target's tls" and "server_ca_certificate_file" not in way:
                way += 'server_ca_certificate_file = "backend-ca.crt"\n'
            if row.block == "client_certificate" and "ca_certificate_file" not in way:
                way += 'ca_certificate_file = "fleet-ca.crt"\n'
            loads(tmp_path, base, places[row.block] % way)
    assert tried >= least


#: Every flag that ghostunnel 1.8 lists, and stunnel 5's options for a service.
GHOSTUNNEL = """
    cacert cert close-timeout connect-timeout disable-authentication enable-pprof enable-shutdown
    key keystore listen max-concurrent-conns max-conn-lifetime metrics-graphite metrics-url quiet
    shutdown-timeout status storepass target timed-reload use-landlock use-workload-api
    pkcs11-module keychain-identity
"""
OF_GHOSTUNNEL = {
    "client-gate.md": "unsafe-listen override-server-name proxy verify-cn verify-ou verify-dns"
    " verify-ip verify-uri verify-policy",
    "proxy.md": "unsafe-target proxy-protocol target-status allow-all allow-cn allow-ou allow-dns"
    " allow-ip allow-uri allow-policy allow-query auto-acme-cert",
}
STUNNEL = """
    accept connect cert key CAfile checkHost checkIP ciphers ciphersuites curves debug engine exec
    failover OCSP output pid foreground protocol PSKsecrets securityLevel setuid sni sslVersionMin
    TIMEOUTbusy TIMEOUTconnect TIMEOUTidle transparent verifyChain verifyPeer CRLfile
"""


@pytest.mark.parametrize("page", OF_GHOSTUNNEL)
def test_no_flag_is_missing(page: str) -> None:
    """Whether there is something for it here, or not."""
    flags = " ".join(re.sub(r"\s*=\s*\S*", "", f"{row.flag} {row.here}") for row in rows(page))
    for flag in (*GHOSTUNNEL.split(), *OF_GHOSTUNNEL[page].split()):
        assert f"--{flag}" in flags, flag
    for option in STUNNEL.split():
        assert re.search(rf"\b{option}\b", flags), option


#: What nginx's and Couper's own documentation has for TLS with client certificates.
ELSEWHERE = {
    "nginx": """
        listen server_name ssl_certificate ssl_certificate_key ssl_client_certificate
        ssl_verify_client ssl_verify_depth ssl_crl ssl_protocols ssl_ciphers ssl_session_cache
        ssl_session_timeout ssl_stapling proxy_pass proxy_set_header proxy_ssl_verify
        proxy_ssl_trusted_certificate proxy_ssl_name client_max_body_size limit_conn user
    """,
    "Couper": """
        hosts public_key_file private_key_file ca_certificate_file leaf_certificate_file
        ca_certificate leaf_certificate defaults environment files endpoint api
    """,
}


@pytest.mark.parametrize("program", ELSEWHERE)
def test_what_another_program_calls_it_is_in_its_table(program: str) -> None:
    """Whether there is something for it here, or not."""
    found = " ".join(row.flag for row in rows("how-to/moving.md", program))
    for name in ELSEWHERE[program].split():
        assert re.search(rf"\b{name}\b", found), name
