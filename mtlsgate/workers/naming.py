"""
What `ps` and `top` call a process.
"""

from __future__ import annotations

import ctypes

#: As <sys/prctl.h> has it.
_PR_SET_NAME = 15


def name_process(name: str) -> None:
    """
    Name this process.  Not by ``/proc``: a process that was root may not write there.

    :param name: up to fifteen characters count.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
