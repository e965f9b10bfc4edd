"""The fenced blocks of the documentation's pages."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import field, frozen

from tests.kits.docs import PAGES

_FENCE = re.compile(
    r"(?:<!-- (?P<note>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
BEFORE = re.compile(r"<!-- before: (.*) -->")


@frozen
class Sample:
    """
    A fenced block.

    :ivar page: where it is.
    :ivar line: where in it.
    :ivar note: the comment in front of it, or "".
    :ivar after: the text of the block after it, or "".
    """

    page: Path
    line: int
    language: str
    note: str
    text: str
    after: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def samples(*languages: str) -> list[Sample]:
    """:returns: all blocks in these languages, or in any, in order."""
    found = []
    for page in PAGES:
        content = page.read_text() if page.exists() else ""
        blocks = list(_FENCE.finditer(content))
        for block, following in zip(blocks, [*blocks[1:], None], strict=False):
            found.append(
                Sample(
                    page,
                    content.count("\n", 0, block.start("language")) + 1,
                    block["language"],
                    block["note"] or "",
                    block["text"],
                    following["text"] if following else "",
                )
            )
    return [one for one in found if not languages or one.language in languages]
