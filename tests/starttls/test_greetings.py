"""The greetings of targets."""

from __future__ import annotations

import pytest

from mtlsgate.starttls import DIALECTS, Greeting, NoGreeting
from mtlsgate.starttls.greetings import MAX_GREETING

EATEN = [
    ("smtp", b"220 mail.example ESMTP\r\n"),
    ("smtp", b"220-mail.example ESMTP\r\n220-no spam\r\n220 please\r\n"),
    ("smtp", b"220\r\n"),
    ("smtp", b"220 bare\n"),
    ("imap", b"* OK ready\r\n"),
    ("imap", b"* ok [CAPABILITY IMAP4rev1] ready\r\n"),
]
#: A target that does not want, or wants something odd.
FOR_THE_CLIENT = [
    ("smtp", b"421 4.3.2 try again\r\n"),
    ("smtp", b"554-go\r\n554 away\r\n"),
    ("smtp", b"\r\n"),
    ("imap", b"* BYE full\r\n"),
    ("imap", b"* PREAUTH ready\r\n"),
    ("imap", b"* OKAY\r\n"),
]


def read(dialect: str, *pieces: bytes) -> Greeting | NoGreeting | None:
    make = DIALECTS[dialect].target_greeting
    assert make is not None
    reader = make()
    for piece in pieces[:-1]:
        assert reader.feed(piece) is None
    return reader.feed(pieces[-1])


@pytest.mark.parametrize(("dialect", "greeting"), EATEN)
@pytest.mark.parametrize("rest", [b"", b"more\r\n", b"\xff"])
def test_a_greeting_is_taken_out(dialect: str, greeting: bytes, rest: bytes) -> None:
    """What comes after it is for the client."""
    assert read(dialect, greeting + rest) == Greeting(rest)


@pytest.mark.parametrize(("dialect", "greeting"), EATEN)
def test_a_greeting_comes_in_pieces(dialect: str, greeting: bytes) -> None:
    assert read(dialect, *(greeting[at : at + 1] for at in range(len(greeting)))) == Greeting()


@pytest.mark.parametrize(("dialect", "greeting"), FOR_THE_CLIENT)
def test_a_refusal_is_for_the_client(dialect: str, greeting: bytes) -> None:
    """It answers the client's first command."""
    assert read(dialect, greeting) == Greeting(greeting)


@pytest.mark.parametrize("dialect", ["smtp", "imap"])
@pytest.mark.parametrize("data", [b"x", b"220-x\r\n"])
def test_there_is_an_end_to_a_greeting(dialect: str, data: bytes) -> None:
    if dialect == "imap":
        data = b"x"
    assert isinstance(read(dialect, data * MAX_GREETING), NoGreeting)


def test_postgresql_does_not_greet() -> None:
    assert DIALECTS["postgres"].target_greeting is None
