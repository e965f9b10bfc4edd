"""
What a registry of very many devices costs, in a real Redis and a real PostgreSQL.

    python benchmarks/registry.py [--devices N] [--store redis|postgresql] [--seconds N]

- Import: devices that `mtlsgate registry import` writes in a second, checking included.
- Handshakes: three gates take short turns, one without a registry, one that has to ask for
  each client, and one that knows the answers.  Clients come one after the other, each with
  a certificate of its own; the gate that has to ask keeps one answer only.  Speeds are
  handshakes for each second of the gate's CPU time, ratios the medians over the turns.
- Memory: a gate's resident memory before and after the devices are listed, which it is
  told of, and after the same clients came.
- Denial: from the moment before a device is denied to the end of its connection, on
  each of three gates.

Gates run on one core, clients and stores on another.  Exits 1 if a bar is missed.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import os
import pwd
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gate
import load

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.certificates.certificate import view
from mtlsgate.certificates.development_ca import Authority
from mtlsgate.registry.opening import open_store
from mtlsgate.registry.store import StoreOptions

#: Clients with certificates of their own; more than the threads that connect.
CLIENTS = 64
#: Devices of the memory figure's first half.
FEW = 1000
TURN = 0.2
#: The least that each figure should be.
COLD, WARM, IMPORT = 0.75, 0.95, 20_000
#: Seconds in which a denial has to take effect.
DENIAL = 1.0

CONFIG = """\
%(registry)s
server "bench" {
  hosts = ["127.0.0.1:0"]

  protocol "echo" {}

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "clients" {
      ca_certificate_file = "ca.crt"
      %(rule)s
    }
  }
}
"""
REGISTRY = """\
registry "devices" {
  url           = "%(url)s"
  cache_entries = %(entries)d
}
"""


# The stores.


@contextlib.contextmanager
def redis(directory):
    """Run a Redis, and tell its URL."""
    path = directory / "redis.sock"
    options = ("--port", "0", "--unixsocket", path, "--save", "", "--dir", directory)
    with started(directory / "redis.log", "redis-server", *options, "--daemonize", "no"):
        gate.wait_for(path.exists)
        yield f"redis+unix://{path}"


@contextlib.contextmanager
def postgresql(directory):
    """Run a PostgreSQL, and tell its URL."""
    home = Path(tempfile.mkdtemp(prefix="mtlsgate-bench-pg-"))
    owner = ()
    if os.getuid() == 0:
        # It does not run as root.
        user = pwd.getpwnam("postgres")
        os.chown(home, user.pw_uid, user.pw_gid)
        owner = ("runuser", "-u", "postgres", "--")
    places = os.pathsep.join(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    path = f"{os.environ['PATH']}{os.pathsep}{places}"
    initdb, server = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    data = home / "data"
    try:
        subprocess.run(
            [*owner, initdb, "-D", data, "-A", "trust", "-U", "gate", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=home,
        )
        options = ("-k", home, "-c", "listen_addresses=", "-c", "fsync=off")
        with started(directory / "postgresql.log", *owner, server, "-D", data, *options):
            gate.wait_for((home / ".s.PGSQL.5432").exists)
            url = f"postgresql://gate@/postgres?host={home}"
            yield url
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def started(log, *command):
    """Run a program until the block ends, on the clients' core."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            gate.on_core(gate.LOAD_CORE, *map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


STORES = {"redis": redis, "postgresql": postgresql}


# What is listed.


def prepare(directory):
    """Write a CA, a server, and clients; return the clients' keys in the registry."""
    authority = Authority.create("Bench CA")
    server = authority.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    (directory / "ca.crt").write_bytes(authority.pem)
    keys = []
    for name, one in [
        ("server", server),
        *((f"client-{n}", authority.issue(f"client {n}")) for n in range(CLIENTS)),
    ]:
        (directory / f"{name}.crt").write_bytes(one.pem)
        (directory / f"{name}.key").write_bytes(one.key_pem)
        (directory / f"{name}.key").chmod(0o600)
        keys.append(view(one.certificate).identity.hex())
    return keys[1:]


def write_devices(path, keys, count):
    """Write a file with so many devices, the clients among them."""
    with path.open("w") as file:
        file.write("key,state,not_after,note,attributes.tenant\n")
        others = (hashlib.sha256(b"%d" % n).hexdigest() for n in range(count - len(keys)))
        for number, key in enumerate(itertools.chain(keys, others)):
            file.write(f"{key},active,2099-01-01T00:00:00Z,device {number},north\n")


def import_devices(config, path, *options):
    """Return how many seconds it took to write a file's devices, and which of them of CPU."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = (gate.script("mtlsgate"), "registry", "import", path, "--config", config, *options)
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    took, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# The gates.


@contextlib.contextmanager
def running(directory, name, url=None, entries=100_000):
    """Run a gate that asks the registry at the URL, if there is one."""
    config = directory / f"{name}.hcl"
    config.write_text(configuration(url, entries))
    log = directory / f"{name}.log"
    process = subprocess.Popen(
        gate.on_core(gate.SERVER_CORE, *gate.twistd(directory, config)), stdin=subprocess.DEVNULL
    )

    def port():
        if process.poll() is not None:
            raise ChildProcessError(f"{name} ended:\n{log.read_text()}")
        text = log.read_text() if log.exists() else ""
        _, there, rest = text.partition("listening on 127.0.0.1:")
        return there and rest.partition(";")[0]

    try:
        server = gate.Server(name, process, int(gate.wait_for(port)))
        clients = Clients(server.port, directory)
        # Until it follows the registry, nobody comes in.
        gate.wait_for(clients.try_in)
        yield server
    finally:
        process.terminate()
        process.wait()


def configuration(url, entries):
    """Return the configuration of a gate."""
    if url is None:
        return CONFIG % {"registry": "", "rule": ""}
    block = REGISTRY % {"url": url, "entries": entries}
    return CONFIG % {"registry": block, "rule": 'registry = "devices"'}


class Clients(load.Clients):
    """Clients with certificates of their own, who come one after the other."""

    def __init__(self, port, directory):
        self.port = int(port)
        self._contexts = itertools.cycle([context(directory, n) for n in range(CLIENTS)])

    @property
    def context(self):
        return next(self._contexts)

    def try_in(self):
        """Return whether one of them was let in."""
        try:
            load.close(self.connect())
        except OSError:
            return False
        return True


def context(directory, number):
    """Return what a client needs to connect."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(f"{directory}/ca.crt")
    made.load_cert_chain(f"{directory}/client-{number}.crt", f"{directory}/client-{number}.key")
    return made


# The figures.


def handshakes(directory, servers, seconds):
    """Return the turns of each server."""
    turns = max(1, round(seconds / (TURN * len(servers))))
    addresses = [f"{server.port}:{server.process.pid}" for server in servers]
    command = (sys.executable, __file__, "--clients", directory, turns, *addresses)
    done = subprocess.run(
        gate.on_core(gate.LOAD_CORE, *map(str, command)),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = [list(map(float, line.split())) for line in done.stdout.splitlines()]
    return [
        [gate.Turn(*line[3 * place : 3 * place + 3]) for line in lines]
        for place in range(len(servers))
    ]


def clients(directory, turns, *addresses):
    """Be the clients, in a process of their own, and print what each turn did."""
    servers = [address.split(":") for address in addresses]
    targets = [(pid, Clients(port, directory)) for port, pid in servers]
    with ThreadPoolExecutor(load.THREADS) as pool:
        for _, one in targets:
            # All of them come once, so that a gate that may know them does.
            for _ in range(CLIENTS):
                load.close(one.connect())
        load.take_turns(int(turns), targets, lambda one: load.handshakes(pool, one, TURN))


async def denials(directory, url, label_prefix, key, ports, rounds):
    """Return how many seconds each of the connections outlived its denial."""
    store = open_store(StoreOptions(url, label_prefix, timeout=10.0))
    found = []
    try:
        for _ in range(rounds):
            await store.put([Device(key)])
            opened = [await admitted(directory, port) for port in ports]
            begin = time.monotonic()
            ends = [asyncio.ensure_future(ended(reader)) for reader, _ in opened]
            await store.put([Device(key, DeviceState.DENIED)])
            found += [at - begin for at in await asyncio.gather(*ends)]
            for _, writer in opened:
                writer.transport.abort()
        await store.put([Device(key)])
    finally:
        await store.close()
    return found


async def admitted(directory, port):
    """Connect as the first client as soon as it may come in."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context(directory, 0), server_hostname="localhost"
            )
            writer.write(b"x")
            if await reader.read(1):
                return reader, writer
        except OSError:
            pass
        await asyncio.sleep(0.01)


async def ended(reader):
    """Return when a connection ended."""
    with contextlib.suppress(OSError):
        await asyncio.wait_for(reader.read(1), 20)
    return time.monotonic()


class Table:
    """Prints figures as rows, and remembers whether a bar was missed."""

    def __init__(self):
        self.missed = False
        print("| store | figure | | bar | |\n|---|---|---|---|---|")

    def row(self, store, what, figure, bar="", is_good=True):
        self.missed |= not is_good
        verdict = "" if not bar else "reached" if is_good else "missed"
        print(f"| {store} | {what} | {figure} | {bar} | {verdict} |", flush=True)


def measure(table, name, directory, options):
    """Measure everything with one kind of store."""
    keys = prepare(directory)
    few, many = directory / "few.csv", directory / "many.csv"
    write_devices(few, keys, min(FEW, options.devices))
    write_devices(many, keys, options.devices)
    with STORES[name](directory) as url:
        config = directory / "registry.hcl"
        config.write_text(configuration(url, 1))
        subprocess.run(
            [gate.script("mtlsgate"), "registry", "schema", "--apply", "--config", str(config)],
            check=True,
            capture_output=True,
        )
        rate(table, name, options, import_devices(config, many))
        import_devices(config, few, "--replace", "--yes")
        with running(directory, "warm", url) as warm:
            memory(table, name, directory, options, warm, lambda: import_devices(config, many))
            ratios(table, name, directory, options, url, warm)
        with contextlib.ExitStack() as stack:
            ports = [
                stack.enter_context(running(directory, f"gate-{n}", url)).port for n in range(3)
            ]
            prefix = "mtlsgate_devices" if name == "postgresql" else "mtlsgate:devices"
            times = asyncio.run(denials(directory, url, prefix, keys[0], ports, options.rounds))
        times.sort()
        median, late = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
        table.row(
            name,
            f"denial to the end of {len(times)} connections on three gates, p50 and p99, ms",
            f"{median:.1f}, {late:.1f}",
            f"<= {DENIAL * 1000:.0f}",
            late <= DENIAL * 1000,
        )


def rate(table, name, options, times):
    """Tell how fast an import was, of which there are seconds in all and of CPU."""
    took, cpu = (options.devices / seconds for seconds in times)
    bar = f">= {IMPORT:,}" if name == "redis" else ""
    what = f"import of {options.devices:,}, devices a second ({cpu:,.0f} for a second of CPU)"
    table.row(name, what, f"{took:,.0f}", bar, not bar or took >= IMPORT)


def memory(table, name, directory, options, server, list_many):
    """Measure what a gate keeps of the devices, although it is told of each."""
    handshakes(directory, [server], options.seconds / 4)
    before = server.rss()
    list_many()
    handshakes(directory, [server], options.seconds / 4)
    what = f"a gate's memory with {min(FEW, options.devices):,} and {options.devices:,} listed, MB"
    table.row(name, what, f"{before / 1024:.1f}, {server.rss() / 1024:.1f}")


def ratios(table, name, directory, options, url, warm):
    """Measure what asking costs."""
    with (
        running(directory, "none") as none,
        running(directory, "cold", url, entries=1) as cold,
    ):
        turns = handshakes(directory, [none, cold, warm], options.seconds)
    without, *others = turns
    speed = statistics.median(turn.speed for turn in without)
    table.row(name, "handshakes for a second of CPU, without a registry", f"{speed:,.0f}")
    for what, bar, ones in (("cold", COLD, others[0]), ("warm", WARM, others[1])):
        found = [one.speed / other.speed for one, other in zip(ones, without, strict=True)]
        ratio = statistics.median(found)
        quarters = statistics.quantiles(found) if len(found) > 1 else [ratio] * 3
        table.row(
            name,
            f"the same with a {what} cache, as a share of that",
            f"{ratio:.2f} ({quarters[0]:.2f} to {quarters[2]:.2f})",
            f">= {bar}",
            ratio >= bar,
        )


def main():
    if sys.argv[1:2] == ["--clients"]:
        clients(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--devices", type=int, default=1_000_000, help="default 1000000")
    parser.add_argument("--seconds", type=float, default=20.0, help="of handshakes, default 20")
    parser.add_argument("--rounds", type=int, default=200, help="of denials, default 200")
    parser.add_argument("--store", choices=STORES, help="one of them")
    options = parser.parse_args()
    table = Table()
    for name in STORES if options.store is None else (options.store,):
        directory = Path(tempfile.mkdtemp(prefix="mtlsgate-bench-"))
        try:
            measure(table, name, directory, options)
        finally:
            shutil.rmtree(directory)
    raise SystemExit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
