"""
Where a SPIFFE agent is (SPIFFE Workload Endpoint, 3 and 4).
"""

from __future__ import annotations

from urllib.parse import urlsplit

#: Names the agent's socket for programs that are not told otherwise.
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
        raise ValueError("is a TCP address, where others could listen: name the unix socket")
    parts = urlsplit(text)
    path = parts.path
    if parts.scheme != "unix" or parts.netloc or not path.startswith("/") or parts.query:
        raise ValueError('is no socket of an agent: write "unix:/run/spire/agent.sock"')
    if "\0" in path or len(path.encode(errors="surrogateescape")) > _MAX_PATH:
        raise ValueError(f"is longer than the {_MAX_PATH} bytes that the system takes")
    return path
