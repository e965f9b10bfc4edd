"""
Drills with targets: one goes down and comes back, a name server is silent.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kits.proxy import Keys, TlsSocket, proxy

pytestmark = pytest.mark.slow

#: A module that Python loads at its start: no name of ``.example`` is ever found.
_SILENT = """
import socket, threading

def getaddrinfo(host, *rest, _original=socket.getaddrinfo, **named):
    if host in ("db.example", b"db.example"):
        print("looking up", host, flush=True)
        threading.Event().wait()
    return _original(host, *rest, **named)

socket.getaddrinfo = getaddrinfo
"""


class Speaker:
    """
    A TCP server that says its name and closes, and can go down and come back.

    :ivar port: where it listens when it is up.
    """

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._start(0)
        self.port: int = self._listener.getsockname()[1]

    def _start(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with accepted, suppress(OSError):
                    accepted.sendall(self._name)

    def start(self) -> None:
        """Come back, at the same port."""
        self._start(self.port)

    def stop(self) -> None:
        """Go down."""
        # Closing alone does not wake who waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def heard(port: int, keys: Keys, count: int = 4) -> set[bytes]:
    """:returns: what so many clients hear, one after the other."""
    answers = set()
    for _ in range(count):
        with TlsSocket(port, keys) as client:
            answers.add(client.receive_all())
    return answers


@pytest.mark.parametrize(
    "check", ['health_check {\ninterval = "50ms"\n}', 'retry_after = "50ms"'], ids=["check", "none"]
)
def test_a_target_goes_down_and_comes_back(check: str, tmp_path: Path) -> None:
    """No client is lost: all go to the other one, until the first is back.  The log has a
    line for each."""
    keys = Keys.write(tmp_path)
    one, two = Speaker(b"one"), Speaker(b"two")
    servers = {"sql": f'target = ["127.0.0.1:{one.port}", "127.0.0.1:{two.port}"]\n{check}'}
    with proxy(tmp_path, servers) as running:
        port = running.port("sql")
        assert heard(port, keys) == {b"one", b"two"}
        one.stop()
        assert heard(port, keys) == {b"two"}
        running.read_until(f"sql: target 127.0.0.1:{one.port} is down: connection refused")
        one.start()
        while heard(port, keys, 2) == {b"two"}:
            pass
        running.read_until(f"sql: target 127.0.0.1:{one.port} is up again after ")
        assert heard(port, keys) == {b"one", b"two"}
        assert "Traceback" not in running.stop()
    two.stop()


def test_a_silent_name_server_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the name gets an end in good order when the time is up.  All wait for one
    lookup; others are served, the configuration can be reloaded, and the gate ends."""
    keys = Keys.write(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(_SILENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    by_name = 'target = "db.example:5432"\nunsafe_target = true\nconnect_timeout = "300ms"'
    other = Speaker(b"other")
    with proxy(
        tmp_path, {"name": by_name, "other": f'target = "127.0.0.1:{other.port}"'}
    ) as running:
        waiting = [TlsSocket(running.port("name"), keys) for _ in range(20)]
        assert heard(running.port("other"), keys) == {b"other"}
        running.process.send_signal(signal.SIGHUP)
        assert [client.receive_all() for client in waiting] == [b""] * 20
        running.read_until_all(
            "no target could be reached: db.example:5432: no answer within 0.3 s", "epoch 2"
        )
        assert heard(running.port("other"), keys) == {b"other"}
        for client in waiting:
            client.close()
        running.lines.append(running.stop())
        assert running.process.returncode == 0
        assert sum("looking up" in line for line in "".join(running.lines).splitlines()) <= 2
    other.stop()
