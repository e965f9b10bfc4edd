"""
The real thing: psql, curl, smtplib and imaplib, which ask for TLS in plaintext, and the
servers that they want behind ``protocol "proxy"``.
"""

from __future__ import annotations

import imaplib
import os
import pwd
import smtplib
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mtlsgate.testing import Version
from tests.kits.programs import free_port, lacking, program, run, serving
from tests.kits.proxy import Keys, proxy

pytestmark = pytest.mark.slow

_PLACES = "/usr/sbin:" + ":".join(map(str, Path("/usr/lib/postgresql").glob("*/bin")))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose name is short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="gate", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(autouse=True)
def _find_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{_PLACES}")


@pytest.fixture
def keys(directory: Path) -> Keys:
    return Keys.write(directory)


def client_context(directory: Path, version: Version | None = None) -> ssl.SSLContext:
    """:returns: what Python's clients need to verify the gate and to show a certificate."""
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    if version is not None:
        bound = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
        context.minimum_version = context.maximum_version = bound
    context.load_cert_chain(directory / "client.crt", directory / "client.key")
    return context


def as_user(name: str) -> list[str]:
    """:returns: a prefix that runs a server as this user, if the tests run as root."""
    if os.getuid() != 0:
        return []
    try:
        pwd.getpwnam(name)
    except KeyError:
        lacking(f"there is no user {name}, and root may not run its server")
    return [program("runuser"), "-u", name, "--"]


@pytest.fixture
def postgresql(directory: Path) -> Iterator[Path]:
    """A PostgreSQL server; its unix socket."""
    place = directory / "sql"
    place.mkdir()
    prefix = as_user("postgres")
    if prefix:
        os.chown(place, pwd.getpwnam("postgres").pw_uid, -1)
    data, path = place / "data", place / ".s.PGSQL.5432"
    made = run(*prefix, program("initdb"), "-D", data, "-A", "trust", "-U", "gate", "--no-sync")
    assert made[0] == 0, made[1]
    server = [
        *prefix, program("postgres"), "-D", str(data), "-k", str(place),
        "-c", "listen_addresses=", "-c", "fsync=off",
    ]  # fmt: skip
    with serving(server, path):
        yield path


def test_psql_works_with_certificates(directory: Path, keys: Keys, postgresql: Path) -> None:
    """Debian's own psql, with certificates and verify-full; and TLS at once.  Without a
    certificate, and without TLS, it says what is wrong."""
    target = {"sql": f'target = "unix:{postgresql}"'}
    with proxy(directory, target, 'starttls = "postgres"') as gate:
        where = (
            f"host=localhost hostaddr=127.0.0.1 port={gate.port('sql')} user=gate "
            f"dbname=postgres gssencmode=disable sslrootcert={directory}/ca.crt"
        )
        certificate = f"sslcert={directory}/client.crt sslkey={directory}/client.key"
        psql = [program("psql"), "-XAt", "-c", "SELECT 6 * 7"]
        for version in ("TLSv1.2", "TLSv1.3"):
            bounds = f"ssl_min_protocol_version={version} ssl_max_protocol_version={version}"
            found = run(*psql, f"{where} sslmode=verify-full {certificate} {bounds}")
            assert found == (0, "42\n")
        # As libpq 17 does with sslnegotiation=direct.
        direct = run(
            program("openssl"), "s_client", "-connect", f"127.0.0.1:{gate.port('sql')}",
            "-alpn", "postgresql", "-CAfile", directory / "ca.crt",
            "-cert", directory / "client.crt", "-key", directory / "client.key",
        )  # fmt: skip
        assert "ALPN protocol: postgresql" in direct[1]
        nothing = f"sslcert={directory}/none sslkey={directory}/none"
        status, output = run(*psql, f"{where} sslmode=verify-full {nothing}")
        assert status != 0
        assert "certificate required" in output
        status, output = run(*psql, f"{where} sslmode=disable")
        assert status != 0
        assert "this server requires TLS" in output
        assert "starttls_required: a StartupMessage without TLS" in gate.stop()


def test_psql_at_a_server_without_starttls(directory: Path, keys: Keys) -> None:
    """The log says what to set."""
    with proxy(directory, {"sql": 'target = "127.0.0.1:1"'}) as gate:
        where = f"host=127.0.0.1 port={gate.port('sql')} user=gate sslmode=require"
        assert run(program("psql"), "-X", "-c", "SELECT 1", where)[0] != 0
        assert 'PostgreSQL\'s SSLRequest or GSSENCRequest; set starttls = "postgres"' in gate.stop()


#: Twisted's SMTP server.  It writes its port to one file, and each mail to another.
SMTP_SERVER = """
import sys
from pathlib import Path
from twisted.internet import defer, reactor
from twisted.mail import smtp
from zope.interface import implementer

path, mailbox = sys.argv[1], Path(sys.argv[2])

@implementer(smtp.IMessage)
class Message:
    def __init__(self):
        self.lines = []
    def lineReceived(self, line):
        self.lines.append(line)
    def eomReceived(self):
        mailbox.write_bytes(b"\\n".join(self.lines))
        return defer.succeed(None)
    def connectionLost(self):
        pass

@implementer(smtp.IMessageDelivery)
class Delivery:
    def receivedHeader(self, helo, origin, recipients):
        return b"Received: from " + helo[0]
    def validateFrom(self, helo, origin):
        return origin
    def validateTo(self, user):
        return Message

class Mail(smtp.SMTPFactory):
    protocol = smtp.ESMTP
    def buildProtocol(self, address):
        protocol = super().buildProtocol(address)
        protocol.delivery = Delivery()
        return protocol

port = reactor.listenTCP(0, Mail(), interface="127.0.0.1").getHost().port
Path(path + ".new").write_text(str(port))
Path(path + ".new").rename(path)
reactor.run()
"""


def test_mail_goes_through(directory: Path, keys: Keys, version: Version) -> None:
    """A mail goes through, by Python's client and by curl.  The server's own greeting does
    not come a second time, and its extensions do."""
    path, mailbox = directory / "smtp.port", directory / "mail"
    server = [sys.executable, "-c", SMTP_SERVER, str(path), str(mailbox)]
    with ExitStack() as stack:
        stack.enter_context(serving(server, path))
        target = {"mail": f'target = "127.0.0.1:{path.read_text()}"'}
        gate = stack.enter_context(proxy(directory, target, 'starttls = "smtp"'))
        port = gate.port("mail")
        with smtplib.SMTP("localhost", port, timeout=60) as client:
            assert client.starttls(context=client_context(directory, version))[0] == 220
            client.sendmail("a@example.com", ["b@example.com"], "Subject: one\r\n\r\nhello")
        assert b"Subject: one" in mailbox.read_bytes()
        letter = directory / "letter"
        letter.write_bytes(b"Subject: two\r\n\r\nhello\r\n")
        status, output = run(
            program("curl"), "-sS", "--ssl-reqd", f"--tlsv{version}", "--tls-max", version,
            "--cacert", directory / "ca.crt", "--cert", directory / "client.crt",
            "--key", directory / "client.key", f"smtp://localhost:{port}",
            "--mail-from", "a@example.com", "--mail-rcpt", "b@example.com", "-T", letter,
        )  # fmt: skip
        assert status == 0, output
        assert b"Subject: two" in mailbox.read_bytes()
        with smtplib.SMTP("localhost", port, timeout=60) as client:
            assert client.docmd("MAIL FROM:<a@example.com>")[0] == 530


DOVECOT = """
base_dir = {directory}/dovecot
log_path = {directory}/dovecot.log
protocols = imap
ssl = no
listen = 127.0.0.1
disable_plaintext_auth = no
mail_location = maildir:{directory}/mail
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
first_valid_uid = 0
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail
}}
"""


def test_mail_is_read(directory: Path, keys: Keys) -> None:
    """Dovecot behind the gate, with Python's client and curl: a mailbox that is written to
    and read, and the server's own capabilities after TLS."""
    dovecot = program("dovecot")
    if os.getuid() != 0:
        pytest.skip("Dovecot's master process runs as root")
    (directory / "dovecot").mkdir()
    (directory / "mail").mkdir()
    (directory / "mail").chmod(0o777)
    port = free_port()
    config = directory / "dovecot.conf"
    config.write_text(DOVECOT.format(directory=directory, port=port))
    with (
        serving([dovecot, "-F", "-c", str(config)], directory / "dovecot" / "master.pid"),
        proxy(directory, {"mail": f'target = "127.0.0.1:{port}"'}, 'starttls = "imap"') as gate,
    ):
        for version in ("1.2", "1.3"):
            with imaplib.IMAP4("localhost", gate.port("mail"), timeout=60) as client:
                assert "LOGINDISABLED" in client.capabilities
                assert client.starttls(client_context(directory, version))[0] == "OK"
                assert "LOGINDISABLED" not in client.capabilities
                assert client.login("joe", "secret")[0] == "OK"
                assert client.append("INBOX", "", "", b"Subject: x\r\n\r\nhello\r\n")[0] == "OK"
        status, output = run(
            program("curl"), "-sS", "--ssl-reqd", "-u", "joe:secret",
            "--cacert", directory / "ca.crt", "--cert", directory / "client.crt",
            "--key", directory / "client.key",
            f"imap://localhost:{gate.port('mail')}/INBOX?ALL",
        )  # fmt: skip
        assert (status, output) == (0, "* SEARCH 1 2\r\n")
