"""
What a handshake costs, and building the configuration, however much there is of it.

    python benchmarks/scale.py [--quick] [--only SERIES]

Every point of a series is a process of its own.  Handshakes are in memory; their
cost is the server's CPU time.  The points of a series take short turns, and a
figure is the median over the turns, a ratio that of the ratios to the smallest
point.  Exits 1 if a bar is missed.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scale_setup import Setup

#: A handshake at any point may cost so many times what it costs at the smallest.
RATIO = 1.10

#: Handshakes of one point before it is the next one's turn.
TURN = 10

VERSIONS = ("1.3", "1.2")

_PINS = {10_000: 2.0, 100_000: 10.0}


@dataclass
class Series:
    """
    Points that differ in one number only.

    `build` may take so many seconds at some sizes.  Where the CertificateRequest
    grows there is no bar for handshakes.
    """

    name: str
    title: str
    point: Callable
    sizes: tuple[int, ...]
    build: dict[int, float] = field(default_factory=dict)
    grows: bool = False


SERIES = [
    Series("pins", "pins below a CA", Setup.pins, (1, 100, 10_000, 100_000), _PINS),
    Series("files", "the same, a file each", Setup.pin_files, (10_000, 100_000), _PINS),
    Series("blocks", "the same, a pin block each", Setup.pin_blocks, (10_000,), _PINS),
    Series("lone", "pins without a CA", Setup.lone_pins, (1, 100, 10_000, 100_000), _PINS),
    Series(
        "lone-names",
        "pins without a CA, whose issuers are named to clients (of 10,000 none)",
        partial(Setup.lone_pins, send_ca_names=True),
        (1, 100, 10_000),
        _PINS,
        grows=True,
    ),
    Series("rules", "rules with a CA each", Setup.rules, (1, 100, 1_000)),
    Series(
        "rules-names",
        "rules with a CA each, which are named to clients",
        partial(Setup.rules, send_ca_names=True),
        (1, 100, 1_000),
        grows=True,
    ),
    Series("crl", "entries of a CRL", Setup.revoked, (0, 1_000, 100_000)),
    Series("servers", "servers with a name each", Setup.servers, (1, 100, 1_000)),
    Series("names", "names of a server", Setup.server_names, (1, 100, 1_000)),
    Series(
        "certificates",
        "certificates of a server",
        Setup.server_certificates,
        (1, 100, 1_000),
    ),
]


class Worker:
    """A process that has built one point."""

    def __init__(self, point):
        command = [sys.executable, str(Path(__file__).with_name("scale_point.py"))]
        command += [str(point.config), point.client]
        if point.server_name is not None:
            command.append(point.server_name)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built = json.loads(self._answer())

    def shake_hands(self, version, count):
        """Return the server's CPU time for each of so many handshakes."""
        self._process.stdin.write(f"{version} {count}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def end(self):
        self._process.communicate()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError("a point could not be measured")
        return line


@contextlib.contextmanager
def running(point, builds):
    """Build a point several times, and let the last process run; yield all that were."""
    workers = []
    try:
        for _ in range(builds):
            if workers:
                workers[-1].end()
            workers.append(Worker(point))
        yield workers
    finally:
        for worker in workers[-1:]:
            worker.end()


class Table:
    """Prints the rows of one series after the other, and remembers whether a bar was missed."""

    def __init__(self):
        self.missed = False

    def begin(self, series):
        print(f"\n{series.title}")
        columns = ("build s", "bar", "MB", "peak MB", "first ms")
        shakes = "".join(f"{'us, ' + version:>10}{'ratio':>7}" for version in VERSIONS)
        print(f"{'':>10}" + "".join(f"{one:>9}" for one in columns) + shakes, flush=True)

    def row(self, series, size, built, shakes):
        bar = series.build.get(size)
        cells = [
            f"{size:>10,}{built['cpu']:>9.2f}{'' if bar is None else f'<= {bar:g}':>9}",
            f"{built['memory'] / 1024:>9.1f}{built['peak'] / 1024:>9.1f}",
            f"{1e3 * built['first']:>9.2f}",
        ]
        missed = []
        if bar is not None and built["cpu"] > bar:
            missed.append("build")
        for version, (cost, ratio) in shakes.items():
            cells.append(f"{1e6 * cost:>10.0f}{ratio:>7.3f}")
            if ratio > RATIO and not series.grows:
                missed.append(f"TLS {version}")
        self.missed |= bool(missed)
        print("".join(cells) + (f"  MISSED: {', '.join(missed)}" if missed else "  ok"), flush=True)


def measure(table, series, points, builds, turns):
    """Print a table of one series."""
    table.begin(series)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running(point, builds)) for point in points]
        shakes = [{} for _ in points]
        for version in VERSIONS:
            outcomes = take_turns([one[-1] for one in processes], version, turns)
            for place, outcome in enumerate(outcomes):
                shakes[place][version] = outcome
        for point, workers, shaken in zip(points, processes, shakes, strict=True):
            built = {
                what: statistics.median(worker.built[what] for worker in workers)
                for what in workers[0].built
            }
            table.row(series, point.size, built, shaken)


def take_turns(workers, version, turns):
    """Return the cost of a handshake and its ratio to that of the first worker, of each worker."""
    costs = [[] for _ in workers]
    for turn in range(-2, turns):
        # Each goes first as often as the others.
        first = turn % len(workers)
        for place in [*range(first, len(workers)), *range(first)]:
            cost = workers[place].shake_hands(version, TURN)
            # The first turns warm up.
            if turn >= 0:
                costs[place].append(cost)
    return [
        (
            statistics.median(mine),
            statistics.median(one / base for one, base in zip(mine, costs[0], strict=True)),
        )
        for mine in costs
    ]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="without 100,000 pins, fewer turns, one build each"
    )
    parser.add_argument("--only", choices=[series.name for series in SERIES], help="one series")
    parser.add_argument("--turns", type=int, help="default 80, or 20 if quick")
    return parser.parse_args()


def main():
    options = parse_arguments()
    turns = options.turns or (20 if options.quick else 80)
    builds = 1 if options.quick else 3
    table = Table()
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-scale-"))
    try:
        setup = Setup(directory)
        for series in SERIES:
            if options.only in (None, series.name):
                sizes = [one for one in series.sizes if not options.quick or one < 100_000]
                points = [series.point(setup, size) for size in sizes]
                measure(table, series, points, builds, turns)
    finally:
        shutil.rmtree(directory)
    raise SystemExit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
