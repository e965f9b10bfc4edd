"""
The gate against bare Twisted, and against its own bars.

    python benchmarks/gate.py [--seconds N]

Servers run on one core, clients on another.  The gate and the bare server take
short turns, so that whatever else the machine does hurts both.  Speeds are
operations per second of the server's CPU time, ratios the medians over the
turns.  Exits 1 if a bar is missed.
"""

import argparse
import contextlib
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import load

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1

#: How long a server is under load at a time, in seconds.
TURN = 0.2

AUDIT = """\
settings {
  audit {
    file = "audit.log"
  }
}

"""

ECHO_CONFIG = """\
server "bench" {
  hosts = ["127.0.0.1:%(port)d"]

  protocol "echo" {}

  tls {
    server_certificate {
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "clients" {
      ca_certificate_file   = "ca.crt"
      leaf_certificate_file = "admitted.crt"
    }
  }
}
"""


def on_core(core, *command):
    """Return the command, pinned where the machine has that core."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return list(command)
    return ["taskset", "-c", str(cores[core]), *command]


def script(name):
    """Return the path of an installed command of this Python."""
    return str(Path(sys.executable).parent / name)


def twistd(directory, config):
    """Return the command that runs the gate as it runs in real life, its log in a file."""
    log = directory / f"{config.stem}.log"
    return (
        *(script("twistd"), "--nodaemon", "--pidfile=", f"--logfile={log}"),
        *("mtlsgate", f"--config={config}"),
    )


def wait_for(what, seconds=20.0):
    """Return the first true answer of `what`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(0.002)
    raise TimeoutError("a server did not start")


class Server:
    """A running server process."""

    def __init__(self, name, process, port):
        self.name, self.process, self.port = name, process, port

    def rss(self):
        """Return its resident memory in KB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])


@contextlib.contextmanager
def running(name, directory, settings=""):
    """Run a server while the block lasts: ``bare``, ``gate``, ``quiet`` for a gate
    that logs no connections, or ``audited`` for one that keeps an audit log, too;
    any other name is of a gate with these settings.  Every gate counts for its metrics."""
    environment = dict(os.environ)
    if name == "bare":
        port_file = directory / "bare.port"
        port_file.unlink(missing_ok=True)
        command = (sys.executable, str(HERE / "bare.py"), str(directory), str(port_file))
    else:
        config, log = directory / f"{name}.hcl", directory / f"{name}.log"
        settings = AUDIT if name == "audited" else settings
        config.write_text(settings + ECHO_CONFIG % {"port": 0})
        log.unlink(missing_ok=True)
        command = twistd(directory, config)
        if name == "quiet":
            command = (command[0], "--logger=quiet_log.observer", *command[1:])
            environment["QUIET_LOG"] = str(log)
            path = (str(HERE), environment.get("PYTHONPATH", ""))
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))

    def port():
        if process.poll() is not None:
            raise ChildProcessError(f"{name} ended: {process.args}")
        if name == "bare":
            return port_file.exists() and port_file.read_text().strip()
        found = log.exists() and re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())
        return found and found[1]

    process = subprocess.Popen(on_core(SERVER_CORE, *command), env=environment)
    try:
        yield Server(name, process, int(wait_for(port)))
    finally:
        process.terminate()
        process.wait()


def clients(*arguments, **keywords):
    """Start the clients in a process on their own core."""
    command = on_core(LOAD_CORE, sys.executable, str(HERE / "load.py"), *map(str, arguments))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **keywords)


@dataclass
class Turn:
    """What one server did in one turn; times in seconds."""

    count: float
    took: float
    cpu: float

    @property
    def speed(self):
        """
        Return operations per second of CPU, which is what a core of its own could do.

        It is what the bars are about: unlike operations per second by the
        clock it holds when others use the machine, or when the clients cannot
        keep the server busy.
        """
        return self.count / self.cpu


def run_turns(directory, what, seconds, turns, parameter, servers):
    """Return a list of turns for each server."""
    addresses = [f"{server.port}:{server.process.pid}" for server in servers]
    process = clients(what, directory, seconds, turns, parameter, *addresses)
    output, _ = process.communicate()
    if process.returncode:
        raise ChildProcessError("the clients failed")
    lines = [list(map(float, line.split())) for line in output.splitlines()]
    return [
        [Turn(*line[3 * place : 3 * place + 3]) for line in lines] for place in range(len(servers))
    ]


class Table:
    """Prints the rows as they come and remembers whether a bar was missed."""

    def __init__(self):
        self.missed = False
        print(f"{'':34}{'bare':>10}{'gate':>10}{'figure':>12}{'bar':>10}")

    def row(self, what, bare, gate, figure, bar, good):
        self.missed |= not good
        print(
            f"{what:34}{bare:>10}{gate:>10}{figure:>12}{bar:>10}  {'ok' if good else 'MISSED'}",
            flush=True,
        )

    def note(self, text):
        print(f"    {text}", flush=True)


def compare(table, servers, directory, options, what, bar, operation, parameter):
    """Let the bare server and the gate take turns, and put the ratio of their speeds down."""
    turns = round(options.seconds / (TURN * len(servers)))
    bare, gate = run_turns(directory, operation, TURN, turns, parameter, servers)
    ratios = [mine.speed / its.speed for mine, its in zip(gate, bare, strict=True)]
    ratio = statistics.median(ratios)
    speeds = [statistics.median(turn.speed for turn in one) for one in (bare, gate)]
    table.row(
        what, *(f"{speed:.0f}" for speed in speeds), f"{ratio:.3f}", f">= {bar:.2f}", ratio >= bar
    )
    low, _, high = statistics.quantiles(ratios)
    costs = ", ".join(f"{1e6 / speed:.0f}" for speed in speeds)
    walls = ", ".join(
        f"{sum(turn.count for turn in one) / sum(turn.took for turn in one):.0f}"
        for one in (bare, gate)
    )
    table.note(
        f"half of {turns} turns: {low:.3f} to {high:.3f}; us of CPU each: {costs}; "
        f"by the clock, with these clients: {walls}"
    )


def memory(table, directory, connections=1000, bar=24.0):
    """Measure what a connection costs that does nothing, on fresh servers."""
    figures = {}
    for name in ("bare", "gate"):
        with running(name, directory) as server:
            run_turns(directory, "echo", 0.1, 1, 20, [server])
            before = server.rss()
            holding = clients("idle", directory, connections, server.port, stdin=subprocess.PIPE)
            if holding.stdout.readline() != "ready\n":
                raise ChildProcessError("the idle clients failed")
            figures[name] = (server.rss() - before) / connections
            holding.communicate()
    bare, gate = (f"{figures[name]:.1f}" for name in ("bare", "gate"))
    what = "KB per idle connection"
    table.row(what, bare, gate, "", f"<= {bar:.0f}", figures["gate"] <= bar)


def check_time(table, directory, runs=9, bar=0.6):
    """Time ``mtlsgate check`` on the demo file."""
    command = on_core(SERVER_CORE, script("mtlsgate"), "check", f"--config={directory}/gate.hcl")
    times = []
    for _ in range(runs + 1):
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - begin)
    figure = statistics.median(times[1:])
    table.row("mtlsgate check, s", "", f"{figure:.3f}", "", f"< {bar:.1f}", figure < bar)
    table.note(f"{min(times[1:]):.3f} to {max(times[1:]):.3f}")


def start_time(table, directory, runs=9, bar=1.0):
    """
    Time ``twistd mtlsgate`` from the command to a connection, and to an echo.

    The gate's sockets take connections before the reactor runs, so it is the
    echo that counts.
    """
    connected, answered = zip(
        *(one_start(directory) for _ in range(runs + 1)),
        strict=True,
    )
    figure, connect = (statistics.median(times[1:]) for times in (answered, connected))
    table.row(
        "twistd start to first echo, s", "", f"{figure:.3f}", "", f"< {bar:.1f}", figure < bar
    )
    table.note(
        f"{min(answered[1:]):.3f} to {max(answered[1:]):.3f}; to a TCP connection {connect:.3f}"
    )


def one_start(directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = directory / "start.hcl"
    config.write_text(ECHO_CONFIG % {"port": port})
    admitted = load.Clients(port, directory)

    def connect():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return False
        return True

    begin = time.monotonic()
    process = subprocess.Popen(on_core(SERVER_CORE, *twistd(directory, config)))
    try:
        wait_for(connect)
        connected = time.monotonic() - begin
        load.close(admitted.connect())
        return connected, time.monotonic() - begin
    finally:
        process.terminate()
        process.wait()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="for each comparison (default 20)"
    )
    parser.add_argument(
        "--only",
        choices=["handshakes", "echo", "memory", "start"],
        help="one part of it",
    )
    return parser.parse_args()


def main():
    options = parse_arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-bench-"))
    try:
        subprocess.run(
            [script("mtlsgate"), "init", str(directory)], check=True, stdout=subprocess.DEVNULL
        )
        table = measure(directory, options)
    finally:
        shutil.rmtree(directory)
    raise SystemExit(1 if table.missed else 0)


def measure(directory, options):
    table = Table()

    def wanted(part):
        return options.only in (None, part)

    with running("bare", directory) as bare, running("gate", directory) as gate:
        comparison = (table, [bare, gate], directory, options)
        if wanted("handshakes"):
            for version in ("1.3", "1.2"):
                what = f"handshakes/s, TLS {version}"
                compare(*comparison, what, 1.0, "handshakes", version)
            for name, with_what in (("quiet", "unlogged"), ("audited", "audited")):
                with running(name, directory) as other:
                    comparison = (table, [bare, other], directory, options)
                    what = f"handshakes/s, TLS 1.3, {with_what}"
                    compare(*comparison, what, 0.90, "handshakes", "1.3")
            comparison = (table, [bare, gate], directory, options)
        if wanted("echo"):
            for connections in (1, 32):
                what = f"echoes/s, connections: {connections}"
                compare(*comparison, what, 1.2, "echo", connections)
    if wanted("memory"):
        memory(table, directory)
    if wanted("start"):
        check_time(table, directory)
        start_time(table, directory)
    return table


if __name__ == "__main__":
    main()
