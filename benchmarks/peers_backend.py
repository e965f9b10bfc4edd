"""
What all servers of `peers.py` stand in front of: a plaintext service.

    python peers_backend.py

Prints the port that it listens on, and serves until its standard input ends.
The first byte of a connection says what it is for:

- ``x``: an echo, of that byte, too;
- ``u``: for each eight bytes of length, so many bytes are taken, and one sent;
- ``d``: for each eight bytes of length, so many bytes are sent;
- ``G``: HTTP, of requests without a body.
"""

import contextlib
import socket
import sys
import threading

from peers_apps import BODY

PIECE = 2**18

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY)
_END_OF_HEAD = b"\r\n\r\n"


def echo(connection):
    data = b"x"
    while data:
        connection.sendall(data)
        data = connection.recv(PIECE)


def length(connection):
    """Return the next length, or 0 at the end."""
    return int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")


def take(connection):
    room = bytearray(PIECE)
    while left := length(connection):
        while left:
            size = connection.recv_into(room, min(left, PIECE))
            if not size:
                return
            left -= size
        connection.sendall(b".")


def give(connection):
    piece = bytes(PIECE)
    while left := length(connection):
        while left:
            size = min(left, PIECE)
            connection.sendall(memoryview(piece)[:size])
            left -= size


def http(connection):
    text = b"G"
    while data := connection.recv(PIECE):
        text += data
        requests = text.count(_END_OF_HEAD)
        if requests:
            connection.sendall((_ANSWER + BODY) * requests)
            text = text.rpartition(_END_OF_HEAD)[2]


_SERVICES = {b"x": echo, b"u": take, b"d": give, b"G": http}


def serve(connection):
    # Servers reset connections; that is the end of them.
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = connection.recv(1)
        if first:
            _SERVICES[first](connection)


def accept(listening):
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main():
    threading.stack_size(2**18)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    main()
