"""Whatever a client says before TLS."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.starttls import DIALECTS, Greeting, NoGreeting, NoUpgrade, Upgrade, plain_protocol
from mtlsgate.starttls.greetings import MAX_GREETING
from mtlsgate.starttls.lines import MAX_COMMANDS, MAX_LINE

#: More than any exchange before TLS may take.
MOST = (MAX_COMMANDS + 1) * (MAX_LINE + 2) + 10_000

WORDS = st.sampled_from(
    [
        b"EHLO x\r\n",
        b"STARTTLS\r\n",
        b"a STARTTLS\r\n",
        b"a CAPABILITY\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\0\0\0\x08\x04\xd2\x16\x30",
        b"\0\0\0\x20\0\3\0\0",
        b"\x16",
        b"x" * 600,
        b"220-x\r\n",
        b"220 x\r\n",
        b"* OK x\r\n",
    ]
)
PIECES = st.lists(st.binary(min_size=1, max_size=40) | WORDS, min_size=1, max_size=30)
NAMES = st.sampled_from(sorted(DIALECTS))


@given(NAMES, PIECES)
def test_every_exchange_ends_or_waits(name: str, pieces: list[bytes]) -> None:
    """Nothing raises; an outcome is told in one line; TLS begins only with bytes that came
    as its own, and behind nothing else in the same piece."""
    negotiation = DIALECTS[name].negotiate("mail.example")
    for piece in pieces:
        turn = negotiation.feed(piece)
        if isinstance(turn.outcome, NoUpgrade):
            assert turn.outcome.detail.isprintable()
        if isinstance(turn.outcome, Upgrade):
            assert turn.outcome.received[:1] in (b"", b"\x16")
            assert turn.outcome.received or turn.answer
        if turn.outcome is not None:
            return


@settings(max_examples=30)
@given(NAMES, PIECES)
def test_every_exchange_is_bounded(name: str, pieces: list[bytes]) -> None:
    """Whoever goes on saying the same is refused in the end, or begins TLS."""
    negotiation = DIALECTS[name].negotiate("mail.example")
    said = 0
    while said < MOST:
        for piece in pieces:
            said += len(piece)
            if negotiation.feed(piece).outcome is not None:
                return
    raise AssertionError("it never ends")


@given(st.sampled_from(["smtp", "imap"]), st.binary(min_size=1, max_size=200) | WORDS, st.data())
def test_a_greeting_does_not_depend_on_its_pieces(
    name: str, data: bytes, draw: st.DataObject
) -> None:
    make = DIALECTS[name].target_greeting
    assert make is not None
    at = draw.draw(st.integers(0, len(data)))
    whole, reader = make().feed(data), make()
    first = reader.feed(data[:at])
    if isinstance(first, Greeting):
        assert isinstance(whole, Greeting)
        assert whole.rest == first.rest + data[at:]
    else:
        assert reader.feed(data[at:]) == whole


@given(st.binary(max_size=20))
def test_five_bytes_always_decide(data: bytes) -> None:
    assert plain_protocol(data) is plain_protocol(data[:5])


def test_an_endless_greeting_ends() -> None:
    for name in ("smtp", "imap"):
        make = DIALECTS[name].target_greeting
        assert make is not None
        reader = make()
        outcomes = [reader.feed(b"220-x") for _ in range(MAX_GREETING // 5 + 1)]
        assert isinstance(outcomes[-1], NoGreeting)
