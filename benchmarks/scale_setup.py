"""
The configurations that scale.py measures, and the files they name.

All clients have one key: it is the number of certificates that counts.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.testing import Authority, self_signed

#: What every server block is made of.
_SERVER = """\
server "{label}" {{
  hosts = ["127.0.0.1:8443"]
  {names}
  protocol "echo" {{}}

  tls {{
    send_ca_names = {send_ca_names}
{certificates}
{rules}
  }}
}}
"""

_CERTIFICATE = """\
    server_certificate {{
      public_key_file  = "{}"
      private_key_file = "server.key"
    }}
"""


@dataclass(frozen=True)
class Point:
    """
    One configuration.

    `size` is how many there are of what its series is about, `client` the name of
    the client's files without their endings, `server_name` what it asks for.
    """

    size: int
    config: Path
    client: str
    server_name: str | None = None


class Setup:
    """Writes into one directory; what several points name is written once."""

    def __init__(self, directory):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.authority = Authority.create("Devices CA")
        self._issued, self._alone = [], []
        self._credential("server", self._server_credential("server.example"))
        self._credential("client", self.authority.issue("the client", key=self.key))
        self._credential("lone", self_signed("the client", key=self.key))
        self._write("ca.crt", self.authority.pem)

    # The series.

    def pins(self, size):
        """Return a rule of a CA and so many of its leaves, in one file."""
        self._bundle("pins", size, self._leaves(size - 1), "client")
        rule = _rule(ca_certificate_file="ca.crt", leaf_certificate_file=f"pins-{size}.pem")
        return self._point("pins", size, rule)

    def pin_files(self, size):
        """Return the same with the leaves in a directory, a file each."""
        rule = _rule(ca_certificate_file="ca.crt", leaf_certificate_dir=self._folder(size))
        return self._point("pin-files", size, rule)

    def pin_blocks(self, size):
        """Return the same with a block for each, which names its file."""
        folder = self._folder(size)
        pins = "".join(
            f'      pin "{path.stem}" {{ leaf_certificate_file = "{folder}/{path.name}" }}\n'
            for path in sorted((self.directory / folder).iterdir())
        )
        rule = _rule(pins=pins, ca_certificate_file="ca.crt")
        return self._point("pin-blocks", size, rule)

    def lone_pins(self, size, send_ca_names=False):
        """Return a rule of so many self-signed leaves and no CA."""
        self._bundle("lone", size, self._lone_leaves(size - 1), "lone")
        rule = _rule(leaf_certificate_file=f"lone-{size}.pem")
        return self._point("lone", size, rule, send_ca_names=send_ca_names, client="lone")

    def rules(self, size, send_ca_names=False):
        """Return so many rules with a CA each; the client's is in the middle."""
        rules = []
        for number in range(size):
            name = "ca.crt" if number == size // 2 else f"ca-{number}.crt"
            if not (self.directory / name).exists():
                self._write(name, Authority.create(f"Devices CA {number}").pem)
            rules.append(_rule(f"rule {number}", ca_certificate_file=name))
        return self._point("rules", size, "".join(rules), send_ca_names=send_ca_names)

    def revoked(self, size):
        """Return a rule of a CA whose CRL has so many entries."""
        name = f"revoked-{size}.pem"
        self._write(name, self._revocation_list(size))
        return self._point("revoked", size, _rule(ca_certificate_file="ca.crt", crl_file=name))

    def servers(self, size):
        """Return so many servers on one address, with a name each."""
        servers = "".join(
            _server(f"server {number}", [f"s{number}.example"], rules=self._plain())
            for number in range(size)
        )
        return self._point("servers", size, servers, server_name=f"S{size // 2}.example.")

    def server_names(self, size):
        """Return one server with so many names."""
        names = [f"s{number}.example" for number in range(size)]
        server = _server("bench", names, rules=self._plain())
        return self._point("names", size, server, server_name=f"S{size // 2}.example.")

    def server_certificates(self, size):
        """Return one server with so many certificates, chosen by their names."""
        names = [f"certificate-{number}.crt" for number in range(size)]
        for number, name in enumerate(names):
            if not (self.directory / name).exists():
                credential = self._server_credential(f"s{number}.example", key=self._server_key)
                self._write(name, credential.pem)
        server = _server("bench", certificates=names, rules=self._plain())
        return self._point("certificates", size, server, server_name=f"S{size // 2}.example.")

    # What they are made of.

    def _server_credential(self, name, **options):
        return self_signed(name, dns_names=[name], usages=["server_auth"], **options)

    def _credential(self, name, credential):
        self._write(f"{name}.crt", credential.pem)
        self._write(f"{name}.key", credential.key_pem)
        (self.directory / f"{name}.key").chmod(0o600)
        if name == "server":
            self._server_key = credential.private_key

    def _leaves(self, count):
        for number in range(len(self._issued), count):
            one = self.authority.issue(f"device-{number:06}", key=self.key)
            self._issued.append(one.pem)
        return self._issued[:count]

    def _folder(self, size):
        """Return the name of a directory of so many leaves, the client's among them."""
        folder = self.directory / f"pins-{size}"
        if not folder.exists():
            folder.mkdir()
            for number, pem in enumerate(self._leaves(size - 1)):
                (folder / f"{number:06}.pem").write_bytes(pem)
            (folder / "client.pem").write_bytes(self._read("client.crt"))
        return folder.name

    def _lone_leaves(self, count):
        for number in range(len(self._alone), count):
            self._alone.append(self_signed(f"device-{number:06}", key=self.key).pem)
        return self._alone[:count]

    def _bundle(self, kind, size, leaves, client):
        middle = size // 2
        bundle = [*leaves[:middle], self._read(f"{client}.crt"), *leaves[middle:]]
        self._write(f"{kind}-{size}.pem", b"".join(bundle))

    def _revocation_list(self, size):
        now = datetime.now(UTC)
        # Given one by one to the builder, it would copy all of them each time.
        revoked = [
            x509.RevokedCertificateBuilder(x509.random_serial_number(), now).build()
            for _ in range(size)
        ]
        certificate = self.authority.certificate
        builder = (
            x509.CertificateRevocationListBuilder(revoked_certificates=revoked)
            .issuer_name(certificate.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=365))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate.public_key()),
                critical=False,
            )
        )
        return builder.sign(self.authority.private_key, SHA256()).public_bytes(Encoding.PEM)

    def _plain(self):
        return _rule(ca_certificate_file="ca.crt")

    def _point(self, kind, size, text, *, send_ca_names=False, client="client", server_name=None):
        if not text.startswith("server"):
            text = _server("bench", rules=text, send_ca_names=send_ca_names)
        config = self.directory / f"{kind}-{size}-{send_ca_names}.hcl"
        config.write_text(text)
        return Point(size, config, str(self.directory / client), server_name)

    def _read(self, name):
        return (self.directory / name).read_bytes()

    def _write(self, name, data):
        (self.directory / name).write_bytes(data)


def _rule(label="clients", pins="", **attributes):
    lines = "".join(f'      {name} = "{value}"\n' for name, value in attributes.items())
    return f'    client_certificate "{label}" {{\n{lines}{pins}    }}\n'


def _server(label, names=(), *, rules, certificates=("server.crt",), send_ca_names=False):
    quoted = ", ".join(f'"{name}"' for name in names)
    return _SERVER.format(
        label=label,
        names=f"server_names = [{quoted}]" if names else "",
        send_ca_names=str(send_ca_names).lower(),
        certificates="".join(map(_CERTIFICATE.format, certificates)),
        rules=rules,
    )
