"""SMTP's and IMAP's STARTTLS."""

from __future__ import annotations

import pytest

from mtlsgate.reasons import Reason
from mtlsgate.starttls import DIALECTS, NoUpgrade, Turn, Upgrade
from mtlsgate.starttls.lines import MAX_COMMANDS, MAX_LINE

BOTH = ["smtp", "imap"]
#: In each dialect: a command that is answered, and the request for TLS.
HARMLESS = {"smtp": b"NOOP\r\n", "imap": b"a NOOP\r\n"}
STARTTLS = {"smtp": b"STARTTLS\r\n", "imap": b"a STARTTLS\r\n"}


def talk(dialect: str, *pieces: bytes) -> Turn:
    """:returns: all answers to these bytes, and the outcome."""
    negotiation = DIALECTS[dialect].negotiate("mail.example")
    said = b""
    for number, piece in enumerate(pieces, 1):
        turn = negotiation.feed(piece)
        said += turn.answer
        if turn.outcome is not None:
            assert number == len(pieces), "there is an outcome before the last piece"
            return Turn(said, turn.outcome)
    return Turn(said)


def refusal(dialect: str, *pieces: bytes) -> tuple[Reason, str]:
    turn = talk(dialect, *pieces)
    assert isinstance(turn.outcome, NoUpgrade)
    return turn.outcome.reason, turn.outcome.detail


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class TestSmtp:
    """RFC 3207."""

    def test_from_the_greeting_to_tls(self) -> None:
        """The gate greets, offers STARTTLS and nothing else, and begins TLS."""
        assert DIALECTS["smtp"].negotiate("mail.example").greeting == b"220 mail.example ESMTP\r\n"
        session = b"EHLO client.example\r\nSTARTTLS\r\n"
        expected = Turn(b"250-mail.example\r\n250 STARTTLS\r\n220 2.0.0 begin TLS\r\n", Upgrade())
        assert talk("smtp", session) == expected
        assert talk("smtp", *byte_by_byte(session)) == expected

    @pytest.mark.parametrize("command", [b"starttls", b"StartTLS", b"STARTTLS "])
    def test_case_does_not_matter(self, command: bytes) -> None:
        assert isinstance(talk("smtp", command + b"\r\n").outcome, Upgrade)

    def test_starttls_takes_no_parameter(self) -> None:
        """RFC 3207, 4: the answer is 501, and the client may try again."""
        turn = talk("smtp", b"STARTTLS now\r\n")
        assert (turn.answer[:4], turn.outcome) == (b"501 ", None)

    @pytest.mark.parametrize(
        "command",
        [b"MAIL FROM:<a@b>", b"AUTH PLAIN AGEAYg==", b"RCPT TO:<a@b>", b"DATA", b"VRFY a", b""],
    )
    def test_everything_else_must_wait(self, command: bytes) -> None:
        """RFC 3207, 4: 530."""
        assert talk("smtp", command + b"\r\n") == Turn(b"530 5.7.0 send STARTTLS first\r\n")

    @pytest.mark.parametrize("command", [b"HELO x", b"NOOP", b"RSET", b"noop"])
    def test_harmless_commands_are_answered(self, command: bytes) -> None:
        turn = talk("smtp", command + b"\r\n")
        assert (turn.answer[:4], turn.outcome) == (b"250 ", None)

    def test_who_leaves_without_tls_is_refused(self) -> None:
        turn = talk("smtp", b"QUIT\r\n")
        assert turn.answer.startswith(b"221 ")
        assert isinstance(turn.outcome, NoUpgrade)
        assert turn.outcome.reason is Reason.STARTTLS_REQUIRED


class TestImap:
    """RFC 9051, 6.2.1."""

    def test_from_the_greeting_to_tls(self) -> None:
        """The gate greets, says that nobody can log in yet, and begins TLS."""
        greeting = DIALECTS["imap"].negotiate("").greeting
        assert greeting == b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n"
        session = b"a1 CAPABILITY\r\na2 starttls\r\n"
        expected = Turn(
            b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\na2 OK begin TLS\r\n",
            Upgrade(),
        )
        assert talk("imap", session) == expected
        assert talk("imap", *byte_by_byte(session)) == expected

    @pytest.mark.parametrize(
        "command", [b"LOGIN joe secret", b"AUTHENTICATE PLAIN", b'ID ("name" "x")', b"SELECT INBOX"]
    )
    def test_everything_else_must_wait(self, command: bytes) -> None:
        """RFC 5530: PRIVACYREQUIRED."""
        answer = talk("imap", b"a1 " + command + b"\r\n")
        assert answer == Turn(b"a1 NO [PRIVACYREQUIRED] send STARTTLS first\r\n")

    @pytest.mark.parametrize(
        "line",
        [b"", b"a", b"* NOOP", b"a+b NOOP", b"<b> NOOP!", b"a\0b NOOP", b"x" * 33 + b" NOOP"],
    )
    def test_only_a_tag_is_returned(self, line: bytes) -> None:
        """What is no tag never comes back to whoever sent it."""
        assert talk("imap", line + b"\r\n") == Turn(b"* BAD no command\r\n")

    def test_who_leaves_without_tls_is_refused(self) -> None:
        turn = talk("imap", b"a LOGOUT\r\n")
        assert turn.answer == b"* BYE goodbye\r\na OK done\r\n"
        assert isinstance(turn.outcome, NoUpgrade)
        assert turn.outcome.reason is Reason.STARTTLS_REQUIRED


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("behind", [b"\r", b"RSET\r\n", b"a LOGIN x y\r\n", b"\x16\x03\x01"])
def test_bytes_behind_starttls_are_refused(dialect: str, behind: bytes) -> None:
    """A command that an attacker puts behind STARTTLS is not kept for later, and the client
    is refused (CVE-2011-0411)."""
    for before in (b"", HARMLESS[dialect]):
        reason, _ = refusal(dialect, before + STARTTLS[dialect] + behind)
        assert reason is Reason.STARTTLS_INJECTION


@pytest.mark.parametrize("dialect", BOTH)
def test_commands_may_come_at_once_before_starttls(dialect: str) -> None:
    assert isinstance(talk(dialect, HARMLESS[dialect] * 3 + STARTTLS[dialect]).outcome, Upgrade)


@pytest.mark.parametrize("dialect", BOTH)
def test_there_is_an_end_to_commands(dialect: str) -> None:
    """Whoever goes on without STARTTLS is refused."""
    talk(dialect, HARMLESS[dialect] * MAX_COMMANDS)
    reason, _ = refusal(dialect, HARMLESS[dialect] * (MAX_COMMANDS + 1))
    assert reason is Reason.STARTTLS_REQUIRED


@pytest.mark.parametrize("dialect", BOTH)
def test_there_is_an_end_to_a_line(dialect: str) -> None:
    """A line without an end is refused, and nothing more of it is kept."""
    assert talk(dialect, b"x" * MAX_LINE) == Turn()
    for data in (b"x" * (MAX_LINE + 1), b"x" * (MAX_LINE + 1) + b"\r\n"):
        assert refusal(dialect, data)[0] is Reason.STARTTLS_ERROR
        assert refusal(dialect, HARMLESS[dialect], data)[0] is Reason.STARTTLS_ERROR


@pytest.mark.parametrize("dialect", BOTH)
def test_a_line_ends_with_cr_lf(dialect: str) -> None:
    """Two readings of where a line ends are one too many."""
    line = STARTTLS[dialect].replace(b"\r", b"")
    assert refusal(dialect, line)[0] is Reason.STARTTLS_ERROR


@pytest.mark.parametrize("dialect", BOTH)
def test_tls_at_once_is_refused_with_the_remedy(dialect: str) -> None:
    """A client of SMTPS or IMAPS is at the wrong server."""
    reason, detail = refusal(dialect, b"\x16")
    assert reason is Reason.STARTTLS_ERROR
    assert "without starttls" in detail


@pytest.mark.parametrize("dialect", BOTH)
def test_other_protocols_are_named(dialect: str) -> None:
    """They are refused without an answer."""
    turn = talk(dialect, b"GET / HTTP/1.1\r\n")
    assert turn == Turn(b"", NoUpgrade(Reason.NOT_TLS, "an HTTP request without TLS"))
    assert refusal("imap", b"EHLO x\r\n")[0] is Reason.NOT_TLS
