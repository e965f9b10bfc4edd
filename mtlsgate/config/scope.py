"""
What expressions can reach, and how much of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import Factory, define, field, frozen

from mtlsgate.config.values import Value, failure
from mtlsgate.errors import Position

#: How many expressions one configuration may evaluate, and kibibytes of text make.
#: Enough for lists of a hundred thousand; a nested ``for`` could take for ever.
_STEPS = 1_000_000


@define
class Budget:
    """:ivar left: how many steps are left."""

    left: int = _STEPS

    def spend(self, at: Position, steps: int = 1) -> None:
        """:raises ExpressionErrors: if nothing is left."""
        self.left -= steps
        if self.left < 0:
            raise failure(at, f"this takes more than {_STEPS:,} steps to evaluate; make it smaller")


@frozen
class Scope:
    """
    What expressions can reach.

    :ivar environ: the environment variables.
    :ivar read_file: reads a file, whose path it gets as written; raises
        `CredentialError` with what is wrong, in words that follow its name.
    :ivar names: the variables of the ``for`` expressions around.
    :ivar budget: how much may be evaluated yet.
    """

    environ: Mapping[str, str]
    read_file: Callable[[str], bytes]
    names: Mapping[str, Value] = field(factory=dict)
    budget: Budget = Factory(Budget)
