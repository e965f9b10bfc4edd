from __future__ import annotations

import os
import re
import shutil
import textwrap
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.interfaces import IProtocolFactory

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.development_ca import Authority, self_signed
from mtlsgate.certificates.parsing import MAX_FILE_BYTES, parse_certificates
from mtlsgate.errors import ConfigError
from mtlsgate.load.disk import Disk
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.loading import load
from tests.kits.pki import INSTALLED, NOW, Site, base64_of, der, pki, server, site

COUPER = Path(__file__).parent.parent / "data" / "couper"


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def rules(epoch: Epoch, at: int = 0) -> list[tuple[str, list[str], list[str]]]:
    """:returns: of each rule the name, its CAs and its pins by common name."""
    admission = epoch.servers[at].gate.context.admission
    assert admission is not None
    return [
        (
            one.name,
            list(map(common_name, one.authorities)),
            [common_name(pin.certificate) for pin in one.pins],
        )
        for one in admission.rules
    ]


def shown(epoch: Epoch, at: int = 0) -> list[list[str]]:
    """:returns: of each server certificate its chain by common name."""
    policy = epoch.servers[at].gate.context.policy
    return [list(map(common_name, one.chain)) for one in policy.credentials]


def common_name(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string().removeprefix("CN=")


# What loads


def test_everything_is_built(here: Site) -> None:
    epoch = here.load(
        'settings { handshake_timeout = "250ms" }\n'
        + server(
            """\
min_version = "1.3"
verification = "compatible"
server_certificate {
public_key_file = "server.crt"
private_key_file = "server.key"
}
client_certificate "IOT" {
ca_certificate_file = "issuing.crt"
leaf_certificate_file = "clients.crt"
}
client_certificate {
leaf_certificate_file = "stranger.crt"
}""",
            hosts='["127.0.0.1:0", "unix:x.sock"]',
            protocol='protocol "whoami" {}',
            label='"devices"',
        )
        + server('client_authentication = "none"', label='"open"')
    )
    assert epoch.path == str(here.config)
    assert epoch.warnings == ()
    one, other = epoch.servers
    assert [host.text for host in one.hosts] == ["127.0.0.1:0", "unix:x.sock"]
    assert one.gate.name == "devices"
    assert one.gate.handshake_timeout == other.gate.handshake_timeout == 0.25
    policy = one.gate.context.policy
    assert (policy.min_version, policy.strict, policy.alpn) == ("1.3", False, (b"http/1.1",))
    assert shown(epoch) == [["localhost"]]
    assert rules(epoch) == [
        ("IOT", ["Issuing CA"], ["client", "other"]),
        ("#2", [], ["stranger"]),
    ]
    assert other.gate.context.admission is None
    assert IProtocolFactory.providedBy(one.gate.application)


def couper_files(directory: Path) -> Mapping[str, str]:
    """:returns: the environment that goes with the files."""
    monitoring = Authority.create("Monitoring CA", now=NOW)
    other = pki().issuing.issue("other", usages=["server_auth"], now=NOW)
    content = {
        "couperServer.crt": pki().server.pem,
        "couperServer.key": pki().server.key_pem,
        "other.crt": other.pem,
        "other.key": other.key_pem,
        "couperIntermediate.crt": pki().issuing.pem,
        "couperClient.crt": pki().client.certificate.public_bytes(Encoding.PEM),
        "couperMonitoring.crt": monitoring.pem,
        "couperAdmin.crt": pki().stranger.pem,
    }
    for name, data in content.items():
        (directory / name).write_bytes(data)
    return {
        "SERVER_CERTIFICATE": pki().server.pem.decode(),
        "SERVER_KEY": pki().server.key_pem.decode(),
        "CLIENT": "couperAdmin",
    }


def filled(text: str, directory: Path) -> str:
    """
    :returns: a configuration in which each ``@FILE@`` is replaced by what the
        file holds, indented as the mark is, and each ``@FILE|der@`` by its
        DER in base64.
    """

    def fill(mark: re.Match[str]) -> str:
        data = (directory / mark["file"]).read_bytes()
        if not mark["der"]:
            return textwrap.indent(data.decode().strip(), mark["indent"] or "")
        if mark["file"].endswith(".key"):
            key = load_pem_private_key(data, None)
            octets = pki_der(key)
        else:
            octets = parse_certificates(data)[0].der
        return (mark["indent"] or "") + b64encode(octets).decode()

    pattern = r"(?P<indent>(?m:^ *))?@(?P<file>[\w.]+)(?P<der>\|der)?@"
    return re.sub(pattern, fill, text)


def pki_der(key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import NoEncryption

    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined, no-any-return]


COUPER_MEANS: dict[str, tuple[list[list[str]], list[tuple[str, list[str], list[str]]]]] = {
    "files.hcl": ([["localhost"]], [("#1", ["Issuing CA"], ["client"])]),
    "labels.hcl": (
        [["localhost"], ["other", "Issuing CA"]],
        [
            ("IOT", ["Issuing CA"], ["client"]),
            ("Monitoring", ["Monitoring CA"], []),
            ("Admin", [], ["stranger"]),
        ],
    ),
    "self_signed.hcl": ([["localhost"]], [("#1", ["Issuing CA"], [])]),
    "inline.hcl": (
        [["localhost"], ["other"]],
        [
            ("pem", ["Issuing CA", "Monitoring CA"], ["client"]),
            ("der", ["Issuing CA"], ["client"]),
        ],
    ),
    "environment.hcl": (
        [["localhost"]],
        [("file", ["Issuing CA"], []), ("environment", [], ["stranger"])],
    ),
}


@pytest.mark.parametrize("name", COUPER_MEANS)
def test_coupers_own_shapes_load_once_a_protocol_is_added(name: str, tmp_path: Path) -> None:
    environ = couper_files(tmp_path)
    text = filled((COUPER / name).read_text(), tmp_path)
    here = Site(tmp_path)
    assert [one.partition(": ")[2] for one in here.problems(text, environ)] == [
        f"{re.findall('^server[^{]*', text, re.M)[0].strip()}: the protocol block is missing"
    ]
    added = text.replace("\n  tls {", '\n  protocol "echo" {}\n  tls {')
    epoch = here.load(added, environ=environ)
    assert (shown(epoch), rules(epoch)) == COUPER_MEANS[name]


def test_every_couper_file_is_tried() -> None:
    assert {one.name for one in COUPER.glob("*.hcl")} == set(COUPER_MEANS)


FORMS = {
    "PEM file": 'X_file = "client.crt"',
    "DER file": 'X_file = "client.der"',
    "PEM by file()": 'X = file("client.crt")',
    "PEM trimmed": 'X = trim(file("client.crt"))',
    "base64 of DER": f'X = "{base64_of(der(pki().client))}"',
    "base64 out of the environment": "X = env.DER",
    "PEM out of the environment": 'X = env["PEM"]',
    "a fallback": 'X = default(env.UNSET, env.PEM, "x")',
    "the first that is set": 'X = default(env.DER, "x")',
    "PEM joined": 'X = join("\\n", split("\\n", env.PEM))',
    "base64 of PEM": "X = base64_decode(env.CODED)",
    "a file named by the environment": 'X_file = "${env.NAME}.crt"',
    "a file below": 'X_file = "./sub/../client.crt"',
    "inline null": 'X = null\nX_file = "client.crt"',
}


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_is_given_in_every_form(here: Site, form: str) -> None:
    (here.directory / "sub").mkdir()
    pem = pki().client.certificate.public_bytes(Encoding.PEM)
    epoch = here.load(
        server(
            "client_certificate {\n"
            + re.sub("^X", "leaf_certificate", FORMS[form], flags=re.MULTILINE)
            + "\n}"
        ),
        environ={
            "PEM": pem.decode(),
            "DER": base64_of(der(pki().client)),
            "CODED": base64_of(pem),
            "NAME": "client",
        },
    )
    assert rules(epoch) == [("#1", [], ["client"])]


def test_an_absolute_path_is_taken_as_it_is(
    here: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = site(tmp_path_factory.mktemp("elsewhere"))
    path = elsewhere.directory / "client.crt"
    epoch = here.load(server(f'client_certificate {{ leaf_certificate_file = "{path}" }}'))
    assert rules(epoch) == [("#1", [], ["client"])]


def test_relative_paths_start_at_the_file_not_where_one_stands(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write("gate.hcl", server('client_certificate { ca_certificate = file("root.crt") }'))
    monkeypatch.chdir(here.directory.parent)
    epoch = load(f"{here.directory.name}/gate.hcl", {}, lambda: NOW)
    assert epoch.path == f"{here.directory.name}/gate.hcl"
    assert rules(epoch) == [("#1", ["Root CA"], [])]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + server().encode(),
        server().replace("\n", "\r\n").encode(),
        server().rstrip("\n").encode(),
    ],
    ids=["BOM", "CRLF", "no last line end"],
)
def test_files_of_other_editors_are_read(here: Site, text: bytes) -> None:
    assert rules(here.load(text)) == [("#1", ["Issuing CA"], [])]


def test_an_encrypted_key_is_read(here: Site) -> None:
    encrypted = pki().server.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    here.write("server.key", encrypted)
    tls = """\
server_certificate {
public_key_file = "server.crt"
private_key_file = "server.key"
private_key_passphrase = %s
}
client_certificate { ca_certificate_file = "root.crt" }"""
    assert shown(here.load(server(tls % "env.P"), environ={"P": "secret"})) == [["localhost"]]
    key = '6:1: server_certificate: private_key_file: "server.key"'
    key = key.replace("6", "7")
    assert here.problems(server(tls % '"wrong"')) == [
        f"{key} is not a private key (PKCS#8, PKCS#1 or SEC1), is damaged, or the passphrase is "
        "wrong"
    ]
    assert here.problems(server(tls % "null")) == [
        f"{key} the key is encrypted: set private_key_passphrase"
    ]


@pytest.mark.parametrize(
    ("hosts", "made"),
    [
        ('["127.0.0.1:0"]', True),
        ('["localhost:0", "unix:x.sock"]', True),
        ('["127.0.0.1:0", "127.0.0.2:0"]', True),
        ('["*:0"]', False),
        ('["0"]', False),
        ('["127.0.0.1:0", "0.0.0.0:0"]', False),
        ('["tcp:0"]', False),
        ('["192.0.2.1:0"]', False),
    ],
)
def test_a_self_signed_certificate_is_made_for_loopback_only(
    here: Site, hosts: str, made: bool
) -> None:
    text = server(hosts=hosts)
    if made:
        (credential,) = here.load(text).servers[0].gate.context.policy.credentials
        assert common_name(credential.chain[0]) == "localhost"
    else:
        assert here.problems(text) == [
            "4:1: tls: no server_certificate block: a self-signed one is made only where every "
            "host is loopback; name a certificate and its key"
        ]


# What is refused


def test_the_file_itself(here: Site) -> None:
    os.mkfifo(here.directory / "fifo")
    (here.directory / "empty").touch()
    with (here.directory / "huge").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    with (here.directory / "large").open("wb") as large:
        large.write(b"#" * 1024 * 1024 + b"\n")
    expected = {
        "nosuch.hcl": "configuration: no such file",
        "": "configuration: has no file in it that ends in .hcl",
        "fifo": "configuration: is not a regular file",
        "empty": "configuration: is empty",
        "huge": "configuration: is larger than 256 MiB",
        "large": "syntax: the file is over 1 MiB; move certificates and keys into files of their "
        "own",
    }
    for name, problem in expected.items():
        path = os.path.join(here.directory, name)
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert str(caught.value) == f"{path}:1:1: {problem}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"# \xff\n", "1:3: syntax: byte 0xff is not UTF-8 text; save the file as UTF-8"),
        (b"\n a = \0", "2:6: syntax: a NUL byte is not text; save the file as UTF-8"),
        ("server {\n", '1:8: syntax: this "{" is not closed; a "}" is missing'),
        ("x = [" * 40, None),
    ],
)
def test_what_cannot_be_read_as_a_whole(
    here: Site, text: str | bytes, expected: str | None
) -> None:
    (problem,) = here.problems(text)
    if expected is not None:
        assert problem == expected


CA = "client_certificate: ca_certificate_file:"
REFUSED_FILES = {
    "nosuch.crt": '"nosuch.crt" no such file',
    ".": '"." is a directory, not a file',
    "fifo": '"fifo" is not a regular file',
    "empty": '"empty" is empty',
    "huge": '"huge" is larger than 256 MiB',
    # Python's own words follow, which differ from version to version.
    "a\\u0000b": '"a\\x00b" cannot be read: ',
    "server.key": '"server.key" PEM block 1 of 1 is a PRIVATE KEY, not a CERTIFICATE',
    "text": '"text" is neither PEM nor DER nor base64 of DER',
    "bad2": '"bad2" certificate 2 of 3 does not parse: ',
    "client.crt": '"client.crt" the certificate is not a CA (CA:FALSE): to admit exactly it, '
    "write leaf_certificate",
    "mixed": '"mixed" certificate 2 of 2 is not a CA (CA:FALSE): to admit exactly it, write '
    "leaf_certificate",
    "mixed2": '"mixed2" certificate 1 of 2 is not a CA (CA:FALSE): to admit exactly it, write '
    "leaf_certificate",
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_that_holds_no_ca_is_refused_where_it_is_named(here: Site, name: str) -> None:
    os.mkfifo(here.directory / "fifo")
    here.write("empty", "")
    with (here.directory / "huge").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    here.write("text", "no certificate")
    root, client = pki().root.pem, (here.directory / "client.crt").read_bytes()
    lines = root.splitlines(keepends=True)
    here.write("bad2", root + b"".join([*lines[:2], *lines[3:]]) + root)
    here.write("mixed", root + client)
    here.write("mixed2", client + root)
    (problem,) = here.problems(
        server(f'client_certificate {{\n  ca_certificate_file = "{name}"\n}}')
    )
    assert problem.startswith(f"6:3: {CA} {REFUSED_FILES[name]}")


def test_an_unreadable_file_is_refused(here: Site) -> None:
    """Tests may run as root, who can read everything."""

    def refuse(path: str, flags: int) -> int:
        if path.endswith("root.crt"):
            raise PermissionError(13, "Permission denied")
        return os.open(path, flags)

    here.write("gate.hcl", server('client_certificate { ca_certificate_file = "root.crt" }'))
    with pytest.raises(ConfigError) as caught:
        load(str(here.config), {}, lambda: NOW, source=Disk(refuse))
    assert str(caught.value) == (
        f'{here.config}:5:22: {CA} "root.crt" permission denied: the gate\'s user cannot read it'
    )


def test_a_fifo_does_not_stop_the_function_file_either(here: Site) -> None:
    os.mkfifo(here.directory / "fifo")
    (problem,) = here.problems(server('client_certificate { ca_certificate = file("fifo") }'))
    assert problem.startswith("5:44: client_certificate: ca_certificate: the file is not a regular")


INLINE = {
    '" \\n"': "is empty",
    '"hello"': "is neither PEM nor DER nor base64 of DER",
    "env.ODD": "is neither PEM nor DER nor base64 of DER",
    'file("server.key")': "PEM block 1 of 1 is a PRIVATE KEY, not a CERTIFICATE",
}


@pytest.mark.parametrize("value", INLINE)
def test_inline_material_that_is_no_certificate_is_refused(here: Site, value: str) -> None:
    text = server(f"client_certificate {{ leaf_certificate = {value} }}")
    assert here.problems(text, {"ODD": os.fsdecode(b"\xff")}) == [
        f"5:22: client_certificate: leaf_certificate: {INLINE[value]}"
    ]


SERVER_CERTIFICATES = [
    ("server.crt", "client.key", "the private key is not that of the certificate"),
    (
        "reversed.crt",
        "server.key",
        "the private key is not that of the certificate that comes first; the leaf must come first",
    ),
    ("server.crt", "server.crt", "holds no whole PEM private keys; it needs one"),
    ("server.crt", "nosuch.key", "no such file"),
    ("server.crt", ".", "is a directory, not a file"),
]


@pytest.mark.parametrize(("certificate", "key", "expected"), SERVER_CERTIFICATES)
def test_a_server_certificate_without_its_key_is_refused(
    here: Site, certificate: str, key: str, expected: str
) -> None:
    here.write("reversed.crt", pki().root.pem + pki().server.pem)
    tls = f"""\
server_certificate "A" {{
public_key_file = "{certificate}"
private_key_file = "{key}"
}}
client_certificate {{ ca_certificate_file = "root.crt" }}"""
    assert here.problems(server(tls)) == [
        f'7:1: server_certificate "A": private_key_file: "{key}" {expected}'
    ]


def test_a_server_certificate_that_openssl_refuses_is_named(here: Site) -> None:
    key = rsa.generate_private_key(65537, 1024)
    weak = self_signed("localhost", key=key, usages=["server_auth"], now=NOW)
    here.write("weak.crt", weak.pem)
    here.write("weak.key", weak.key_pem)
    blocks = "\n".join(
        f'server_certificate {{\npublic_key_file = "{one}.crt"\nprivate_key_file = "{one}.key"\n}}'
        for one in ("server", "weak")
    )
    tls = f'{blocks}\nclient_certificate {{ ca_certificate_file = "root.crt" }}'
    assert here.problems(server(tls)) == [
        "9:1: server_certificate: OpenSSL refuses it: ee key too small; issue a stronger one",
    ]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ('[""]', "is empty: write a value, or remove it"),
        ('[":8443"]', '":8443": no host before the port; '),
        ('["[::1"]', '"[::1": not an address: '),
        ('["1.2.3.4.5:1"]', '"1.2.3.4.5:1": 1.2.3.4.5 does not resolve: '),
        ('["8443x"]', '"8443x": not an address: '),
        ('["*"]', '"*": not an address: '),
        ('["localhost"]', '"localhost": not an address: '),
        ('["http://x:1"]', '"http://x:1": not an address: '),
        ('["\xfc.invalid:1"]', '"\xfc.invalid:1": \xfc.invalid does not resolve: '),
        ('["localhost\\u0000x:1"]', '"localhost\\x00x:1": not an address: '),
        ('["1\\n2"]', '"1\\n2": not an address: '),
        ('["127.0.0.1:65536"]', '"127.0.0.1:65536": the port is out of range: '),
        ('["ssl:1"]', '"ssl:1": an ssl: endpoint does TLS of its own'),
        ('["tcp:x"]', '"tcp:x": port: "x" is not a number from 0 to 65535'),
    ],
)
def test_a_host_that_is_none_is_refused_where_it_stands(
    here: Site, hosts: str, expected: str
) -> None:
    (problem,) = here.problems(server(hosts=hosts))
    assert problem.startswith(f"2:10: server: hosts: {expected}")


def test_a_server_without_hosts_is_refused(here: Site) -> None:
    assert here.problems(server(hosts="[]")) == [
        '2:1: server: hosts is empty: name at least one address, as in ["*:8443"]'
    ]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (('["127.0.0.1:1", "127.0.0.1:1"]',), ["2:25: server: hosts: 127.0.0.1:1 is taken: 2:10"]),
        (
            ('["127.0.0.1:1"]', '["127.0.0.1:2", "127.0.0.1:1"]'),
            ["9:25: server: hosts: 127.0.0.1:1 is taken: 2:10"],
        ),
        (
            ('["127.0.0.1:1"]', '["localhost:1"]', '["127.0.0.1:1"]'),
            [
                "9:10: server: hosts: 127.0.0.1:1 is taken: 2:10",
                "16:10: server: hosts: 127.0.0.1:1 is taken: 2:10",
            ],
        ),
        (
            ('["unix:/x"]', '["unix:/x"]'),
            ['9:10: server: hosts: "unix:/x" is taken: 2:10'],
        ),
        (('["127.0.0.1:0"]', '["127.0.0.1:0"]'), []),
        (('["127.0.0.1:1", "127.0.0.2:1", "unix:/x", "unix:/y"]',), []),
    ],
)
def test_no_address_is_listened_on_twice(
    here: Site, hosts: tuple[str, ...], expected: list[str]
) -> None:
    text = "".join(server(hosts=one) for one in hosts)
    if not expected:
        here.load(text)
        return
    assert [
        one.replace("see line ", "")
        .replace(", column ", ":")
        .removesuffix("; servers that share an address need server_names each")
        for one in here.problems(text)
    ] == expected


def test_a_wildcard_is_every_address(here: Site) -> None:
    text = server('client_authentication = "none"', hosts='["127.0.0.1:1"]') + server(
        'server_certificate {\npublic_key_file = "server.crt"\nprivate_key_file = "server.key"\n}\n'
        'client_authentication = "none"',
        hosts='["*:1"]',
    )
    assert here.problems(text) == ["9:10: server: hosts: 0.0.0.0:1 is taken: see line 2, column 10"]


def test_thousands_of_hosts_are_no_trouble(here: Site) -> None:
    hosts = ", ".join(f'"127.0.0.1:{port}"' for port in range(1, 3000))
    assert len(here.load(server(hosts=f"[{hosts}]")).servers[0].hosts) == 2999


@pytest.mark.parametrize("value", ["env.UNSET", "1 + 1", 'file("nosuch")', "7"])
def test_a_rule_in_error_is_no_rule(here: Site, value: str) -> None:
    """Whatever is wrong with one of its attributes: it is one error, and no laxer rule."""
    for name in ("ca_certificate", "leaf_certificate"):
        other = "leaf" if name.startswith("ca") else "ca"
        for more in ("", f'{other}_certificate_file = "issuing.crt"\n'):
            text = server(f"client_certificate {{\n{more}{name} = {value}\n}}")
            assert len(here.problems(text)) == 1


def test_everything_is_said_in_one_go_and_in_order(here: Site) -> None:
    """Also what is in, or beside, a block that lacks something else."""
    here.write("text", "no certificate")
    problems = here.problems("""\
setings {}
settings {
  handshake_timeout = "10"
}
server "a" {
  hosts = ["127.0.0.1:1", "nonsense"]
  tls {
    min_version = "1.1"
    server_certificate {
      public_key_file = "nosuch.crt"
    }
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "client.key"
    }
    client_certificate "A" {
      ca_certificate_file   = "text"
      leaf_certificate_file = env.UNSET
    }
    client_certificate "A" {}
  }
}
server "a" {
  hosts = ["127.0.0.1:2"]
  protocol "ecko" {}
  tls {
    client_certificate {
      ca_certificate_file = "client.crt"
      leaf_certificate    = "no certificate!"
    }
  }
}
server "c" {
  hosts = ["127.0.0.1:2"]
  protocol "echo" {
    speed = 1
  }
  tls {
    client_authentication = "none"
  }
}
""")
    assert problems == [
        '1:1: configuration: unknown block "setings"; did you mean "settings"?',
        "3:23: settings: handshake_timeout: not a duration; write it as "
        '"250ms", "10s", "5m" or "1h"',
        '5:1: server "a": the protocol block is missing',
        '6:27: server "a": hosts: "nonsense": not an address: write "*:8443", "127.0.0.1:8443", '
        '"[::1]:8443", "name:8443", "8443" or "unix:/run/gate.sock"',
        '8:19: tls: min_version: must be "1.2" or "1.3"',
        "9:5: server_certificate: private_key or private_key_file is missing",
        '10:7: server_certificate: public_key_file: "nosuch.crt" no such file',
        '14:7: server_certificate: private_key_file: "client.key" the private key is not that of '
        "the certificate",
        '17:7: client_certificate "A": ca_certificate_file: "text" is neither PEM nor DER nor '
        "base64 of DER",
        '18:31: client_certificate "A": leaf_certificate_file: environment variable UNSET is not '
        'set; set it, or give a fallback with default(env.UNSET, "...")',
        '20:5: client_certificate "A": neither a CA nor a leaf: set ca_certificate(_file), '
        "leaf_certificate(_file) or both",
        '20:5: client_certificate "A": this label is taken by the block in line 16',
        '23:1: server "a": this label is taken by the block in line 5',
        '25:3: protocol "ecko": no protocol plugin "ecko"; did you mean "echo"? (installed: '
        f"{INSTALLED})",
        '28:7: client_certificate: ca_certificate_file: "client.crt" the certificate is not a CA '
        "(CA:FALSE): to admit exactly it, write leaf_certificate",
        "29:7: client_certificate: leaf_certificate: is neither PEM nor DER nor base64 of DER",
        '34:12: server "c": hosts: 127.0.0.1:2 is taken: see line 24, column 12; '
        "servers that share an address need server_names each",
        '36:5: protocol "echo": unknown attribute "speed"',
    ]


def test_no_problem_shows_a_key(here: Site) -> None:
    """A key in the wrong place is not repeated in the message about it."""
    key = pki().server.key_pem.decode()
    body = "".join(key.splitlines()[1:-1])
    heredoc = f"<<EOT\n{key}EOT\n"
    wrong = server(
        f"""\
server_certificate {{
public_key = {heredoc}
private_key_file = {heredoc}
private_key = null
private_key_passphrase = {heredoc}
}}
client_certificate {{
ca_certificate = {heredoc}
leaf_certificate = "{body}"
}}
client_certificate {{
ca_certificate_file = "{body}"
leaf_certificate_file = {heredoc}
}}
min_version = {heredoc}
"""
    )
    problems = here.problems(wrong)
    assert len(problems) == 6
    assert not any(body[at : at + 12] in one for one in problems for at in range(len(body) - 12))


def test_a_label_cannot_forge_a_line(here: Site) -> None:
    label = '"x\\ngate.hcl:1:1: all is well\\u001b[2J\\u202e"'
    text = server(f'client_certificate {label} {{ ca_certificate_file = "x" }}', label=label)
    (problem,) = here.problems(text)
    assert problem == (
        '5:68: client_certificate "x\\ngate.hcl:1:1: all is well\\x1b[2J\\u202e": '
        'ca_certificate_file: "x" no such file'
    )


def test_the_environment_is_that_of_the_process_by_default(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTLSGATE_TEST_CA", "issuing.crt")
    here.write(
        "gate.hcl", server("client_certificate { ca_certificate_file = env.MTLSGATE_TEST_CA }")
    )
    assert rules(load(str(here.config), now=lambda: NOW)) == [("#1", ["Issuing CA"], [])]


def test_nothing_is_left_of_a_load(here: Site) -> None:
    """A second load reads everything anew."""
    text = server('client_certificate { leaf_certificate_file = "client.crt" }')
    assert rules(here.load(text)) == [("#1", [], ["client"])]
    shutil.copy(here.directory / "stranger.crt", here.directory / "client.crt")
    assert rules(here.load(text)) == [("#1", [], ["stranger"])]
