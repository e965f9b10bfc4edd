"""
The URLs that a configuration names, to fetch revocation lists from.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from attrs import frozen

from mtlsgate.text import quoted

_PORTS = {"http": 80, "https": 443}


@frozen
class Url:
    """
    An ``http`` or ``https`` URL.

    :ivar text: the URL, as it is written.
    :ivar scheme: ``http`` or ``https``.
    :ivar host: the host name or IP address, without brackets.
    :ivar port: the port.
    """

    text: str
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """The URL for people, without its query: that may be a secret."""
        return self.text.partition("?")[0]

    @property
    def authority(self) -> str:
        """Host and port, as targets are written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_https(self) -> bool:
        """Whether the server is verified."""
        return self.scheme == "https"


def parse_url(text: str) -> Url:
    """:raises ValueError: with what is wrong, in one line, without the text."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a URL is ASCII without spaces")
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if split.scheme not in _PORTS:
        raise ValueError('a URL begins with "http://" or "https://"')
    if not split.hostname:
        raise ValueError("the URL has no host")
    if port == 0:
        raise ValueError("the port must be from 1 to 65535")
    if split.username is not None or split.password is not None:
        raise ValueError("a URL with a user name or a password is not supported")
    if split.fragment:
        raise ValueError('a URL to fetch from has no "#"')
    return Url(text, split.scheme, split.hostname, port or _PORTS[split.scheme])


def parse_urls(value: object) -> tuple[Url, ...]:
    """
    :param value: a URL, or a list of them.
    :raises ValueError: with what is wrong, in one line.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    if not texts:
        raise ValueError("is empty: name at least one URL")
    found: dict[str, Url] = {}
    for text in texts:
        if not isinstance(text, str):
            raise ValueError("must be a string or a list of strings")
        url = parse_url(text)
        if url.text in found:
            raise ValueError(f"{quoted(str(url))} is listed twice")
        found[url.text] = url
    return tuple(found.values())
