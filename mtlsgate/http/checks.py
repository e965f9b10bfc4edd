"""
Checks whether a server answers a request at all.
"""

from __future__ import annotations

from collections.abc import Callable

from mtlsgate.http.authority import Asked, ask, check_server
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal


def check(
    head: RequestHead,
    server_name: str | None,
    serves: Callable[[str], bool] | None,
    limits: HttpLimits,
) -> Asked:
    """
    :param server_name: the name that the client's TLS asked for, or None.
    :param serves: tells whether the server declares a name; None if it declares no names.
    :returns: what the request asks for.
    :raises Refusal: if that is not clear, not this server's, or too much.
    """
    asked = ask(head.method, head.target, head.values(b"host"), head.version)
    check_server(asked.host, server_name, serves)
    if head.method == b"CONNECT":
        raise Refusal(501, "CONNECT asks for a tunnel")
    check_size(head.length or 0, limits)
    if any(one.lower() != b"100-continue" for one in head.values(b"expect")):
        raise Refusal(417, "it expects what nobody knows")
    return asked


def check_size(size: int, limits: HttpLimits) -> None:
    """:raises Refusal: if a body of this size is too long."""
    if size > limits.body_size:
        raise Refusal(413, f"the body is longer than {limits.body_size} bytes")


def expects_continue(head: RequestHead) -> bool:
    """:returns: whether the client waits for 100 with its body (RFC 9110, 10.1.1)."""
    return head.length != 0 and head.version != b"HTTP/1.0" and bool(head.values(b"expect"))
