"""
What a fleet asks its programs: gates and HAProxy on their unix sockets, Redis by TCP.
"""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

#: How many seconds an answer may take.
_PATIENCE = 5.0


async def exchange(where: Path | int, question: bytes, *, lines: int | None = None) -> bytes:
    """
    :param where: a unix socket, or a port on loopback.
    :param lines: of the answer; None for all until the end of the connection.
    :returns: the answer to a question.
    :raises OSError: if there is none in time.
    """
    async with asyncio.timeout(_PATIENCE):
        if isinstance(where, Path):
            reader, writer = await asyncio.open_unix_connection(where)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", where)
        try:
            writer.write(question)
            if lines is None:
                return await reader.read(-1)
            return b"".join([await reader.readline() for _ in range(lines)])
        finally:
            writer.close()


async def ask_gate(where: Path, method: str, path: str) -> dict[str, Any]:
    """
    :param where: its admin socket.
    :returns: the object that it answers.
    :raises OSError: if it does not answer.
    :raises ValueError: if it answers something else.
    """
    request = f"{method} {path} HTTP/1.1\r\nhost: gate\r\n\r\n".encode()
    answer: dict[str, Any] = json.loads((await exchange(where, request)).partition(b"\r\n\r\n")[2])
    return answer


async def tell_haproxy(where: Path, command: str) -> str:
    """
    :param where: its stats socket.
    :returns: what it says; nothing if all is well.
    :raises OSError: if it does not answer.
    """
    return (await exchange(where, f"{command}\n".encode())).decode().strip()


async def is_balanced(where: Path, server: str) -> bool:
    """
    :param where: HAProxy's stats socket.
    :returns: whether it sends new connections to that server.
    :raises OSError: if it does not answer.
    """
    lines = (await tell_haproxy(where, "show stat")).removeprefix("# ").splitlines()
    return {row["svname"]: row["status"] for row in csv.DictReader(lines)}.get(server) == "UP"


async def is_redis_ready(port: int) -> bool:
    """
    :returns: whether a Redis, or a Sentinel, answers.
    :raises OSError: if nobody listens.
    """
    return await exchange(port, b"PING\r\n", lines=1) == b"+PONG\r\n"


async def primary_of(port: int, service: str) -> int:
    """
    :param port: a Sentinel's.
    :returns: the port of the Redis that takes writes.
    :raises OSError: if nobody listens.
    :raises ValueError: if it does not know.
    """
    question = f"SENTINEL GET-MASTER-ADDR-BY-NAME {service}\r\n".encode()
    answer = await exchange(port, question, lines=5)
    # An array of two strings, each after a line with its length.
    return int(answer.split(b"\r\n")[4])
