"""
Where the gate keeps what it has fetched.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from attrs import frozen
from cryptography.hazmat.primitives.hashes import SHA256

from mtlsgate.certificates.ocsp import Stapling
from mtlsgate.certificates.parsing import read_file
from mtlsgate.config import Located
from mtlsgate.errors import CredentialError


def state_directory(
    stated: Located[str] | None, directory: Path, environ: Mapping[str, str]
) -> Path:
    """
    :param stated: ``state_dir``, or None.
    :param directory: the configuration's.
    :param environ: systemd sets ``STATE_DIRECTORY`` in it.
    :returns: where fetched documents are kept.
    """
    if stated is not None:
        return directory / stated.value
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else directory / "state"


class KeptDocuments:
    """
    The documents that were fetched last, in memory and on disk.

    It outlives epochs.  A document that cannot be written stays in memory.
    """

    def __init__(self) -> None:
        self._known: dict[Path, bytes] = {}

    def get(self, path: Path) -> bytes | None:
        """:returns: a document; None if there is none that can be read."""
        if path not in self._known:
            with suppress(CredentialError):
                self._known[path] = read_file(path)
        return self._known.get(path)

    def put(self, path: Path, data: bytes) -> None:
        """
        Keep a document.  It replaces the earlier one in one step.

        :raises OSError: if it cannot be written; it is kept in memory all the same.
        """
        self._known[path] = data
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(handle)
                os.fchmod(handle, 0o644)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


@frozen
class State:
    """
    Where one load finds what was fetched.

    :ivar directory: where documents are kept.
    :ivar kept: the documents.
    """

    directory: Path
    kept: KeptDocuments

    def path_of(self, url: str) -> Path:
        """:returns: the file of the revocation lists from a URL."""
        name = hashlib.sha256(url.encode("ascii")).hexdigest()[:32]
        return self.directory / f"{name}.crl"

    def path_of_response(self, stapling: Stapling) -> Path:
        """:returns: the file of the OCSP response about a certificate."""
        name = hashlib.sha256(stapling.leaf.fingerprint(SHA256())).hexdigest()[:32]
        return self.directory / f"{name}.ocsp"

    def with_response(self, stapling: Stapling, now: datetime) -> Stapling:
        """:returns: the same with the response that was fetched, if it still counts."""
        data = self.kept.get(self.path_of_response(stapling))
        with suppress(CredentialError):
            return stapling if data is None else stapling.responded(data, now)
        return stapling

    def lists_from(self, url: str) -> bytes | None:
        """:returns: the revocation lists that were fetched from a URL, or None."""
        return self.kept.get(self.path_of(url))
