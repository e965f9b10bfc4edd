"""
Files that were read before, for libraries that take names of files only.

The gate reads its files when it loads its configuration, while it may: later it may be
another user, or in a sandbox.  OpenSSL and libpq get such a file as one in memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from weakref import finalize

#: libpq refuses keys that others may read.
_MODE = 0o600


class ReadFiles:
    """Files in memory, made when they are asked for; they go with this object."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        """:param contents: of files that were read, by their names."""
        self._contents = contents
        self._descriptors: dict[str, int] = {}
        finalize(self, _close_all, self._descriptors)

    def path(self, name: str) -> str:
        """:returns: what to open in place of a file; the file itself if it was not read."""
        if name not in self._contents:
            return name
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            descriptor = self._descriptors[name] = _in_memory(self._contents[name])
        return f"/proc/self/fd/{descriptor}"

    def named(self, text: str) -> str:
        """:returns: what a library says of them, with the names that people know."""
        for name in self._descriptors:
            text = text.replace(f'"{self.path(name)}"', f'"{name}"')
        return text


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("mtlsgate-registry", os.MFD_CLOEXEC)
    os.fchmod(descriptor, _MODE)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    return descriptor


def _close_all(descriptors: Mapping[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
