"""
Landlock: a thread of Linux gives up rights for itself and for what it starts.

The kernel's interface, without a decision of ours: landlock(7), and
Documentation/userspace-api/landlock.rst of the kernel for what each version (ABI) has.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

#: System calls, which have the same numbers on all architectures but Alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_NO_NEW_PRIVS = 38

# Rights on files.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG, _MAKE_SOCK = 1 << 5, 1 << 8, 1 << 9
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
#: All that a version has: ABI 2 adds REFER, 3 TRUNCATE, 5 IOCTL_DEV.
_ALL_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
#: Those that a file can have, and not only a directory.
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_REG | _MAKE_SOCK

#: The first versions with TCP ports and with signals.
PORTS_ABI, _SCOPES_ABI = 4, 6
_CONNECT_TCP = 1 << 1
_SCOPE_SIGNAL = 1 << 1


@frozen
class Rights:
    """
    What is kept; everything else is given up.

    :ivar read: directories with all that is below them, and files.
    :ivar list: directories whose entries' names may be read.
    :ivar write: directories in which files and sockets may be made, changed and removed,
        and files.
    :ivar ports: TCP ports that may be connected to.
    :ivar any_port: whether these are all.
    """

    read: frozenset[Path] = frozenset()
    list: frozenset[Path] = frozenset()
    write: frozenset[Path] = frozenset()
    ports: frozenset[int] = frozenset()
    any_port: bool = False


def landlock_abi() -> int:
    """:returns: the version of Landlock that the kernel has; 0 if it has none."""
    version = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, int(version))


def restrict(rights: Rights, abi: int) -> None:
    """
    Keep these rights and no others, in this thread and in those that it starts.  What is
    open already stays usable.  No program can be started any more.

    Paths that do not exist are left out.

    :param abi: from `landlock_abi`, at least 1; what it does not have stays allowed.
    :raises OSError: if that is not possible; then nothing has changed.
    """
    handled = next(
        mask for since, mask in sorted(_ALL_FILE_RIGHTS.items(), reverse=True) if abi >= since
    )
    fields = [handled]
    if abi >= PORTS_ABI:
        fields.append(0 if rights.any_port else _CONNECT_TCP)
    if abi >= _SCOPES_ABI:
        fields.append(_SCOPE_SIGNAL)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for paths, allowed in (
            (rights.read, _READ),
            (rights.list, _READ_DIR),
            (rights.write, _WRITE),
        ):
            _allow_below(ruleset, paths, allowed & handled)
        if abi >= PORTS_ABI and not rights.any_port:
            for port in rights.ports:
                _call(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
            raise _error()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_below(ruleset: int, paths: Iterable[Path], allowed: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            # What is not there cannot be allowed; a directory above it may be.
            continue
        try:
            possible = allowed if path.is_dir() else allowed & _OF_FILES
            if possible:
                rule = struct.pack("=Qi", possible, descriptor)
                _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """:raises OSError: if the system call fails."""
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
