"""
SPIFFE agents, trust domains and names in a configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from mtlsgate.certificates.svid import parse_spiffe_id, parse_trust_domain
from mtlsgate.config.fields import Located
from mtlsgate.text import quoted

#: Names the agent's socket to programs that are told nothing else (SPIFFE Workload
#: Endpoint, 4).
VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
#: sockaddr_un has 108 bytes, the last of which is NUL.
_MAX_PATH = 107


def parse_agent(text: str) -> str:
    """
    :param text: as ``unix:/run/spire/agent.sock`` or ``unix:///run/spire/agent.sock``.
    :returns: the path of the socket.
    :raises ValueError: if it is anything else; the text follows it.
    """
    if text.startswith("tcp:"):
        raise ValueError("is a TCP address, where another program may answer: name a unix socket")
    parts = urlsplit(text)
    path = parts.path
    if parts.scheme != "unix" or parts.netloc or not path.startswith("/") or parts.query:
        raise ValueError('is no socket of an agent: write "unix:/run/spire/agent.sock"')
    if "\0" in path or len(path.encode(errors="surrogateescape")) > _MAX_PATH:
        raise ValueError(f"is longer than the {_MAX_PATH} bytes that the system takes")
    return path


def agent_of(written: Located[str]) -> str | None:
    """:returns: the path of an agent's socket; None if it is none, which `wrong_agent` says."""
    try:
        return parse_agent(written.value)
    except ValueError:
        return None


def wrong_agent(name: str, written: Located[str]) -> Iterator[tuple[str, str]]:
    """
    :param name: of the attribute.
    :returns: (attribute, text) if it is no socket of an agent.
    """
    try:
        parse_agent(written.value)
    except ValueError as error:
        yield name, f"{name}: {quoted(written.value)} {error}"


def wrong_trust_domain(name: str, written: Located[str]) -> Iterator[tuple[str, str]]:
    """:returns: (attribute, text) if it is no trust domain."""
    try:
        parse_trust_domain(written.value)
    except ValueError as error:
        yield name, f"{name}: {quoted(written.value)} {error}"


def wrong_spiffe_id(name: str, written: Located[str] | None) -> Iterator[tuple[str, str]]:
    """:returns: (attribute, text) if it is no SPIFFE ID of a workload."""
    try:
        if written is not None and not parse_spiffe_id(written.value).path:
            raise ValueError("names a trust domain, and no workload of it")
    except ValueError as error:
        assert written is not None
        yield name, f"{name}: {quoted(written.value)} {error}"
