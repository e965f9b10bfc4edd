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


async def exchange(where: Path, question: bytes) -> bytes:
    """
    :param where: a unix socket.
    :returns: all that is answered.
    :raises OSError: if there is no answer in time.
    """
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_unix_connection(where)
        try:
            writer.write(question)
            return await reader.read(-1)
        finally:
            writer.close()


async def ask_redis(port: int, command: str) -> list[bytes]:
    """
    Ask a Redis or a Sentinel.

    :param command: without spaces in its words.
    :returns: the lines of the answer, flat.
    :raises OSError: if there is no answer in time.
    """
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"{command}\r\n".encode())
            return await _reply(reader)
        except EOFError:
            raise ConnectionError("closed") from None
        finally:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> list[bytes]:
    kind, text = await reader.readexactly(1), (await reader.readline()).rstrip()
    match kind:
        case b"*":
            return [line for _ in range(int(text)) for line in await _reply(reader)]
        case b"$":
            return (await reader.readexactly(max(int(text), 0) + 2)).split(b"\r\n")[:-1]
        case _:
            return [text]


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
    return await ask_redis(port, "PING") == [b"PONG"]


async def primary_of(port: int, service: str) -> int:
    """
    :param port: a Sentinel's.
    :returns: the port of the Redis that takes writes.
    :raises OSError: if nobody listens.
    :raises ValueError: if it does not know.
    """
    _host, number = await ask_redis(port, f"SENTINEL GET-MASTER-ADDR-BY-NAME {service}")
    return int(number)


async def is_replica(port: int) -> bool:
    """
    :returns: whether a Redis has all that its primary has, and follows it.
    :raises OSError: if nobody listens.
    """
    return b"master_link_status:up" in await ask_redis(port, "INFO replication")


async def is_watched(port: int, service: str, replicas: int, sentinels: int) -> bool:
    """
    :param port: a Sentinel's.
    :returns: whether it knows of so many of each, so that one may take another's place.
    :raises OSError: if nobody listens.
    """
    known = f"slaves={replicas},sentinels={sentinels}".encode()
    told = await ask_redis(port, "INFO sentinel")
    return any(f"name={service},".encode() in line and line.endswith(known) for line in told)
