"""
Printing progress while a long load runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer


@contextmanager
def note_if_slow(
    say: Callable[[str], object] | None, path: str, seconds: float = 1.0
) -> Iterator[None]:
    """
    Print one line if building a configuration takes longer than that, as many
    thousand pins do.

    :param say: prints one line; called from another thread.  None prints nothing.
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
        # What comes next may want to be alone in the process.
        timer.join()
