"""
Real PostgreSQL servers: alone, with a standby, with TLS.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from attrs import define

from mtlsgate.registry.opening import open_store
from mtlsgate.registry.postgresql_store import PostgresqlStore
from mtlsgate.registry.store import StoreOptions
from mtlsgate.testing import Authority
from tests.kits.following import PATIENCE, wait_until
from tests.kits.programs import free_port, lacking, program, run

#: The table of the tests.
TABLE = "devices"

_PLACES = ":".join(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
#: What makes a server quick that nobody needs tomorrow.
_QUICK = ("fsync=off", "max_connections=30", "shared_buffers=8MB", "autovacuum=off")


def _tool(name: str) -> str:
    """:returns: where a program of PostgreSQL is, which Debian has beside the others."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:{_PLACES}")
    return found if found is not None else program(name)


def _user() -> str | None:
    """:returns: the user that a server accepts, if root tests."""
    if os.getuid() != 0:
        return None
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        lacking("there is no user postgres, and root may not run its server")
    return "postgres"


def _as_user() -> list[str]:
    """:returns: a prefix that runs a program as that user."""
    user = _user()
    return [] if user is None else [program("runuser"), "-u", user, "--"]


@define(eq=False)
class Server:
    """
    A PostgreSQL on a Unix socket, and on a port of 127.0.0.1 if it has one.

    :ivar home: its directory, with the socket.
    :ivar options: settings, as ``name=value``.
    :ivar port: 0 for none.
    """

    home: Path
    options: Sequence[str] = ()
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens, besides the port."""
        return self.home / f".s.PGSQL.{self._number}"

    @property
    def data(self) -> Path:
        """The directory of its data."""
        return self.home / "data"

    def url(self, user: str = "gate", **parameters: str) -> str:
        """:returns: where it is, by its socket."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{user}@/postgres?host={self.home}&port={self._number}&{query}"

    def create(self) -> None:
        """Make an empty server, which is not started."""
        made = run(
            *_as_user(), _tool("initdb"), "-D", self.data, "-A", "trust", "-U", "gate",
            "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C",
        )  # fmt: skip
        assert made[0] == 0, made[1]

    def copy_of(self, primary: Server) -> None:
        """Make it a standby, which is not started."""
        made = run(
            *_as_user(), _tool("pg_basebackup"), "-D", self.data, "-R", "-c", "fast",
            "--no-sync", "-d", primary.url(),
        )  # fmt: skip
        assert made[0] == 0, made[1]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        listen = "127.0.0.1" if self.port else ""
        settings = (*_QUICK, f"listen_addresses={listen}", *self.options)
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _tool("postgres"), "-D", str(self.data), "-k", str(self.home),
                    "-p", str(self._number), *(word for one in settings for word in ("-c", one)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=_user(),
                group=_user(),
            )  # fmt: skip
        wait_until(self._answers)

    def do(self, *statements: str, user: str = "gate") -> list[tuple[object, ...]]:
        """:returns: what the last of somebody's statements finds; each is committed."""
        with psycopg.connect(self.url(user), autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    def freeze(self) -> None:
        """Stop all of its processes where they are."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def stop(self, mode: signal.Signals = signal.SIGINT) -> None:
        """End it, fast or as the signal says, and wait for its end."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(mode)
            self._process.wait(timeout=PATIENCE)
            self._process = None

    def restart(self, mode: signal.Signals = signal.SIGINT) -> None:
        """Stop it, and start it again."""
        self.stop(mode)
        self.start()

    def write(self, name: str, content: bytes) -> None:
        """Write a file of its data directory."""
        path = self.data / name
        path.write_bytes(content)
        path.chmod(0o600)
        owner = self.data.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def speak_tls(self, authority: Authority) -> None:
        """Ask for certificates of an authority at the port, and have one of it for localhost."""
        issued = authority.issue("db", dns_names=["localhost"], usages=["server_auth"])
        self.write("server.crt", issued.pem)
        self.write("server.key", issued.key_pem)
        self.write("root.crt", authority.pem)
        self.write("pg_hba.conf", b"hostssl all all all cert\nlocal all all trust\n")
        self.do("ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "ALTER SYSTEM SET ssl = on")
        self.restart()

    def promote(self) -> None:
        """Make a standby the primary."""
        self.do("SELECT pg_promote()")

    @property
    def _number(self) -> int:
        return self.port or 5432

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        first = self._process.pid
        # Each has a session of its own.
        children = Path(f"/proc/{first}/task/{first}/children")
        for one in (first, *map(int, children.read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "log").read_text()
        try:
            self.do("SELECT 1")
        except psycopg.OperationalError as error:
            # It lets nobody in, or not yet.
            return "FATAL" in str(error) and not any(
                one in str(error) for one in ("starting up", "not yet accepting")
            )
        return True


@contextmanager
def server(*options: str, port: int = 0) -> Iterator[Server]:
    """
    Run a PostgreSQL until the block ends.

    :param options: settings, as ``name=value``.
    """
    with ExitStack() as running:
        made = _made(running, options, port)
        made.create()
        made.start()
        yield made


@contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """Run a standby of a server until the block ends."""
    with ExitStack() as running:
        made = _made(running, primary.options, free_port() if primary.port else 0)
        made.copy_of(primary)
        made.start()
        yield made


def _made(running: ExitStack, options: Sequence[str], port: int) -> Server:
    # Below /tmp, because the path of a socket has 107 characters at most.
    home = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    running.callback(shutil.rmtree, home)
    home.chmod(0o755)
    if (user := _user()) is not None:
        shutil.chown(home, user)
    made = Server(home, options, port)
    running.callback(made.stop, signal.SIGQUIT)
    return made


@asynccontextmanager
async def opened(
    url: str, timeout: float = 5.0, table: str = TABLE, **options: Any
) -> AsyncIterator[PostgresqlStore]:
    """Open a store, and close it when the block ends."""
    store = open_store(StoreOptions(url, table, timeout, **options))
    assert isinstance(store, PostgresqlStore)
    try:
        yield store
    finally:
        await store.close()


def psql(database: Server, text: str, url: str = "") -> tuple[int, str]:
    """
    :param url: of another database of the server.
    :returns: the exit status and the output of psql, which is given some SQL.
    """
    quiet = ("-X", "-q", "-v", "ON_ERROR_STOP=1")
    return run(_tool("psql"), *quiet, "-d", url or database.url(), data=text.encode())


@contextmanager
def pooler(database: Server, mode: str) -> Iterator[str]:
    """
    Run PgBouncer before a server until the block ends.

    :param mode: its ``pool_mode``.
    :returns: where it is.
    """
    with tempfile.TemporaryDirectory(prefix="pool", dir="/tmp") as name:
        home, port = Path(name), free_port()
        (home / "users").write_text('"gate" ""\n')
        (home / "ini").write_text(
            f"[databases]\npostgres = host={database.home} port=5432\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {home}\n"
            f"auth_type = trust\nauth_file = {home}/users\npool_mode = {mode}\n"
        )
        if (user := _user()) is not None:
            shutil.chown(home, user)
        found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        process = subprocess.Popen(
            [found if found is not None else program("pgbouncer"), str(home / "ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=_user(),
            group=_user(),
        )
        try:
            wait_until((home / f".s.PGSQL.{port}").exists)
            yield f"postgresql://gate@127.0.0.1:{port}/postgres"
        finally:
            process.kill()
            process.wait(timeout=PATIENCE)
