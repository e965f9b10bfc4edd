"""Decode a few lines of HCL into a class."""

from __future__ import annotations

from typing import Any

from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import Scope
from mtlsgate.config.syntax import parse
from mtlsgate.errors import START, Report


def no_files(path: str) -> bytes:
    raise AssertionError(path)


ENVIRON = {"SET": "set", "EMPTY": "", "BLANK": " ", "NUMBER": "5", "TRUE": "true"}


def read(cls: type[Any], text: str) -> tuple[Any, list[str]]:
    """:returns: the instance or None, and ``line:column: where: problem`` of each problem."""
    report = Report("f")
    body = parse(text.encode(), report)
    assert body is not None
    decoder = Decoder(
        Scope({"SET": "set", "EMPTY": "", "BLANK": " ", "NUMBER": "5", "TRUE": "true"}, no_files),
        report,
    )
    instance = decoder.decode(cls, body, START, "file")
    problems = sorted(set(report.errors))
    return instance, [str(one).removeprefix("f:") for one in problems]


def good(cls: type[Any], text: str) -> Any:
    instance, problems = read(cls, text)
    assert problems == []
    return instance
