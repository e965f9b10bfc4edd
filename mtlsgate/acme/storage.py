"""
The directory in which ACME accounts and certificates are kept.

All processes that share it find out from it: workers, and gates on several machines.
Files replace earlier ones in one step, and only the gate's user may read them::

    account-HASH.pem        the key of the account with one CA
    ca-of-account-HASH.pem  the CAs that vouch for that CA's server, if the configuration has any
    NAME-HASH.pem           a certificate's key, the certificate, and its intermediates
    NAME-HASH.json          what is known of its orders (`Progress`)
    challenge-NAME.json     what proves to the CA that the gate has the name, for a while
    lock                    whoever has locked it orders
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from mtlsgate.acme.schedule import Progress
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.parsing import (
    ServerCredential,
    pair,
    parse_certificates,
    parse_private_key,
    read_file,
)
from mtlsgate.errors import CredentialError

#: A challenge that is older was left behind by a process that ended, in seconds.
CHALLENGE_LIFE = 3600.0

_END_OF_KEY = b"-----END PRIVATE KEY-----\n"


@frozen
class PendingChallenge:
    """
    A name that a CA is about to validate.

    :ivar digest: the SHA-256 digest of the key authorization (RFC 8737, 3).
    :ivar until: when it counts no longer, in seconds since the epoch.
    """

    digest: bytes
    until: float


def parse_kept(data: bytes) -> ServerCredential:
    """
    :param data: a key, its certificate and the intermediates, in PEM.
    :raises CredentialError: if they do not parse, or do not belong together.
    """
    key, end, chain = data.partition(_END_OF_KEY)
    return pair(parse_certificates(chain), parse_private_key(key + end))


@frozen
class Storage:
    """
    A directory of accounts and certificates.

    :ivar directory: which; made when something is kept.
    """

    directory: Path

    # Certificates.

    def certificate_path(self, file_name: str) -> Path:
        """:returns: where a certificate with its key is kept."""
        return self.directory / f"{file_name}.pem"

    def certificate(self, file_name: str) -> bytes | None:
        """
        :returns: key and certificates in PEM; None if there is no such file.
        :raises CredentialError: if it cannot be read.
        """
        # An empty one is damaged like any other, and not an error.
        path = self.certificate_path(file_name)
        size = _size(path)
        return read_file(path) if size else None if size is None else b""

    def version(self, file_name: str) -> Hashable:
        """:returns: what differs if a certificate has been replaced, or if more is known of
        its orders."""
        return tuple(_stamp(self.directory / f"{file_name}.{ending}") for ending in ("pem", "json"))

    def put_certificate(self, file_name: str, data: bytes) -> None:
        """:raises OSError: if it cannot be written."""
        self._put(self.certificate_path(file_name), data)

    # Accounts.

    def account(self, account_name: str) -> bytes | None:
        """
        :returns: the account's key in PEM; None if there is none yet.
        :raises CredentialError: if it cannot be read.
        """
        path = self.directory / f"{account_name}.pem"
        return None if _size(path) is None else read_file(path)

    def put_account(self, account_name: str, data: bytes) -> None:
        """:raises OSError: if it cannot be written."""
        self._put(self.directory / f"{account_name}.pem", data)

    def put_authorities(self, account_name: str, authorities: Iterable[Certificate]) -> Path:
        """
        Keep the CAs that vouch for a CA's server: the file that the configuration names may be
        for root alone.

        :returns: the file.
        :raises OSError: if it cannot be written.
        """
        path = self.directory / f"ca-of-{account_name}.pem"
        data = b"".join(one.pem for one in authorities)
        if not path.exists() or path.read_bytes() != data:
            self._put(path, data)
        return path

    # What is known of orders.

    def progress(self, file_name: str) -> Progress:
        """:returns: what is known of a certificate's orders; nothing if that is damaged."""
        found = self._json(self.directory / f"{file_name}.json")
        try:
            return Progress(**{name: _read(name, value) for name, value in found.items()})
        except (TypeError, ValueError):
            return Progress()

    def put_progress(self, file_name: str, progress: Progress) -> None:
        """:raises OSError: if it cannot be written."""
        found = attrs.asdict(progress, value_serializer=_written)
        self._put(self.directory / f"{file_name}.json", json.dumps(found, indent=1).encode())

    # Challenges.

    def challenge(self, name: str, now: float) -> PendingChallenge | None:
        """
        :param now: in seconds since the epoch.
        :returns: what answers the CA's question about a name; None if it asks none.
        """
        found = self._json(self._challenge_path(name))
        try:
            pending = PendingChallenge(bytes.fromhex(found["digest"]), float(found["until"]))
        except (KeyError, TypeError, ValueError):
            return None
        return pending if now <= pending.until and len(pending.digest) == 32 else None

    def put_challenge(self, name: str, digest: bytes, now: float) -> None:
        """
        :param now: in seconds since the epoch.
        :raises OSError: if it cannot be written.
        """
        found = {"digest": digest.hex(), "until": now + CHALLENGE_LIFE}
        self._put(self._challenge_path(name), json.dumps(found).encode())

    def drop_challenge(self, name: str) -> None:
        """The CA's question about a name is answered, or given up."""
        with suppress(OSError):
            self._challenge_path(name).unlink(missing_ok=True)

    def _challenge_path(self, name: str) -> Path:
        return self.directory / f"challenge-{name}.json"

    # Whose turn it is.

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """
        Lock the storage, if nobody else has.

        :returns: a context with whether it is locked.
        :raises OSError: if there can be no lock.
        """
        self._make()
        # Append: that changes nothing, and a network file system locks only what is
        # open for writing.
        with open(self.directory / "lock", "ab", opener=_private) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            # Closing the file unlocks it.
            yield True

    # Files.

    def _make(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _put(self, path: Path, data: bytes) -> None:
        """:raises OSError: if it cannot be written."""
        self._make()
        # mkstemp makes a file that only its owner may read.
        handle, name = tempfile.mkstemp(dir=self.directory, prefix=".new-")
        try:
            with open(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(handle)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def _json(self, path: Path) -> dict[str, Any]:
        """:returns: what a file has; nothing if it is not there, or damaged."""
        try:
            found = json.loads(read_file(path))
        except (CredentialError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _size(path: Path) -> int | None:
    """
    :returns: a file's size; None if there is none.
    :raises CredentialError: if this user may not know.
    """
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CredentialError(f"cannot be read: {reason}") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _written(_: object, __: object, value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _read(name: str, value: object) -> Any:
    """:raises ValueError: if it is no such value."""
    kind = {"failures": int, "problem": str}.get(name, datetime)
    if value is None:
        return value
    if kind is datetime:
        found = datetime.fromisoformat(str(value))
        if found.tzinfo is None:
            raise ValueError("a time without its offset")
        return found
    if not isinstance(value, kind):
        raise ValueError(f"{name} is no {kind.__name__}")
    return value
