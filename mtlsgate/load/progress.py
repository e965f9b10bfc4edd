"""
A word to the person who waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer


@contextmanager
def patience(
    say: Callable[[str], object] | None, path: str, seconds: float = 1.0
) -> Iterator[None]:
    """
    Say once that a configuration is still being built, if it takes longer than
    that; a fleet's pins do.

    :param say: prints one line; called from another thread.  None if nobody waits.
    :param path: the configuration file.
    """
    if say is None:
        yield
        return
    timer = Timer(seconds, say, [f"{path}: still reading certificates and building rules …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
