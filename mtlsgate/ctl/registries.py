"""
What a gate says of its registries, as a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtlsgate.ctl.fitting import Column, FittingTable
from mtlsgate.ctl.printing import table

#: One of the gate's JSON objects.
Facts = Mapping[str, Any]


def registries(facts: Facts) -> FittingTable:
    """:returns: a line for each registry."""
    return table(
        (
            Column("registry"),
            Column("where", rank=3),
            Column("state"),
            Column("remembered", is_right=True, rank=4),
            Column("from memory", is_right=True, rank=5),
            Column("asked", is_right=True, rank=6),
            Column("failed", is_right=True, rank=2),
            Column("ms each", is_right=True, rank=1),
        ),
        [
            (
                one["name"],
                one["place"],
                one["state"],
                one["remembered"],
                _share(one["hits"], one["hits"] + one["misses"]),
                one["questions"],
                one["failures"],
                _each(one["seconds"], one["questions"] - one["failures"]),
            )
            for one in facts.get("registries", ())
        ],
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _each(seconds: float, count: int) -> str:
    return f"{1000 * seconds / count:.1f}" if count else "-"
