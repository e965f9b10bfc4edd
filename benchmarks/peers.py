"""
The gate against its peers.

    python benchmarks/peers.py [--seconds N] [--only PART] [--svg FILE]

``protocol "proxy"`` against nginx (stream), HAProxy, stunnel and Hitch, as Debian has them,
before the same backend; ``protocol "web"`` and ``protocol "http"`` against uvicorn and
hypercorn (``pip install mtlsgate[bench]``) and nginx.  What is not installed is left out.

Servers run on one core, the clients and the backend on another.  The servers of a
comparison take short turns, so that whatever else the machine does hurts all alike.
Speeds are per second of the CPU of all of a server's processes, and by the
clock.  Exits 1 if a floor is missed.
"""

import argparse
import contextlib
import json
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import gate
from peers_apps import BODY
from peers_plans import Place, plan
from peers_plot import svg
from peers_report import Comparison, Floor, Measured, floors, judge, panels, ratios, speeds
from peers_servers import running

#: How long a server is under load at a time, in seconds.
TURN = 0.25

PEERS = ("nginx", "HAProxy", "stunnel", "Hitch")
PROXIES = ("gate", *PEERS)
WEBS = ("web, WSGI", "web, files", "http", "uvicorn", "uvicorn, fast", "hypercorn", "nginx, http")

_NGINX = (Floor("gate", ("nginx",), 0.85),)
_WEB = (Floor("web, WSGI", ("uvicorn",), 1.3), Floor("web, files", ("uvicorn",), 1.3))
_MB = 1e6

COMPARISONS = (
    Comparison("handshakes", "handshakes, TLS 1.3", "handshakes", "1.3", PROXIES, _NGINX),
    Comparison("handshakes", "handshakes, TLS 1.2", "handshakes", "1.2", PROXIES, _NGINX),
    Comparison(
        "handshakes",
        "handshakes, TLS 1.3, logged",
        "handshakes",
        "1.3",
        # Hitch logs nothing, or a dozen lines.
        PROXIES[:-1],
        _NGINX,
        logged=True,
    ),
    Comparison("echo", "round trips, 1 connection", "echo", 1, PROXIES),
    Comparison(
        "echo",
        "round trips, 32 connections",
        "echo",
        32,
        PROXIES,
        (Floor("gate", ("nginx",), 0.55),),
    ),
    Comparison("bulk", "MB down", "down", 1, PROXIES, (Floor("gate", ("nginx",), 1.2),), _MB),
    Comparison("bulk", "MB up", "up", 1, PROXIES, (Floor("gate", ("nginx",), 1.2),), _MB),
    Comparison("web", "requests, each a connection", "fresh", "1.3", WEBS, _WEB),
    Comparison("web", "requests, 32 connections", "kept", 32, WEBS),
)


def make_files(directory):
    """Make the certificates, and what is served."""
    command = [gate.script("mtlsgate"), "init", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    parts = [(directory / f"server.{part}").read_bytes() for part in ("key", "crt")]
    (directory / "server.pem").write_bytes(b"".join(parts))
    files = directory / "files"
    files.mkdir()
    (files / "hello.txt").write_bytes(BODY)


@contextlib.contextmanager
def backend():
    """Run the backend beside the clients while the block lasts; gives its port."""
    script = str(gate.HERE / "peers_backend.py")
    process = subprocess.Popen(
        gate.on_core(gate.LOAD_CORE, sys.executable, script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield int(process.stdout.readline())
    finally:
        process.communicate()


def load(*arguments, **keywords):
    """Start the clients in a process on their own core."""
    script = str(gate.HERE / "peers_load.py")
    command = gate.on_core(gate.LOAD_CORE, sys.executable, script, *map(str, arguments))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **keywords)


def measure(comparison, directory, servers, seconds):
    """Let the servers take turns."""
    turns = max(2, round(seconds / (TURN * len(servers))))
    addresses = [f"{one.port}:{','.join(map(str, one.pids))}" for one in servers]
    what = (comparison.operation, directory, TURN, turns, comparison.parameter)
    process = load(*what, *addresses)
    output, _ = process.communicate()
    if process.returncode:
        raise ChildProcessError("the clients failed")
    lines = [[gate.Turn(*one) for one in json.loads(line)] for line in output.splitlines()]
    return Measured(
        comparison,
        {one.name: list(its) for one, its in zip(servers, zip(*lines, strict=True), strict=True)},
    )


def memory(directory, port, names, connections=1000):
    """Return what a connection costs each server that does nothing, in KB."""
    figures = {}
    for name in names:
        with running(name, directory, port, False) as server:
            warm = Comparison("memory", "", "handshakes", "1.3", (name,))
            measure(warm, directory, [server], 2 * TURN)
            before = server.rss()
            holding = load("idle", directory, connections, server.port, stdin=subprocess.PIPE)
            if holding.stdout.readline() != "ready\n":
                raise ChildProcessError("the idle clients failed")
            figures[name] = (server.rss() - before) / connections
            holding.communicate()
    return figures


class Session:
    """
    One run of it all.

    :ivar measured: what it found so far.
    """

    def __init__(self, directory, port, options):
        self.directory, self.port, self.options = directory, port, options
        self.measured = []
        self.memory = {}

    def run(self):
        missing = []
        for servers in (PROXIES, WEBS):
            there = [one for one in servers if self._is_installed(one)]
            missing += [one for one in servers if one not in there]
            for logged in (False, True):
                self._compare(there, servers, logged)
        if missing:
            print(f"not installed, and left out: {'; '.join(missing)}")
        if self._wanted("memory"):
            there = [one for one in PROXIES if one not in missing]
            self.memory = memory(self.directory, self.port, there)

    def _wanted(self, key):
        return self.options.only in (None, key)

    def _is_installed(self, name):
        place = Place(self.directory, 1, self.port)
        return plan(name, place) is not None

    def _compare(self, there, among, logged):
        """Run all comparisons of those servers that are there."""
        wanted = [
            one
            for one in COMPARISONS
            if self._wanted(one.key) and one.logged == logged and set(one.servers) <= set(among)
        ]
        if not wanted:
            return
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(running(name, self.directory, self.port, logged))
                for name in there
                if any(name in one.servers for one in wanted)
            ]
            for one in wanted:
                print(f"{one.title} ...", file=sys.stderr, flush=True)
                its = [server for server in servers if server.name in one.servers]
                self.measured.append(measure(one, self.directory, its, self.options.seconds))


def report(session):
    """Print the tables; return whether a floor was missed."""
    for servers in (PROXIES, WEBS):
        its = [one for one in session.measured if set(one.comparison.servers) <= set(servers)]
        if its:
            print("", speeds(its), "", ratios(its), sep="\n")
    if session.memory:
        print("", "KB per idle connection:", sep="\n")
        print(", ".join(f"{name} {kb:.1f}" for name, kb in session.memory.items()))
    if session.measured:
        print("", floors(session.measured), sep="\n")
    return any(verdict.missed for one in session.measured for verdict in judge(one))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="for each comparison (default 12)"
    )
    parser.add_argument(
        "--only",
        choices=[*dict.fromkeys(one.key for one in COMPARISONS), "memory"],
        help="one part of it",
    )
    parser.add_argument("--svg", type=Path, help="write a plot there")
    return parser.parse_args()


def main():
    options = parse_arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if ssl.OPENSSL_VERSION_INFO >= (3, 5):
        print(
            f"{ssl.OPENSSL_VERSION} offers X25519MLKEM768, which the gate takes and others do not"
        )
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-peers-"))
    try:
        make_files(directory)
        with backend() as port:
            session = Session(directory, port, options)
            session.run()
    finally:
        shutil.rmtree(directory)
    missed = report(session)
    if options.svg:
        shown = [one for one in session.measured if not one.comparison.logged]
        options.svg.write_text(
            svg(
                "mtlsgate and its peers",
                "Per second of the server's CPU, on one core; client certificates demanded",
                panels(shown, session.memory),
            )
        )
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
