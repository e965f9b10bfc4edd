"""
The clients of `peers.py`, in a process of their own.

    python peers_load.py OPERATION DIRECTORY SECONDS TURNS PARAMETER PORT:PID,PID ...
    python peers_load.py idle      DIRECTORY CONNECTIONS PORT

The servers take turns, each turn so many seconds long.  A line of JSON is printed
for each turn of all servers: for each server ``[count, seconds, cpu]``, the
last in seconds of the CPU of all its processes.

``idle`` is that of `load.py`.
"""

import concurrent.futures
import contextlib
import functools
import json
import sys
import time

import load

#: What a request for bulk is about, in bytes.
BULK = 2**24

_PIECE = bytes(2**18)
_REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n%s\r\n"
#: What every server is asked for; to applications it is all the same.
_PATH = b"hello.txt"
#: How long a server may take to clear up behind its turn.
_SETTLE = 0.01


def cpu_of(pids):
    """Return the seconds of CPU that all threads of the processes have used, ended ones, too."""
    # The CPU clock of another process: clock_getcpuclockid(3).
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def take_turns(turns, targets, operate):
    """
    Print what each turn of all targets did.

    `targets` are pairs of process ids and what `operate` wants to have for that server; it
    returns how much it did.
    """
    for turn in range(-1, turns):
        done = [None] * len(targets)
        # Each goes first as often as the others.
        for place in range(len(targets)):
            place = (place + turn) % len(targets)
            pids, target = targets[place]
            cpu, begin = cpu_of(pids), time.monotonic()
            count = operate(target)
            took = time.monotonic() - begin
            time.sleep(_SETTLE)
            done[place] = (count, took, cpu_of(pids) - cpu)
        # Turn -1 warms up.
        if turn >= 0:
            print(json.dumps(done), flush=True)


def close(secured):
    """Close, in good order if the server does so, too."""
    with contextlib.suppress(OSError):
        secured.unwrap()
    secured.close()


def at_once(operation):
    """Return what does the operation again and again, on several connections at once."""

    def operate(pool, seconds, clients):
        end = time.monotonic() + seconds

        def repeat(_):
            count = 0
            while time.monotonic() < end:
                operation(clients)
                count += 1
            return count

        return sum(pool.map(repeat, range(load.THREADS)))

    return operate


@at_once
def handshakes(clients):
    close(clients.connect())


@at_once
def fresh(clients):
    """A request on a connection of its own."""
    secured = clients.secure()
    secured.sendall(_REQUEST % (_PATH, b"Connection: close\r\n"))
    answer = b"".join(iter(functools.partial(secured.recv, 2**16), b""))
    check(answer)
    close(secured)


def check(answer):
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"not what was expected: {answer[:200]!r}")


def kept(seconds, opened):
    """Return how many requests were answered, one at a time on each connection."""
    request = _REQUEST % (_PATH, b"")
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for one in opened:
            one.sendall(request)
        for one in opened:
            read_answer(one)
        count += len(opened)
    return count


def read_answer(secured):
    text = b""
    while (head := text.partition(b"\r\n\r\n"))[1] == b"":
        text += receive(secured)
    check(text)
    lines = (line.partition(b":") for line in head[0].lower().split(b"\r\n"))
    left = next(int(value) for name, _, value in lines if name == b"content-length")
    left -= len(head[2])
    while left > 0:
        left -= len(receive(secured))


def receive(secured, size=2**16):
    data = secured.recv(size)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def up(seconds, opened):
    """Return how many bytes went to the backend."""
    end, count = time.monotonic() + seconds, 0
    (one,) = opened
    while time.monotonic() < end:
        one.sendall(BULK.to_bytes(8, "big"))
        for _ in range(BULK // len(_PIECE)):
            one.sendall(_PIECE)
        receive(one)
        count += BULK
    return count


def down(seconds, opened):
    """Return how many bytes came from the backend."""
    end, count = time.monotonic() + seconds, 0
    (one,) = opened
    room = bytearray(len(_PIECE))
    while time.monotonic() < end:
        one.sendall(BULK.to_bytes(8, "big"))
        left = BULK
        while left:
            size = one.recv_into(room, min(left, len(room)))
            if not size:
                raise ConnectionError("the server closed the connection")
            left -= size
        count += BULK
    return count


#: For operations on connections that stay open: what begins each.
_STAYING = {
    "echo": (lambda seconds, opened: load.echo(opened, seconds), b"x"),
    "up": (up, b"u"),
    "down": (down, b"d"),
    "kept": (kept, b""),
}


def staying(clients, first, number):
    """Return so many connections that stay open."""
    opened = []
    for _ in range(number):
        if first == b"x":
            opened.append(clients.connect())
        else:
            secured = clients.secure()
            secured.sendall(first)
            opened.append(secured)
    return opened


def main():
    what, directory, *rest = sys.argv[1:]
    if what == "idle":
        connections, port = rest
        load.idle(load.Clients(port, directory), int(connections))
        return
    seconds, turns, parameter, *addresses = rest
    seconds, turns = float(seconds), int(turns)
    servers = [address.split(":") for address in addresses]
    pids = [[int(pid) for pid in listed.split(",")] for _, listed in servers]
    if what in _STAYING:
        operation, first = _STAYING[what]
        every = [
            staying(load.Clients(port, directory), first, int(parameter)) for port, _ in servers
        ]
        targets = list(zip(pids, every, strict=True))
        take_turns(turns, targets, lambda opened: operation(seconds, opened))
        for opened in every:
            for one in opened:
                close(one)
    else:
        operation = {"handshakes": handshakes, "fresh": fresh}[what]
        targets = [
            (its, load.Clients(port, directory, parameter))
            for its, (port, _) in zip(pids, servers, strict=True)
        ]
        with concurrent.futures.ThreadPoolExecutor(load.THREADS) as pool:
            take_turns(turns, targets, lambda clients: operation(pool, seconds, clients))


if __name__ == "__main__":
    main()
