"""
What happened with a registry so far, for the status and the metrics.
"""

from __future__ import annotations

import attrs

from mtlsgate.observe.registry_status import BOUNDS
from mtlsgate.text import printable, safe_line


@attrs.define(eq=False)
class Figures:
    """
    :ivar hits: questions that were answered from memory.
    :ivar misses: questions that had to be asked.
    :ivar questions: how many round trips were made.
    :ivar failures: how many of them failed.
    :ivar seconds: how long those took that did not, together.
    :ivar latencies: how many took at most each of `BOUNDS`, and how many took longer.
    :ivar changes: how many changes were told.
    :ivar connects: how often following began.
    :ivar losses: how often the push channel was lost.
    :ivar problem: why the latest question failed, in one line; "" if it did not.
    """

    hits: int = 0
    misses: int = 0
    questions: int = 0
    failures: int = 0
    seconds: float = 0.0
    latencies: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    changes: int = 0
    connects: int = 0
    losses: int = 0
    problem: str = ""

    def asked(self, seconds: float, error: Exception | None) -> None:
        """Count a round trip."""
        self.questions += 1
        if error is not None:
            self.failures += 1
            self.problem = printable(safe_line(error))
            return
        self.problem = ""
        self.seconds += seconds
        place = next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))
        self.latencies[place] += 1
