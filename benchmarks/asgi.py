"""
ASGI behind the gate against uvicorn by itself, with TLS and client certificates.

    python benchmarks/asgi.py [--seconds N]

The same application, which answers a few bytes, by ``protocol "web" { asgi = … }`` and by
uvicorn: with uvloop and with asyncio's own loop, with httptools in both.  The gate runs on
uvloop.  Beside them, for comparison, the same answer as a file and by WSGI.  Method, turns
and floors are those of `peers.py`.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

from peers import Comparison, Floor, backend, make_files, measure
from peers_report import floors, judge, ratios, speeds
from peers_servers import running

UVICORNS = ("uvicorn, fast", "uvicorn, httptools")
SERVERS = ("web, ASGI", *UVICORNS, "web, files", "web, WSGI")

COMPARISONS = (
    Comparison(
        "kept",
        "requests, 32 connections",
        "kept",
        32,
        SERVERS,
        (Floor("web, ASGI", UVICORNS, 0.8),),
    ),
    Comparison(
        "fresh",
        "requests, each a connection",
        "fresh",
        "1.3",
        SERVERS,
        (Floor("web, ASGI", UVICORNS, 1.2),),
    ),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="for each (default 12)")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mtlsgate-asgi-"))
    try:
        make_files(directory)
        with backend() as port:
            measured = measured_of(directory, port, options.seconds)
    finally:
        shutil.rmtree(directory)
    print(speeds(measured), "", ratios(measured), "", floors(measured), sep="\n")
    sys.exit(any(verdict.missed for one in measured for verdict in judge(one)))


def measured_of(directory, port, seconds):
    """Let the servers take turns, and return what came of it."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(name, directory, port, False)) for name in SERVERS]
        return [measure(one, directory, servers, seconds) for one in COMPARISONS]


if __name__ == "__main__":
    main()
