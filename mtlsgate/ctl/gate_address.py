"""
The address of the gate's admin endpoint, from the options or the configuration.

Only the ``admin`` block of a configuration is read.  The rest may be wrong, and its
keys and certificates need not be readable.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

from mtlsgate.errors import GateError
from mtlsgate.text import quoted

#: Names of this machine in a URL.
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


#: The file may be wrong while the gate still runs an earlier version of it.
_UNKNOWN_PLACE = (
    "so its admin block cannot be read; if a gate runs, name where it answers by --socket or --url"
)


class CtlError(GateError):
    """The gate cannot be asked; the text says why."""


class NotFound(CtlError):
    """The gate has no such thing."""


@frozen(kw_only=True)
class GateAddress:
    """
    The address of the admin endpoint, and the credentials for it.

    :ivar path: the path of a unix socket, or None.
    :ivar host: the host, if there is no socket.
    :ivar port: the port, if there is no socket.
    :ivar token: the token to present, or None.
    :ivar is_tls: whether to use TLS.
    :ivar certificate: a file with the client's certificate, or None.
    :ivar key: a file with its key; None if it is in the same file.
    :ivar trust: a file with the CAs for the server; None means the system's.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0
    token: str | None = field(default=None, repr=False)
    is_tls: bool = False
    certificate: Path | None = None
    key: Path | None = None
    trust: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


@frozen(kw_only=True)
class CtlOptions:
    """The options that name the gate; None or empty if not given."""

    config: tuple[Path, ...] = ()
    socket: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


def find(given: CtlOptions) -> GateAddress:
    """
    :returns: the gate's address.
    :raises CtlError: if neither the options nor the configuration give it.
    """
    if sum(map(bool, (given.config, given.socket, given.url))) > 1:
        raise CtlError("--config, --socket and --url name the gate: one of them is enough")
    token = None if given.token_file is None else _token(given.token_file)
    is_tls = given.url is not None and given.url.lower().startswith("https:")
    if not is_tls and (given.cert or given.key or given.ca):
        raise CtlError("--cert, --key and --ca are for a --url that begins with https://")
    if given.socket is not None:
        return GateAddress(path=given.socket, token=token)
    if given.url is not None:
        return _of_url(given.url, given, token)
    return _of_config(given.config or (Path("gate.hcl"),), token)


def _token(path: Path) -> str:
    try:
        text = path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise CtlError(f"{path}: {error.strerror}") from None
    except ValueError:
        text = ""
    if not text.isprintable() or not text:
        raise CtlError(f"{path}: no token is in it")
    return text


def _of_url(url: str, given: CtlOptions, token: str | None) -> GateAddress:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise CtlError(f"{quoted(url)}: {error}") from None
    is_fine = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    if not is_fine or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise CtlError(
            f"{quoted(url)} is not of the form http://127.0.0.1:9090 or https://host:port"
        )
    assert parts.hostname is not None
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise CtlError(f"{quoted(url)}: http is for this machine; to others, https with --cert")
    return GateAddress(
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        token=token,
        is_tls=parts.scheme == "https",
        certificate=given.cert,
        key=given.key,
        trust=given.ca,
    )


def _of_config(paths: tuple[Path, ...], token: str | None) -> GateAddress:
    # Imported here, because it takes a while and --socket does not need it.
    from mtlsgate.errors import ConfigError, CredentialError
    from mtlsgate.load.admin_endpoint import endpoint_of

    try:
        endpoint = endpoint_of(paths)
    except ConfigError as error:
        raise CtlError(f"{error}\n{_UNKNOWN_PLACE}") from None
    except CredentialError as error:
        raise CtlError(f"{error}; name the gate by --config, --socket or --url") from None
    path = ", ".join(map(str, paths))
    if endpoint is None:
        raise CtlError(
            f'{path}: there is no admin block: add admin {{ listen = "unix:/run/mtlsgate.sock" }}, '
            "or name the gate by --url"
        )
    known = token or (endpoint.token.decode() if endpoint.token else None)
    if endpoint.path is not None:
        return GateAddress(path=endpoint.path, token=known)
    address = endpoint.addresses[0]
    if address.port == 0:
        raise CtlError(f"{path}: admin: the port is the system's choice: name it by --url")
    return GateAddress(host=address.host, port=address.port, token=known)
