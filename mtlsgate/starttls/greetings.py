"""
The greeting of a target, which its client has already had from the gate.

After STARTTLS a server does not greet again (RFC 3207, 4.2; RFC 9051, 6.2.1).  A target
behind the gate greets when it is connected, so its greeting is taken out of the stream.
Only one that says yes is: any other, such as SMTP's 421, is for the client, which reads
it as the answer to its first command.
"""

from __future__ import annotations

import re

from attrs import frozen

#: The longest greeting, in bytes.
MAX_GREETING = 8192


@frozen
class Greeting:
    """
    The greeting is complete.

    :ivar rest: what came and is for the client.
    """

    rest: bytes = b""


@frozen
class NoGreeting:
    """
    What came is no greeting.

    :ivar detail: what is wrong.
    """

    detail: str


class GreetingReader:
    """
    Takes bytes as they come until the greeting is complete.

    :ivar _received: the bytes so far.
    """

    def __init__(self, continued: re.Pattern[bytes], welcome: re.Pattern[bytes]) -> None:
        """
        :param continued: matches a line after which the greeting goes on.
        :param welcome: matches the last line of a greeting that says yes.
        """
        self._continued = continued
        self._welcome = welcome
        self._received = bytearray()

    def feed(self, data: bytes) -> Greeting | NoGreeting | None:
        """
        :param data: the next bytes, any number of them.
        :returns: None while more bytes are needed.
        """
        received = self._received
        received += data
        start = 0
        while (end := received.find(b"\n", start)) >= 0 and end < MAX_GREETING:
            line = bytes(received[start : end + 1])
            if not self._continued.match(line):
                if self._welcome.match(line):
                    return Greeting(bytes(received[end + 1 :]))
                return Greeting(bytes(received))
            start = end + 1
        if len(received) >= MAX_GREETING:
            return NoGreeting(f"its greeting is longer than {MAX_GREETING} bytes")
        return None


def smtp_greeting() -> GreetingReader:
    """:returns: a reader of replies in one line or several (RFC 5321, 4.2.1)."""
    return GreetingReader(re.compile(rb"220-"), re.compile(rb"220[ \r\n]"))


def imap_greeting() -> GreetingReader:
    """:returns: a reader of a single line (RFC 9051, 7.1)."""
    return GreetingReader(re.compile(rb"(?!)"), re.compile(rb"(?i:\* OK )"))
