"""
A running ``twistd mtlsgate``, and what its log says.
"""

import asyncio
import os
import re
import socket
import subprocess
from collections import defaultdict
from pathlib import Path

from gate import script
from soak_clients import PATIENCE

_VERDICT = re.compile(
    r"\[mtlsgate\.gate#(?:info|warn)\] \S+: (admitted|rejected) ([0-9.:]+)(?: by rule|: (\w+):)"
    r"(.* resumed$)?"
)
_RELOAD = re.compile(r"\[mtlsgate\.reloads#\w+\] .*\bepoch \d+ (is|stays) in force\b")
_WRONG = re.compile(r"Traceback|Unhandled|internal_error|#critical|#failure|Exception")


def free_ports(count):
    """Return ports that nobody has."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


class Log:
    """
    What the gate logs, to the file `path`.

    `verdicts` are what it told of each client's address, in order; `listening` counts
    servers, `reloads` are whether a new configuration took over, `wrong` are lines that should
    not be there.
    """

    def __init__(self, path):
        self.path = path
        self._stream = path.open()
        self._rest = ""
        self.verdicts = defaultdict(list)
        self.listening = 0
        self.reloads = []
        self.wrong = []

    def read(self):
        """Take in what is new."""
        *lines, self._rest = (self._rest + self._stream.read()).split("\n")
        for line in lines:
            if found := _VERDICT.search(line):
                verdict, address, reason, resumed = found.groups()
                self.verdicts[address].append((verdict, reason, bool(resumed)))
            if found := _RELOAD.search(line):
                self.reloads.append(found[1] == "is")
            self.listening += ": listening on " in line
            if _WRONG.search(line):
                self.wrong.append(line)

    @property
    def count(self):
        """Return how many connections it told of."""
        return sum(map(len, self.verdicts.values()))


class RunningGate:
    """
    The gate of the ``gate.hcl`` in a directory, until the block ends.

    `process` is its process, `log` what it says.
    """

    def __init__(self, directory):
        path = directory / "gate.log"
        with path.open("wb") as stream:
            self.process = subprocess.Popen(
                [
                    *(script("twistd"), "--nodaemon", "--pidfile="),
                    *("mtlsgate", f"--config={directory}/gate.hcl"),
                ],
                # As it is: --logfile would begin another now and then.
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.log = Log(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    async def listens(self, servers):
        """Wait until so many servers listen."""
        async with asyncio.timeout(PATIENCE):
            while self.log.listening < servers:
                if self.process.poll() is not None:
                    raise ChildProcessError(self.log.path.read_text())
                await asyncio.sleep(0.05)
                self.log.read()

    def descriptors(self):
        """Return how many files it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self):
        """Return its resident memory in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def stop(self):
        """Have it end, in good order."""
        self.process.terminate()
        self.process.wait(PATIENCE)
