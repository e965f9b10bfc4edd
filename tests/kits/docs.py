"""The documentation's pages, and their sections."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("how-to/*.md"))]


def sections(page: Path, level: int) -> dict[str, str]:
    """:returns: what stands under each heading of a level, by its text without backquotes."""
    parts = re.split(rf"^{'#' * level} (.*)$", page.read_text(), flags=re.MULTILINE)
    return {
        title.replace("`", ""): body for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }
