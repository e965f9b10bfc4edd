"""
Talks to the admin endpoint over HTTP.
"""

from __future__ import annotations

import json
import socket
import ssl
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from typing import Any
from urllib.parse import urlencode

from attrs import frozen

from mtlsgate.ctl.gate_address import CtlError, GateAddress, NotFound
from mtlsgate.text import printable

#: Seconds to connect and to get an answer; the long one is for a reload, the short one
#: for a probe, whose caller has a time limit of its own.
TIMEOUT, LONG_TIMEOUT, PROBE_TIMEOUT = 10.0, 600.0, 3.0
#: In bytes; a gate's answers are never as large.
_LARGEST_ANSWER = 64 * 1024 * 1024
#: Statuses of answers that have content besides an error.
_TELLING = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.UNPROCESSABLE_ENTITY})
#: The paths for probes, and their answers when all is well.
_WELL = {"/healthz": b"alive\n", "/readyz": b"ready\n"}


class Gone(CtlError):
    """Nobody answers there."""


class Rejected(CtlError):
    """The connection was closed before the answer, as the gate does with clients
    that it rejects."""


class _SocketConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@frozen
class Remote:
    """
    A running gate.

    :ivar address: the address of its admin endpoint.
    """

    address: GateAddress

    def get(self, path: str, **query: object) -> Any:
        """
        :returns: the answer, decoded.
        :raises CtlError: if there is no answer, or a refusal.
        """
        return self._ask("GET", path, query, TIMEOUT)

    def connections(self, server: str | None = None) -> list[Any]:
        """
        :param server: only this server's connections; None means all.
        :returns: the connections; it sends as many requests as needed.
        """
        found: list[Any] = []
        after: int | None = 0
        while after is not None:
            page = self.get("/connections", after=after, server=server)
            found += page["connections"]
            after = page["next"]
        return found

    def post(self, path: str, timeout: float = TIMEOUT, **query: object) -> Any:
        """
        :param timeout: in seconds.
        :returns: the answer, decoded.
        :raises CtlError: if there is no answer, or a refusal.
        """
        return self._ask("POST", path, query, timeout)

    def objection(self, path: str) -> str | None:
        """
        :param path: `/healthz` or `/readyz`.
        :returns: why the gate is not well or not ready, or None if it is.
        :raises CtlError: if there is no answer, or it is not a gate's.
        """
        status, data = self._exchange("GET", path, {}, PROBE_TIMEOUT)
        if status == HTTPStatus.OK and data == _WELL[path]:
            return None
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return printable(data.decode("utf-8", "replace").strip())
        self._read(status, data)
        raise CtlError(f"{self.address}: this is not the admin endpoint of a gate")

    def _ask(self, method: str, path: str, query: dict[str, object], timeout: float) -> Any:
        return self._read(*self._exchange(method, path, query, timeout))

    def _exchange(
        self, method: str, path: str, query: dict[str, object], timeout: float
    ) -> tuple[int, bytes]:
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        headers = {"Accept": "application/json"}
        if self.address.token is not None:
            headers["Authorization"] = f"Bearer {self.address.token}"
        connection = self._connection(timeout)
        try:
            connection.request(method, target, headers=headers)
            reply = connection.getresponse()
            data = reply.read(_LARGEST_ANSWER)
            if reply.length:
                raise RemoteDisconnected("cut short")
        except (OSError, HTTPException) as error:
            raise self._in_words(error, timeout) from error
        finally:
            connection.close()
        return reply.status, data

    def _connection(self, timeout: float) -> HTTPConnection:
        address = self.address
        if address.path is not None:
            return _SocketConnection(str(address.path), timeout)
        if not address.is_tls:
            return HTTPConnection(address.host, address.port, timeout=timeout)
        try:
            context = ssl.create_default_context(cafile=address.trust)
            if address.certificate is not None:
                context.load_cert_chain(address.certificate, address.key)
        except OSError as error:
            files = ", ".join(
                str(one)
                for one in (address.trust, address.certificate, address.key)
                if one is not None
            )
            raise CtlError(f"{files}: {_reason(error)}") from None
        return HTTPSConnection(address.host, address.port, timeout=timeout, context=context)

    def _in_words(self, error: Exception, timeout: float) -> CtlError:
        match error:
            case FileNotFoundError():
                return Gone(f"{self.address}: no such socket: is the gate running?")
            case ConnectionRefusedError():
                return Gone(f"{self.address}: nobody listens there: is the gate running?")
            case PermissionError():
                return CtlError(
                    f"{self.address}: permission denied: only the gate's user and root may connect"
                )
            case TimeoutError():
                return CtlError(f"{self.address}: no answer within {timeout:g} s")
            case ssl.SSLCertVerificationError():
                why = printable(error.verify_message)
                return CtlError(f"{self.address}: this is not who it should be: {why}")
            case ssl.SSLError() | RemoteDisconnected() | ConnectionError() if self.address.is_tls:
                return Rejected(
                    f"{self.address}: rejected ({_reason(error)}): mtlsgate probe tells more"
                )
            case RemoteDisconnected() | ConnectionError():
                return Gone(f"{self.address}: the connection was closed before there was an answer")
            case OSError():
                return CtlError(f"{self.address}: {_reason(error)}")
            case _:
                return CtlError(f"{self.address}: this is not the admin endpoint of a gate")

    def _read(self, status: int, data: bytes) -> Any:
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if status in _TELLING and isinstance(value, dict):
            return value
        said = value.get("error") if isinstance(value, dict) else None
        if status == HTTPStatus.UNAUTHORIZED:
            said = f"{said or 'a token is needed'} (--token-file names one)"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            said = "the gate is starting"
        if not isinstance(said, str):
            raise CtlError(f"{self.address}: this is not the admin endpoint of a gate")
        kind = NotFound if status == HTTPStatus.NOT_FOUND else CtlError
        raise kind(f"{self.address}: {printable(said)}")


def _reason(error: Exception) -> str:
    said = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return printable(str(said))
