"""
Time: the instant that the calendar shows.
"""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """:returns: the present, by the system's clock."""
    return datetime.now(UTC)
