"""
What goes wrong with a Redis, in one line for people, and whether asking later may help.

https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors: the first word
of an error reply is its kind.  redis-py has a class for some kinds, without the word.
"""

from __future__ import annotations

import builtins
import ssl
from collections.abc import Iterator
from socket import gaierror

from redis import exceptions

from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.text import cut, printable, safe_line

#: How much of a server's own words is repeated, in characters.
_MOST_WORDS = 200

#: Errors that pass by themselves, or when somebody mends the server.
_PASSING: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.TimeoutError, "did not answer in time"),
    (builtins.TimeoutError, "did not answer in time"),
    (exceptions.BusyLoadingError, "is loading its data"),
    (exceptions.ReadOnlyError, "is a replica, which takes no writes"),
    (exceptions.MasterDownError, "is a replica that has lost its master"),
    (exceptions.ClusterDownError, "belongs to a cluster that is down"),
    (exceptions.TryAgainError, "is moving the slot to another node"),
    (exceptions.MovedError, "does not serve the slot: the cluster is changing"),
    (exceptions.OutOfMemoryError, "is out of memory: see maxmemory"),
)

#: The same for kinds without a class.
_PASSING_WORDS = {
    "BUSY": "is busy with a script",
    "MISCONF": "takes no writes: it cannot save its data to disk",
    "NOREPLICAS": "takes no writes: too few replicas are connected",
    "UNKILLABLE": "is busy with a script",
}

#: In the reply to a script that may not do what it does; in some versions not NOPERM.
_SCRIPT_DENIED = "executing the script can't run"

_WRONG_LOGIN = "refuses the user or password"


def explained(error: BaseException, where: object) -> StoreError:
    """
    :param error: of redis-py, asyncio or a socket, or a `StoreError` already.
    :param where: the server, for people.
    :returns: the error to raise: one line, without passwords.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error.__cause__, exceptions.RedisError):
        # On a Unix socket redis-py wraps what the login is answered.
        return explained(error.__cause__, where)
    for kind, text in _PASSING:
        if isinstance(error, kind):
            return StoreUnavailable(f"{where} {text}")
    if isinstance(error, exceptions.AuthenticationError):
        return StoreError(f"{where} {_login_problem(error)}")
    if isinstance(error, exceptions.NoPermissionError) or _SCRIPT_DENIED in str(error):
        return StoreError(f"{where} does not permit it: {_words(error)}")
    if isinstance(error, exceptions.InvalidResponse):
        return StoreError(f"{where} does not speak Redis's protocol")
    if isinstance(error, exceptions.ResponseError):
        return _replied(error, where)
    return _lost(error, where)


def _login_problem(error: exceptions.AuthenticationError) -> str:
    text = str(error)
    if error.status_code == "NOAUTH":
        return "needs a password"
    if "without any password" in text:
        return "has no password, but one is configured"
    return _WRONG_LOGIN


def _replied(error: exceptions.ResponseError, where: object) -> StoreError:
    text = str(error)
    if (passing := _PASSING_WORDS.get(text.partition(" ")[0])) is not None:
        return StoreUnavailable(f"{where} {passing}")
    if "unknown" in text and "command" in text:
        return StoreError(
            f"{where} lacks a command: Redis 6 or later with all its commands is needed"
            f" ({_words(error)})"
        )
    if "DB index" in text:
        return StoreError(f"{where} has no database of that number")
    return StoreError(f"{where} says: {_words(error)}")


def _lost(error: BaseException, where: object) -> StoreError:
    """For connections that could not be made, or broke."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return StoreError(
                    f"{where} has a certificate that is not trusted: {cause.verify_message}"
                )
            case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError():
                return StoreUnavailable(f"{where} closed the connection")
            case builtins.TimeoutError():
                return StoreUnavailable(f"{where} did not answer in time")
            case ssl.SSLError():
                return StoreError(f"{where} cannot be spoken to in TLS: {_tls_reason(cause)}")
            case gaierror():
                return StoreUnavailable(f"{where} has a name that cannot be resolved")
            case ConnectionRefusedError():
                return StoreUnavailable(f"{where} refuses connections")
            case OSError() if cause.strerror:
                return StoreUnavailable(f"{where} cannot be reached: {cause.strerror}")
    if "max number of clients" in str(error):
        return StoreUnavailable(f"{where} has too many clients: see maxclients")
    if isinstance(error, OSError | exceptions.RedisError | EOFError):
        return StoreUnavailable(f"{where} closed the connection")
    return StoreError(f"{where} answers what cannot be understood: {safe_line(error)}")


def _tls_reason(error: ssl.SSLError) -> str:
    # Errors of OpenSSL have one, those of Python have none.
    reason: str | None = getattr(error, "reason", None)
    return (reason or "no reason is given").lower().replace("_", " ")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """:returns: the error and what it was raised for, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _words(error: BaseException) -> str:
    return cut(printable(str(error)), _MOST_WORDS)
