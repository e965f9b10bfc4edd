"""
A fleet that one can try, on this machine: three gates, HAProxy in front, Redis with Sentinel
behind. With mtlsgate installed, HAProxy and Redis:

    python contrib/fleet up

in one terminal, and in another what is to happen:

    python contrib/fleet load
    python contrib/fleet kill gate1
    python contrib/fleet unload
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from layout import DEVICES, GATES
from ports import Ports
from programs import FleetError

from mtlsgate.errors import GateError

if TYPE_CHECKING:
    from fleet import Fleet

#: What `Fleet` can do; each says in its first line how it is called.
_COMMANDS = (
    "status", "start", "kill", "pause", "resume", "drain", "upgrade", "reload",
    "load", "more", "unload", "knock", "hold", "held", "release", "allow", "deny",
)  # fmt: skip
#: What needs no running fleet.
_OWN = """\
commands:
  up: run a fleet until Ctrl-C
  files: write certificates and configurations only, for contrib/fleet/compose.yaml
  help: what a running fleet can be told"""
_SOCKET = "fleet.sock"


def _command(name: str) -> str:
    """:returns: how a command is called, and what it does."""
    return inspect.getdoc(getattr(_fleet(), name)) or ""


def _fleet() -> type[Fleet]:
    # Takes a while: not for those who only tell a fleet something.
    from fleet import Fleet

    return Fleet


async def _answer(fleet: Fleet, line: str) -> str:
    """:returns: "ok" or "failed", and after a line end what is to be said."""
    name, *words = line.split() or [""]
    try:
        if name not in _COMMANDS:
            raise FleetError(f"there is no command {name}; there are {', '.join(_COMMANDS)}")
        command = getattr(fleet, name)
        try:
            inspect.signature(command).bind(*words)
        except TypeError:
            raise FleetError(f"write {_command(name)}") from None
        return f"ok\n{await command(*words)}"
    except (FleetError, GateError, OSError, ValueError) as error:
        return f"failed\n{error}"


def _write_files(directory: Path) -> None:
    from setting_up import set_up

    set_up(directory, GATES, DEVICES)


async def _up(directory: Path, port: int) -> None:
    """Run a fleet until a signal, or the end of the pipe that is standard input."""
    if _connected(directory) is not None:
        raise FleetError(f"a fleet runs in {directory} already")
    ports = Ports()
    try:
        ports.reserve("haproxy", port)
    except OSError as error:
        raise FleetError(f"port {port}: {error.strerror}") from None
    _write_files(directory)
    fleet = _fleet().of(directory, ports)
    is_up, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        loop.add_reader(0, lambda: None if os.read(0, 512) else ended.set())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode()
        await is_up.wait()
        writer.write((await _answer(fleet, line)).encode())
        writer.close()

    (directory / _SOCKET).unlink(missing_ok=True)
    try:
        async with await asyncio.start_unix_server(serve, directory / _SOCKET):
            starting, ending = (asyncio.create_task(one) for one in (fleet.up(), ended.wait()))
            await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                starting.cancel()
                await asyncio.wait([starting])
                return
            await starting
            is_up.set()
            print(await fleet.status(), end="\n\n")
            print(f"Clients come in at localhost:{ports['haproxy']}:")
            print(_example(directory, ports["haproxy"]), flush=True)
            await ending
    finally:
        is_up.set()
        await fleet.down()
        (directory / _SOCKET).unlink(missing_ok=True)


def _example(directory: Path, port: int) -> str:
    one = directory / DEVICES[0]
    return (
        f"  curl --cacert {directory}/ca.crt --cert {one}.crt --key {one}.key"
        f" https://localhost:{port}/"
    )


def _connected(directory: Path) -> socket.socket | None:
    """:returns: a connection to the fleet that runs there, or None."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(str(directory / _SOCKET))
    except OSError:
        client.close()
        return None
    return client


def _tell(directory: Path, words: list[str]) -> int:
    """Have a running fleet do something.  :returns: the exit status."""
    client = _connected(directory)
    if client is None:
        print(f"no fleet runs in {directory}", file=sys.stderr)
        return 1
    with client:
        client.sendall(f"{' '.join(words)}\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    outcome, _, text = answer.partition("\n")
    print(text, file=sys.stdout if outcome == "ok" else sys.stderr)
    return 0 if outcome == "ok" else 1


def main() -> int:
    """:returns: the exit status."""
    parser = argparse.ArgumentParser(
        prog="fleet",
        description=__doc__,
        epilog=_OWN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--directory", type=Path, default=Path("fleet"), help="where all is")
    parser.add_argument("--port", type=int, default=0, help="HAProxy's; by default a free one")
    parser.add_argument("command", nargs="+", help="see below")
    given = parser.parse_args()
    if given.command == ["help"]:
        print("\n".join(map(_command, _COMMANDS)))
        return 0
    if given.command not in (["up"], ["files"]):
        return _tell(given.directory, given.command)
    directory = given.directory.resolve()
    try:
        if given.command == ["files"]:
            _write_files(directory)
        else:
            asyncio.run(_up(directory, given.port))
    except (FleetError, GateError, OSError) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
