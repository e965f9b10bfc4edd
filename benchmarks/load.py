"""
The clients: raw sockets and the standard library's ssl, in a process of their own.

    python load.py handshakes DIRECTORY SECONDS TURNS VERSION     PORT:PID ...
    python load.py echo       DIRECTORY SECONDS TURNS CONNECTIONS PORT:PID ...
    python load.py idle       DIRECTORY CONNECTIONS               PORT

The first two let the servers take turns, each turn so many seconds long, and
print a line for each turn of all servers: for each server ``count seconds cpu``,
the last in seconds of the server's CPU.  Turns are short, so that whatever else
the machine does hurts all servers alike.

``idle`` prints ``ready`` once all its connections are verified, and holds them
until its standard input ends.
"""

import concurrent.futures
import resource
import socket
import ssl
import sys
import time
from pathlib import Path

#: Enough to keep a server busy while most of these clients wait for it.
THREADS = 8

_MESSAGE = bytes(64)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Clients:
    """The admitted clients of one server."""

    def __init__(self, port, directory, version="1.3"):
        self.port = int(port)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = self.context.maximum_version = _VERSIONS[version]
        self.context.load_verify_locations(f"{directory}/ca.crt")
        self.context.load_cert_chain(f"{directory}/client.crt", f"{directory}/client.key")

    def secure(self):
        """Return a connection whose handshake has ended, as far as the client can tell."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(raw, server_hostname="localhost")

    def connect(self):
        """Return a connection that the server verified: it answered one byte."""
        secured = self.secure()
        exchange([secured], b"x")
        return secured


def exchange(connections, message):
    """Send the message on each, and see it come back."""
    for one in connections:
        one.sendall(message)
    for one in connections:
        missing = len(message)
        while missing:
            data = one.recv(missing)
            if not data:
                raise ConnectionError("the server closed the connection")
            missing -= len(data)


def close(secured):
    """Close in good order, both ways."""
    secured.unwrap().close()


def cpu_of(pid):
    """Return the seconds of CPU that the main thread of a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def take_turns(turns, targets, operate):
    """
    Print what each turn of all targets did.

    `targets` are pairs of a process id and what `operate` wants to have for that server; it
    returns how many operations it did.
    """
    for turn in range(-1, turns):
        line = []
        # Each goes first as often as the others.
        first = turn % len(targets)
        for pid, target in targets[first:] + targets[:first]:
            cpu, begin = cpu_of(pid), time.monotonic()
            count = operate(target)
            line.append((pid, f"{count} {time.monotonic() - begin} {cpu_of(pid) - cpu}"))
        # Turn -1 warms up.
        if turn >= 0:
            print(*(dict(line)[pid] for pid, _ in targets))


def handshakes(pool, clients, seconds):
    """Return how many connections came, were answered and went."""
    end = time.monotonic() + seconds

    def repeat(_):
        count = 0
        while time.monotonic() < end:
            close(clients.connect())
            count += 1
        return count

    return sum(pool.map(repeat, range(THREADS)))


def echo(connections, seconds):
    """Return how many messages of 64 bytes came back."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        exchange(connections, _MESSAGE)
        count += len(connections)
    return count


def idle(clients, connections):
    """Hold verified connections until standard input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections + 256), hard))
    opened = [clients.connect() for _ in range(connections)]
    print("ready", flush=True)
    sys.stdin.read()
    for one in opened:
        one.close()


def main():
    what, directory, *rest = sys.argv[1:]
    if what == "idle":
        connections, port = rest
        idle(Clients(port, directory), int(connections))
        return
    seconds, turns, parameter, *addresses = rest
    servers = [address.split(":") for address in addresses]
    if what == "handshakes":
        targets = [(pid, Clients(port, directory, parameter)) for port, pid in servers]
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            take_turns(int(turns), targets, lambda one: handshakes(pool, one, float(seconds)))
    else:
        targets = []
        for port, pid in servers:
            clients = Clients(port, directory)
            targets.append((pid, [clients.connect() for _ in range(int(parameter))]))
        take_turns(int(turns), targets, lambda opened: echo(opened, float(seconds)))
        for _, opened in targets:
            for one in opened:
                close(one)


if __name__ == "__main__":
    main()
