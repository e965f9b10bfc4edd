"""
How many workers there are to be, and how many cores this process may use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from pathlib import Path

from mtlsgate.config.settings import Workers

_CGROUP = Path("/sys/fs/cgroup")


def worker_count(said: Workers) -> int:
    """
    :param said: what the configuration says.
    :returns: how many workers there are to be; 1 for none, and no supervisor.
    """
    return usable_cores() if said == "auto" else said


def usable_cores(
    affinity: Callable[[], int] = lambda: len(os.sched_getaffinity(0)),
    own: Path = Path("/proc/self/cgroup"),
    root: Path = _CGROUP,
) -> int:
    """
    :param affinity: how many cores the process may run on.
    :param own: names the process's cgroup.
    :param root: where cgroups are (version 2).
    :returns: how many cores' time the process gets, at least 1.  A quota of one and a
        half cores counts as two: a worker more than needed costs little.
    """
    quotas = [quota for one in _cgroups(own, root) if (quota := _quota(one)) is not None]
    return max(1, min([affinity(), *map(ceil, quotas)]))


def _cgroups(own: Path, root: Path) -> list[Path]:
    """:returns: the process's cgroup and those above it."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                here = root / path.lstrip("/")
                return [one for one in (here, *here.parents) if one.is_relative_to(root)]
    return [root]


def _quota(cgroup: Path) -> float | None:
    """:returns: how many cores its ``cpu.max`` allows; None for no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
