"""
Several workers: how many handshakes, how evenly shared, and what happens when one is killed.

    python benchmarks/workers.py [--seconds N] [--workers N ...]

For each number of workers a gate is started with `echo`, and as many clients as keep it busy
come and go, each with a full handshake and one echo.  Two figures are told: handshakes for each
second of time, and for each second of CPU of all its processes.  Where nothing else needs the
cores, the first grows with the workers.  Where the clients share the cores, it cannot, and the
second says how much of what is left is used.  ``spread`` is how far the workers' CPU times are
apart, as a share of their mean; ``supervisor`` is that process's share of all.

Then it asks whether workers should share the listening sockets or have one each
(SO_REUSEPORT), with small servers that only accept, work and close: how evenly connections
are spread, how long the slowest waits, and how many are lost when one is killed.
"""

import argparse
import contextlib
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import gate
import load

#: Milliseconds of work for each connection of the small servers, about a handshake's.
WORK = 0.0007
MANY = 3000
#: The most that are accepted in one turn.
MOST = 1


def cpu_of_processes(pids):
    """Return the seconds of CPU that processes have used, all of their threads."""
    found = {}
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def children(pid):
    """Return the processes that a process has forked, and those that these have."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


@contextlib.contextmanager
def running(directory, workers):
    """Run a gate, and tell its port and its process."""
    config = Path(directory) / f"workers-{workers}.hcl"
    text = gate.ECHO_CONFIG % {"port": 0}
    config.write_text(f"settings {{\n  workers = {workers}\n}}\n{text}")
    log = Path(directory) / f"workers-{workers}.log"
    twistd = Path(sys.executable).parent / "twistd"
    command = [twistd, "-n", "--pidfile=", f"--logfile={log}", "mtlsgate", "--config", config]
    with subprocess.Popen(command, cwd=directory) as process:
        try:
            ready = "workers take connections" if workers > 1 else "listening on"
            while not log.exists() or ready not in log.read_text():
                time.sleep(0.05)
            port = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())[1]
            yield int(port), process.pid
        finally:
            process.terminate()


def come_and_go(clients, until):
    """Return how many handshakes there were."""
    count = 0
    while time.monotonic() < until:
        with contextlib.closing(clients.connect()):
            count += 1
    return count


def under_load(directory, port, pid, seconds, processes):
    """Return handshakes and the CPU of each process."""
    pids = [pid, *children(pid)]
    before = cpu_of_processes(pids)
    began = time.monotonic()
    pipes = []
    for _ in range(processes):
        reading, writing = os.pipe()
        if os.fork() == 0:
            counts = [0] * 4

            def work(index, counts=counts):
                clients = load.Clients(port, directory)
                counts[index] = come_and_go(clients, began + seconds)

            threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.write(writing, b"%d" % sum(counts))
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    total = sum(int(os.read(one, 100)) for one in pipes)
    for one in pipes:
        os.close(one)
    for _ in range(processes):
        os.wait()
    took = time.monotonic() - began
    after = cpu_of_processes(pids)
    return total, took, {one: after[one] - before[one] for one in pids}


def measure_gates(directory, seconds, workers):
    """Print a line for each number of workers."""
    print("workers  handshakes/s  per CPU second  spread  supervisor")
    for number in workers:
        with running(directory, number) as (port, pid):
            under_load(directory, port, pid, 0.5, 2)
            total, took, used = under_load(directory, port, pid, seconds, 2)
        busy = sorted(used.values(), reverse=True)[:number]
        cpu = sum(used.values())
        spread = (busy[0] - busy[-1]) / statistics.mean(busy)
        own = used[pid] / cpu if number > 1 else 0.0
        print(f"{number:7}  {total / took:12.0f}  {total / cpu:14.0f}  {spread:6.0%}  {own:10.1%}")


def serve(listening):
    """Accept, work, and answer, as a process; several connections a turn, as the gate does."""
    listening.setblocking(False)
    poll = select.epoll()
    poll.register(listening.fileno(), select.EPOLLIN)
    while True:
        poll.poll()
        for _ in range(MOST):
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                break
            until = time.process_time() + WORK
            while time.process_time() < until:
                pass
            with contextlib.suppress(OSError):
                accepted.sendall(b"%d" % os.getpid())
            accepted.close()


def bound(port, reuse):
    """Return a listening socket."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", port))
    one.listen(1024)
    return one


def measure_sockets(is_reuse, number, is_killed):
    """Print how connections fare with shared sockets, or one for each worker."""
    first = bound(0, is_reuse)
    port = first.getsockname()[1]
    sockets = [first, *(bound(port, True) for _ in range(number - 1))] if is_reuse else [first]
    pids = []
    for index in range(number):
        pid = os.fork()
        if pid == 0:
            mine = sockets[index % len(sockets)]
            for one in sockets:
                if one is not mine:
                    one.close()
            serve(mine)
        pids.append(pid)
    # With SO_REUSEPORT each worker's own socket goes with it.
    for one in sockets:
        one.close()
    served, lost, waits = {}, [0], []
    lock = threading.Lock()
    left = [MANY]

    def ask():
        while True:
            with lock:
                if not left[0]:
                    return
                left[0] -= 1
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
                    who = one.recv(100)
                if not who:
                    raise ConnectionError
            except OSError:
                with lock:
                    lost[0] += 1
                continue
            with lock:
                served[who] = served.get(who, 0) + 1
                waits.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    if is_killed:
        while left[0] > MANY / 2:
            time.sleep(0.001)
        os.kill(pids[0], signal.SIGKILL)
    for thread in threads:
        thread.join()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    counts = sorted(served.values())
    spread = (counts[-1] - counts[0]) / statistics.mean(counts)
    waits.sort()
    kind = "SO_REUSEPORT" if is_reuse else "shared"
    print(
        f"{kind:12}  {'killed' if is_killed else 'whole':6}  spread {spread:5.0%}  "
        f"median {waits[len(waits) // 2] * 1e3:6.1f} ms  "
        f"99 % {waits[len(waits) * 99 // 100] * 1e3:6.1f} ms  lost {lost[0]}"
    )


def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    for is_killed in (False, True):
        for is_reuse in (False, True):
            measure_sockets(is_reuse, max(options.workers), is_killed)
    with tempfile.TemporaryDirectory() as directory:
        command = [Path(sys.executable).parent / "mtlsgate", "init", f"{directory}/demo"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        directory = f"{directory}/demo"
        measure_gates(directory, options.seconds, options.workers)


if __name__ == "__main__":
    main()
