"""
The servers that `peers.py` compares, while they run.
"""

import contextlib
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import gate
import load
from peers_plans import Place, plan


def family(pid):
    """Return the ids of a process and of all that descend from it."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: the state and the parent.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def resident(pid):
    """Return the resident memory of a process in KB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


@dataclass
class Server:
    """
    A server that runs.

    :ivar pids: of all its processes.
    """

    name: str
    port: int
    pids: list[int]

    def rss(self):
        """Return its resident memory in KB, that of all its processes added up."""
        return sum(map(resident, self.pids))


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(name, directory, backend, logged):
    """Run a server, which must be installed, while the block lasts."""
    place = Place(directory, free_port(), backend, logged)
    todo = plan(name, place)
    for file, text in todo.files.items():
        (directory / file).write_text(text)
    output = directory / todo.output
    with output.open("wb") as stream:
        process = subprocess.Popen(
            gate.on_core(gate.SERVER_CORE, *todo.command),
            cwd=directory,
            env={**os.environ, **todo.environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            process_group=0,
        )
    try:
        admitted = load.Clients(place.port, directory)

        def answers():
            if process.poll() is not None:
                raise ChildProcessError(f"{name} ended: {output.read_text()[-2000:]}")
            with contextlib.suppress(OSError):
                admitted.secure().close()
                return True

        gate.wait_for(answers)
        yield Server(name, place.port, family(process.pid))
    finally:
        end(process)


def end(process):
    """End a server, and what it leaves behind of its process group, which is its own."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
