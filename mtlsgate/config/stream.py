"""
Tokens with a place to read from, and what to say of a token that is not expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtlsgate.config.source import Source, UnreadableError
from mtlsgate.config.tokens import MAXIMUM_DEPTH, TOO_DEEP, Token, scan
from mtlsgate.errors import Position

_QUOTES = '; strings are written in "double quotes"'


class TokenStream:
    """
    Reads tokens one by one.

    :ivar source: the text that they are of.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._tokens = scan(source)
        self._index = 0
        self._skipping = [False]
        self._depth = 0

    def peek(self) -> Token:
        """:returns: the next token."""
        if self._skipping[-1]:
            while self._tokens[self._index].kind == "newline":
                self._index += 1
        return self._tokens[self._index]

    def second(self) -> str:
        """:returns: the kind of the token after the next."""
        self.peek()
        return self._tokens[min(self._index + 1, len(self._tokens) - 1)].kind

    def after_newlines(self) -> str:
        """:returns: the kind of the next token that is no line end."""
        index = self._index
        while self._tokens[index].kind == "newline":
            index += 1
        return self._tokens[index].kind

    def read(self) -> Token:
        """:returns: the next token, which is then no longer the next."""
        token = self.peek()
        if token.kind != "end":
            self._index += 1
        return token

    def take(self, kind: str) -> Token | None:
        """:returns: the next token, read, if it is of that kind."""
        return self.read() if self.peek().kind == kind else None

    def take_word(self, word: str) -> Token | None:
        """:returns: the next token, read, if it is that name."""
        return self.read() if self.is_word(word) else None

    def is_word(self, word: str) -> bool:
        """:returns: whether the next token is that name."""
        token = self.peek()
        return token.kind == "name" and self.text(token) == word

    def expect(self, kind: str, hint: str = "") -> Token:
        """:raises UnreadableError: if the next token is of another kind."""
        if self.peek().kind != kind:
            raise self.unexpected(hint)
        return self.read()

    def text(self, token: Token) -> str:
        """:returns: the token as written."""
        return self.source.text[token.start : token.end]

    def at(self, token: Token) -> Position:
        """:returns: where the token begins."""
        return self.source.position(token.start)

    @contextmanager
    def newlines(self, *, skipped: bool) -> Iterator[None]:
        """Skip line ends, or not, for as long as the context lasts."""
        self._skipping.append(skipped)
        yield
        self._skipping.pop()

    @contextmanager
    def nested(self, token: Token) -> Iterator[None]:
        """
        Count one level more of what nests without brackets.

        :raises UnreadableError: if that is one too many.
        """
        self._depth += 1
        if self._depth > MAXIMUM_DEPTH:
            raise self.source.unreadable(token.start, TOO_DEEP)
        yield
        self._depth -= 1

    def unexpected(self, hint: str = "") -> UnreadableError:
        """
        :param hint: what to do about it, where the token itself does not tell.
        :returns: what is wrong with the next token, without what the person wrote.
        """
        token = self.peek()
        return self.source.unreadable(
            token.start, f"unexpected {self._named(token)}{self._hint(token) or hint}"
        )

    def _named(self, token: Token) -> str:
        match token.kind:
            case "end":
                return "end of file"
            case "newline":
                return "end of line"
            case "quote" | "end quote":
                return "string"
            case "heredoc" | "name" | "number" as kind:
                return kind
        character = self.text(token)
        if character.isascii() and character.isprintable():
            return f'"{character}"'
        return f"character U+{ord(character):04X}"

    def _hint(self, token: Token) -> str:
        text = self.text(token)
        if text in {"'", "“", "”", "‘", "’", "`"}:  # noqa: RUF001
            return _QUOTES
        if text == ";":
            return '; there is no ";" in HCL: remove it'
        if text == "::":
            return "; functions have no namespace here"
        return ""
