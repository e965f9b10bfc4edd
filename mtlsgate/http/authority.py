"""
What a request asks for: its target and ``Host``, and whether they fit the server name
of the client's TLS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from attrs import frozen

from mtlsgate.certificates.server_names import same_name
from mtlsgate.http.refusal import Refusal

#: Stricter than RFC 3986, 3.2.2: no name that a certificate can have needs more.  The port
#: may be empty there.
_AUTHORITY = re.compile(
    rb"(?P<host>[0-9A-Za-z_](?:[0-9A-Za-z._-]*)|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
)
#: Visible ASCII without "#": a fragment is the client's own (RFC 9112, 3.2).
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")
_ABSOLUTE = re.compile(
    rb"(?P<scheme>https?)://(?P<authority>[^/?]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_PORTS = {b"http": b"80", b"https": b"443"}


@frozen
class Asked:
    """
    What a request asks for.

    :ivar target: the target in origin form, or ``*``.
    :ivar authority: the host, with the port if given; empty for an HTTP/1.0 request
        without a host.
    """

    target: bytes
    authority: bytes

    @property
    def host(self) -> str | None:
        """The host without the port, an IPv6 address without its brackets."""
        found = _AUTHORITY.fullmatch(self.authority)
        return None if found is None else found["host"].strip(b"[]").decode("ascii")


def ask(method: bytes, target: bytes, hosts: Sequence[bytes], version: bytes) -> Asked:
    """
    :param method: the request's.
    :param target: the target in the request line.
    :param hosts: the values of its ``Host`` fields.
    :param version: the request's.
    :raises Refusal: if it is not clear what the request asks for.
    """
    if _TARGET.fullmatch(target) is None:
        raise Refusal(400, "the request target holds a character that it cannot")
    if len(hosts) > 1:
        raise Refusal(400, "several Host fields")
    if not hosts and version != b"HTTP/1.0":
        raise Refusal(400, "no Host field")
    authority = _checked(hosts[0]) if hosts else b""
    if method == b"CONNECT":
        return _asked_by_connect(target, authority)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        named = _checked(absolute["authority"])
        port = _PORTS[absolute["scheme"].lower()]
        if hosts and _with_port(named, port) != _with_port(authority, port):
            raise Refusal(400, "the request target and Host name different hosts")
        rest = absolute["rest"]
        if method == b"OPTIONS" and not rest:
            # RFC 9112, 3.2.4.
            return Asked(b"*", named)
        authority, target = named, rest if rest.startswith(b"/") else b"/" + rest
    elif target == b"*":
        if method != b"OPTIONS":
            raise Refusal(400, 'the request target "*" is for OPTIONS alone')
    elif not target.startswith(b"/"):
        raise Refusal(400, "the request target is neither a path nor a URI")
    return Asked(target, authority)


def _asked_by_connect(target: bytes, authority: bytes) -> Asked:
    """RFC 9112, 3.2.3: the target is a host and a port, and so is Host."""
    if _checked(target) != target or target.lower() != authority.lower():
        raise Refusal(400, "the target of CONNECT is not the host and port of Host")
    return Asked(target, authority)


def _with_port(authority: bytes, port: bytes) -> bytes:
    """:returns: the authority for comparison: in lower case, with a port."""
    found = _AUTHORITY.fullmatch(authority)
    assert found is not None
    return found["host"].lower() + b":" + (found["port"] or port)


def same_authority(one: bytes, other: bytes, scheme: bytes) -> bool:
    """
    :param scheme: ``http`` or ``https``, which says what port is meant where none is named.
    :returns: whether both name one host and port.
    """
    if one == other:
        return True
    port = _PORTS.get(scheme.lower(), b"")
    try:
        return _with_port(_checked(one), port) == _with_port(_checked(other), port)
    except Refusal:
        return False


def _checked(authority: bytes) -> bytes:
    """:returns: the authority, without the colon of an empty port."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found["port"] or 0) >= 2**16:
        raise Refusal(400, "Host is not a host name with or without a port")
    return authority.removesuffix(b":") if found["port"] == b"" else authority


def check_server(
    host: str | None, server_name: str | None, serves: Callable[[str], bool] | None
) -> None:
    """
    Compare the request's host with the server name of the TLS connection.  A client
    that one server admitted is not automatically admitted by another.

    :param host: the request's host; None for an HTTP/1.0 request without one.
    :param server_name: the name in the ClientHello, or None.
    :param serves: tells whether the server declares a name; None if it declares no
        names.
    :raises Refusal: with 421, if the host is not this server's.
    """
    if host is None or same_name(host, server_name):
        return
    if serves is not None and serves(host):
        return
    if server_name is None and (serves is None or _is_address(host)):
        # Without a server name there is nothing to compare; and an address cannot be
        # another server's name.
        return
    raise Refusal(421, "Host is not the server that the TLS connection is for")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_authority(text: str) -> bool:
    """:returns: whether it is a host name or an IP address, with or without a port."""
    try:
        octets = text.encode("ascii")
        return _checked(octets) == octets
    except (Refusal, UnicodeEncodeError):
        return False
