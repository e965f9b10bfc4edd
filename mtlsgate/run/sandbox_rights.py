"""
What the sandbox of the running gate allows: of the configuration, and of the system.
"""

from __future__ import annotations

import mimetypes
import os
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from mtlsgate.load.reach import Reach
from mtlsgate.run.landlock import Rights


def _paths(text: str) -> frozenset[Path]:
    return frozenset(map(Path, text.split()))


#: Directories that hold more than belongs to a gate: of a file that stands directly in
#: one, only that file is allowed.
_SHARED = _paths(
    "/ /boot /dev /etc /home /media /mnt /opt /proc /root /run /srv /sys /tmp /usr /var "
    "/var/lib /var/log /var/tmp"
)
#: Those of them in which a gate may make and remove files and sockets of its own.
_SHARED_FOR_WRITING = _paths("/run /tmp /var/log /var/tmp")

#: What Python, OpenSSL and the C library read: names, addresses, time, types of files,
#: the system's CAs.
SYSTEM = _paths("""
    /dev/null /dev/random /dev/urandom
    /etc/gai.conf /etc/group /etc/host.conf /etc/hosts /etc/ld.so.cache /etc/localtime
    /etc/nsswitch.conf /etc/passwd /etc/protocols /etc/resolv.conf
    /etc/services
    /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem /etc/ssl/certs /etc/pki/ca-trust/extracted
    /etc/pki/tls/certs /usr/local/share/ca-certificates /usr/share/ca-certificates
    /lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /usr/share/zoneinfo
    /run/NetworkManager /run/resolvconf /run/systemd/resolve
    /proc /sys/devices/system/cpu
""")
#: DNS, when an answer is too long for UDP.
_DNS = 53

#: Device and inode: which file it is, whatever its name.
_Identity = tuple[int, int]


@frozen
class Allowed:
    """
    What the sandbox allows of files that a configuration names; symbolic links are
    followed.

    :ivar rights: all that it allows.
    :ivar _single: the files that are allowed without their directories.  If such a file is
        replaced by another of its name, that is not allowed.
    """

    rights: Rights
    _single: Mapping[Path, _Identity | None]

    @classmethod
    def by(
        cls,
        reach: Reach,
        seen: Iterable[Path],
        writes: Iterable[Path] = (),
        home: Path | None = None,
    ) -> Allowed:
        """
        :param reach: what the configuration needs.
        :param seen: the files and directories that were read to load it.
        :param writes: more files that are written to.
        :param home: the home directory of the gate's user.
        """
        shared = _SHARED if home is None else _SHARED | {home}
        read = frozenset(
            found
            for path in (*seen, *reach.reads)
            for one in _with_target(path)
            for found in _readable(one, shared)
        )
        return cls(
            Rights(
                read=read,
                write=frozenset(
                    _writable(one, shared)
                    for path in (*writes, *reach.writes)
                    for one in _with_target(path)
                ),
                ports=frozenset({*reach.ports, _DNS}) if reach.ports else frozenset(),
                any_port=reach.any_port,
            ),
            {path: _identity(path) for path in read if not _is_directory(path)},
        )

    def may_read(self, path: Path) -> bool:
        """:returns: whether what a path leads to may be read."""
        target = Path(os.path.abspath(path)).resolve()
        if target in self._single:
            return _identity(target) == self._single[target]
        return _is_in(path, self.rights.read)

    def may_write(self, path: Path) -> bool:
        """:returns: whether a file of this name may be made and written to."""
        return _is_in(path, self.rights.write)

    def missing(self, reach: Reach, seen: Iterable[Path]) -> Iterator[str]:
        """:returns: what another configuration needs beyond it, in lines without end."""
        for path in sorted({*seen, *reach.reads}):
            if _may_be_there(path) and not self.may_read(path):
                yield f"{path}: the gate's sandbox does not allow to read it"
        for path in sorted(reach.writes):
            if not self.may_write(path):
                yield f"{path}: the gate's sandbox does not allow to write it"
        if self.rights.any_port:
            return
        if reach.any_port:
            yield "registry: the gate's sandbox does not allow to connect to all ports"
        for port in sorted(reach.ports - self.rights.ports):
            yield f"the gate's sandbox does not allow to connect to port {port}"


def _with_target(path: Path) -> tuple[Path, Path]:
    """:returns: a path, and where it leads to: both may be renamed over."""
    absolute = Path(os.path.abspath(path))
    return absolute.parent.resolve() / absolute.name, absolute.resolve()


def _readable(path: Path, shared: frozenset[Path]) -> Iterator[Path]:
    if _is_directory(path):
        if path not in shared:
            yield path
        return
    yield path if path.parent in shared else path.parent


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        # Workers begin as the gate's user; the supervisor hands them the files.
        return False


def _writable(path: Path, shared: frozenset[Path]) -> Path:
    return path if path.parent in shared - _SHARED_FOR_WRITING else path.parent


def _may_be_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        # Only a user of before may look, and the reader of root's files.
        return True
    except (OSError, ValueError):
        return False
    return True


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_in(path: Path, allowed: frozenset[Path]) -> bool:
    found = Path(os.path.abspath(path)).resolve()
    return not allowed.isdisjoint((found, *found.parents))


def python_directories() -> tuple[Iterable[Path], Iterable[Path]]:
    """
    :returns: what Python reads when it imports a module or looks for plugins, and the
        directories in which it looks for names.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    read = {Path(sysconfig.get_path(name)) for name in names}
    read |= {Path(prefix) / "lib" for prefix in (sys.prefix, sys.base_prefix)}
    # One that is there and cannot be read would be an exception.
    read.update(map(Path, mimetypes.knownfiles))
    looked_in = set[Path]()
    for entry in map(Path, filter(None, sys.path)):
        # Not `Path.is_file`, which raises if the user may not look there.
        if entry.name in ("site-packages", "dist-packages") or os.path.isfile(entry):
            read.add(entry)
        elif entry not in _SHARED and os.path.isdir(entry):
            # A checkout, or the directory where the gate was started.
            looked_in.add(entry)
            read.update(entry.glob("*.egg-info"), entry.glob("*.dist-info"))
    for name, module in list(sys.modules.items()):
        if "." not in name or name == "twisted.plugins":
            with suppress(Exception):
                read.update(map(Path, module.__path__))
    return read, looked_in - _SHARED


def home_of(uid: int) -> Path | None:
    """:returns: a user's home directory, or None."""
    try:
        return Path(pwd.getpwuid(uid).pw_dir).resolve()
    except (KeyError, OSError):
        return None
