"""The directory in which accounts and certificates are kept."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mtlsgate.acme.challenge import PendingChallenges
from mtlsgate.acme.schedule import Progress
from mtlsgate.acme.storage import CHALLENGE_LIFE, Storage, parse_kept
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.errors import CredentialError
from mtlsgate.testing import Authority

CA = Authority.create("CA")
DIGEST = bytes(range(32))
PROGRESS = Progress(
    tried=datetime(2027, 1, 1, tzinfo=UTC),
    failures=3,
    problem="it says no\n",
    wait=datetime(2027, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    suggested=datetime(2027, 2, 1, tzinfo=UTC),
)


def kept() -> bytes:
    made = CA.intermediate().issue("gate", dns_names=["gate.example"], usages=["server_auth"])
    key = made.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + b"".join(one.public_bytes(Encoding.PEM) for one in made.chain)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "state" / "acme")


def test_only_its_user_may_read_it(storage: Storage) -> None:
    before = os.umask(0)
    try:
        storage.put_certificate("gate", kept())
        storage.put_account("account", b"key")
        storage.put_progress("gate", PROGRESS)
        storage.put_challenge("gate.example", DIGEST, 0.0)
        with storage.locked():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(storage.directory.stat().st_mode) == 0o700
    found = {one.name: stat.S_IMODE(one.stat().st_mode) for one in storage.directory.iterdir()}
    names = ("gate.pem", "account.pem", "gate.json", "challenge-gate.example.json", "lock")
    assert found == dict.fromkeys(names, 0o600)


def test_what_is_kept_comes_back(storage: Storage) -> None:
    assert storage.certificate("gate") is None
    assert storage.account("account") is None
    assert storage.progress("gate") == Progress()
    data = kept()
    storage.put_certificate("gate", data)
    storage.put_account("account", b"key")
    storage.put_progress("gate", PROGRESS)
    assert storage.certificate("gate") == data
    assert storage.account("account") == b"key"
    assert storage.progress("gate") == PROGRESS
    credential = parse_kept(data)
    assert credential.dns_names == ("gate.example",)
    assert len(credential.chain) == 2


def test_a_certificate_and_its_key_are_replaced_in_one_step(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put_certificate("gate", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    version = storage.version("gate")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            storage.put_certificate("gate", b"new")
    assert storage.certificate("gate") == b"old"
    assert storage.version("gate") == version
    assert [one.name for one in storage.directory.iterdir()] == ["gate.pem"]
    storage.put_certificate("gate", b"new")
    assert storage.version("gate") != version


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"failures": "3"}',
        b'{"tried": "yesterday"}',
        b'{"tried": "2027-01-01T00:00:00"}',
        b'{"problem": 1}',
        b'{"unknown": 1}',
        b"\xff",
    ],
)
def test_what_is_damaged_counts_as_unknown(storage: Storage, text: bytes) -> None:
    storage.put_progress("gate", PROGRESS)
    (storage.directory / "gate.json").write_bytes(text)
    assert storage.progress("gate") == Progress()
    (storage.directory / "challenge-gate.example.json").write_bytes(text)
    assert storage.challenge("gate.example", 0.0) is None


@pytest.mark.parametrize("cut", [10, 200, 300, -40])
def test_a_certificate_that_is_cut_short_is_an_error(cut: int) -> None:
    with pytest.raises(CredentialError):
        parse_kept(kept()[:cut])


def test_another_certificates_key_is_an_error() -> None:
    key, end, _ = kept().partition(b"-----END PRIVATE KEY-----\n")
    with pytest.raises(CredentialError, match="is not that of"):
        parse_kept(key + end + kept().partition(b"-----END PRIVATE KEY-----\n")[2])


def test_one_process_at_a_time(storage: Storage) -> None:
    with storage.locked() as first:
        with storage.locked() as second:
            assert (first, second) == (True, False)
        with Storage(storage.directory).locked() as third:
            assert not third
    with storage.locked() as again:
        assert again


def test_a_name_is_pending_until_it_is_dropped_or_too_old(storage: Storage) -> None:
    now = [1000.0]
    wanted = WantedCertificate(
        directory="https://ca.example/dir", names=("gate.example", "b.example"), storage=storage
    )
    pending = PendingChallenges.of([wanted], lambda: now[0])
    assert pending.find("gate.example") is None
    storage.put_challenge("gate.example", DIGEST, now[0])
    for name in ("gate.example", "GATE.Example.", "gate.example."):
        found = pending.find(name)
        assert found is not None
        assert found.dns_names == ("gate.example",)
    for name in ("b.example", "c.example", "", "../gate.example", "*.example", "x" * 300):
        assert pending.find(name) is None
    now[0] += CHALLENGE_LIFE + 1
    assert pending.find("gate.example") is None
    storage.put_challenge("gate.example", DIGEST, now[0])
    assert pending.find("gate.example") is not None
    storage.drop_challenge("gate.example")
    storage.drop_challenge("gate.example")
    assert pending.find("gate.example") is None


def test_only_names_that_are_wanted_are_looked_up(storage: Storage) -> None:
    wanted = WantedCertificate(
        directory="https://ca.example/dir", names=("gate.example",), storage=storage
    )
    storage.put_challenge("other.example", DIGEST, 0.0)
    assert PendingChallenges.of([wanted], lambda: 0.0).find("other.example") is None


def test_other_names_or_another_ca_make_another_certificate(storage: Storage) -> None:
    def name(*names: str, directory: str = "https://ca.example/dir") -> str:
        wanted = WantedCertificate(directory=directory, names=names, storage=storage)
        return wanted.file_name

    first = name("a.example", "b.example")
    assert first.startswith("a.example-")
    assert name("a.example", "b.example", directory="https://other.example/dir") != first
    assert name("a.example") != first
    assert name("a.example", "c.example") != first


def test_a_storage_of_another_user_is_an_error_and_no_traceback(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an operator who runs ``mtlsgate check`` as another user than the gate's."""

    def forbidden(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", forbidden)
        with pytest.raises(CredentialError, match="cannot be read: Permission denied"):
            storage.certificate("gate")
        with pytest.raises(CredentialError, match="cannot be read: Permission denied"):
            storage.account("account")
