"""
How long a denial takes from the store to the closed connection, over three gates.

The fleet of contrib/fleet runs on this machine: three gates behind HAProxy, Redis with Sentinel.
Again and again a device is connected to all gates and denied.  The time is that from Redis'
answer to the write, to the end of the connection as its client sees it, through HAProxy::

    venv/bin/python benchmarks/denials.py --rounds 200
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

FLEET = Path(__file__).parent.parent / "contrib" / "fleet"


def tell(directory: str, *command: str) -> str:
    """Have the fleet do something.  :returns: what it says."""
    words = [sys.executable, str(FLEET), "--directory", directory, *command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def measured(directory: str, rounds: int) -> tuple[list[float], list[float]]:
    """:returns: in milliseconds, for each connection and for the last one of each round."""
    each, last = [], []
    for _ in range(rounds):
        tell(directory, "hold", "device-2")
        told = tell(directory, "deny", "device-2")
        times = [float(one) for one in re.findall(r"connection ([\d.]+) ms later", told)]
        each += times
        last.append(max(times))
        tell(directory, "allow", "device-2")
    return each, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            [sys.executable, str(FLEET), "--directory", directory, "up"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as fleet,
    ):
        assert fleet.stdout is not None
        try:
            for line in fleet.stdout:
                if line.startswith("Clients come in"):
                    break
            # What else it says is nobody's business, but a full pipe would stop it.
            threading.Thread(target=fleet.stdout.read, daemon=True).start()
            each, last = measured(directory, rounds)
        finally:
            fleet.terminate()
            fleet.wait()
    for name, times in (("a connection", each), ("the last of three gates", last)):
        quantiles = statistics.quantiles(times, n=100, method="inclusive")
        print(f"{name}: p50 {quantiles[49]:.1f} ms, p99 {quantiles[98]:.1f} ms, of {len(times)}")


if __name__ == "__main__":
    main()
