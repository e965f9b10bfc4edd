"""What a Redis answers instead of an answer: told in one line, as passing or lasting."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import pytest
from redis import exceptions
from redis.asyncio.connection import DefaultParser

from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.store import StoreError, StoreUnavailable

PASSING = [
    ("LOADING Redis is loading the dataset in memory", "is loading its data"),
    ("READONLY You can't write against a read only replica.", "takes no writes"),
    ("MASTERDOWN Link with MASTER is down", "has lost its master"),
    ("CLUSTERDOWN The cluster is down", "cluster that is down"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "moving the slot"),
    ("MOVED 3999 127.0.0.1:6381", "the cluster is changing"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "out of memory"),
    ("BUSY Redis is busy running a script.", "busy with a script"),
    ("MISCONF Redis is configured to save RDB snapshots", "cannot save its data"),
    ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
    ("ERR max number of clients reached", "too many clients"),
]
LASTING = [
    ("WRONGPASS invalid username-password pair or user is disabled.", "refuses the user"),
    ("NOAUTH Authentication required.", "needs a password"),
    ("NOPERM User gate has no permissions to run the 'role' command", "'role'"),
    ("ERR The user executing the script can't run this command", "does not permit it"),
    ("ERR unknown command 'HELLO', with args beginning with: '3'", "Redis 6 or later"),
    ("ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.", "Redis 6 or later"),
    ("ERR DB index is out of range", "no database of that number"),
    ("WRONGTYPE Operation against a key", "says: WRONGTYPE"),
    ("ERR odd\r\n\x1b[31m" + "x" * 1000, "says: "),
]


@pytest.mark.parametrize(("reply", "told"), PASSING)
def test_what_passes_is_an_outage(reply: str, told: str) -> None:
    error = explained(DefaultParser.parse_error(reply), "redis.example:6379")
    assert isinstance(error, StoreUnavailable)
    assert str(error).startswith("redis.example:6379 ")
    assert told in str(error)


@pytest.mark.parametrize(("reply", "told"), LASTING)
def test_what_lasts_is_an_error_in_one_printable_line(reply: str, told: str) -> None:
    error = explained(DefaultParser.parse_error(reply), "redis.example:6379")
    assert not isinstance(error, StoreUnavailable)
    assert str(error).startswith("redis.example:6379 ")
    assert told in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("cause", "kind", "told"),
    [
        (ConnectionRefusedError(111, "Connection refused"), StoreUnavailable, "refuses"),
        (ConnectionResetError(104, "reset"), StoreUnavailable, "closed the connection"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), StoreUnavailable, "No route to host"),
        (FileNotFoundError(2, "No such file or directory"), StoreUnavailable, "No such file"),
        (socket.gaierror(-2, "Name not known"), StoreUnavailable, "cannot be resolved"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"), StoreError, "in TLS"),
        (ssl.SSLEOFError(8, "EOF occurred"), StoreUnavailable, "closed the connection"),
        (asyncio.IncompleteReadError(b"", 1), StoreUnavailable, "closed the connection"),
        (TimeoutError(), StoreUnavailable, "did not answer in time"),
        (ValueError("odd"), StoreError, "cannot be understood"),
    ],
)
def test_why_a_connection_is_lost_is_told(
    cause: Exception, kind: type[StoreError], told: str
) -> None:
    wrapped = exceptions.ConnectionError("hush")
    wrapped.__context__ = cause
    for error in (cause, wrapped) if isinstance(cause, OSError) else (cause,):
        found = explained(error, "r:1")
        assert type(found) is kind
        assert told in str(found)
        assert "hush" not in str(found)


def test_what_is_explained_already_stays() -> None:
    error = StoreUnavailable("r:1 is a replica")
    assert explained(error, "elsewhere") is error


def test_the_reply_to_a_login_is_found_inside_the_error_of_a_connection() -> None:
    wrapped = exceptions.ConnectionError("odd")
    wrapped.__cause__ = DefaultParser.parse_error("WRONGPASS invalid")
    assert str(explained(wrapped, "r:1")) == "r:1 refuses the user or password"


def test_what_does_not_speak_the_protocol_is_told() -> None:
    assert "does not speak" in str(explained(exceptions.InvalidResponse("HTTP/1.1"), "r:1"))
