"""What is read of the Workload API's messages, and what is refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsgate.certificates.certificate import views
from mtlsgate.errors import CredentialError
from mtlsgate.spiffe.messages import read_bundles, read_svids
from mtlsgate.testing import Credential
from tests.kits.spiffe import (
    bundle_message,
    bundle_of,
    chain_of,
    key_of,
    pb,
    pb_svid,
    svid_message,
)
from tests.kits.svids import OTHER, PLANTS, ca_svid, svid

ID, SECOND = "spiffe://plants.example/press/7", "spiffe://plants.example/saw/1"


def made(name: str, chain: bytes, key: bytes) -> bytes:
    return pb(1, pb_svid(name, chain, key, bundle_of(PLANTS)))


def test_svids_with_their_keys() -> None:
    first, second = svid(authority=PLANTS.intermediate("m")), svid(SECOND)
    found = read_svids(svid_message((ID, first), (SECOND, second)))
    assert [str(one.spiffe_id) for one in found] == [ID, SECOND]
    assert found[0].credential.chain == views(first.chain)
    assert len(found[0].credential.chain) == 2
    assert "PrivateKey" not in repr(found)


def test_bundles_by_trust_domain() -> None:
    given = {"plants.example": [PLANTS, OTHER], "other.example": [OTHER], "gone.example": []}
    found = read_bundles(bundle_message(given))
    assert {name: len(each) for name, each in found.items()} == {
        "plants.example": 2,
        "other.example": 1,
        "gone.example": 0,
    }
    by_name = pb(2, pb(1, b"plants.example") + pb(2, bundle_of(PLANTS)))
    assert read_bundles(by_name) == {"plants.example": views([PLANTS.certificate])}


def test_generated_code_writes_the_same() -> None:
    """The published API by protobuf's own generator, fields that the gate skips included."""
    pb2: Any = importlib.import_module("spiffe._proto.workload_pb2")
    one = svid()
    response = pb2.X509SVIDResponse(
        svids=[
            pb2.X509SVID(
                spiffe_id=ID,
                x509_svid=chain_of(one),
                x509_svid_key=key_of(one),
                bundle=bundle_of(PLANTS),
                hint="internal",
            )
        ],
        crl=[b"a list"],
        federated_bundles={"spiffe://other.example": bundle_of(OTHER)},
    )
    [found] = read_svids(response.SerializeToString())
    assert found.credential.chain == views(one.chain)
    bundles = pb2.X509BundlesResponse(
        crl=[b"a list"], bundles={"spiffe://other.example": bundle_of(OTHER)}
    )
    assert read_bundles(bundles.SerializeToString()) == {
        "other.example": views([OTHER.certificate])
    }


#: What is no X509SVIDResponse that the gate could use, and what is said of it.
REFUSED: dict[str, tuple[Callable[[Credential], bytes], str]] = {
    "empty": (lambda one: b"", "has no X.509-SVID"),
    "only revocation lists": (lambda one: pb(2, b"x"), "has no X.509-SVID"),
    "an empty SVID": (lambda one: pb(1, b""), 'X.509-SVID "" that has no certificate'),
    "no key": (lambda one: made(ID, chain_of(one), b""), "is empty"),
    "another's key": (
        lambda one: made(ID, chain_of(one), key_of(svid())),
        "the private key is not that of the certificate",
    ),
    "a damaged key": (
        lambda one: made(ID, chain_of(one), key_of(one)[:-5]),
        "is not a private key",
    ),
    "another name": (lambda one: made(SECOND, chain_of(one), key_of(one)), f"is for {ID}"),
    "a cut chain": (lambda one: made(ID, chain_of(one)[:-1], key_of(one)), "is not in DER"),
    "bytes after it": (lambda one: made(ID, chain_of(one) + b"\0", key_of(one)), "is not in DER"),
    "no certificate": (lambda one: made(ID, b"\x30\0", key_of(one)), "does not parse"),
    "a CA": (lambda one: made(ID, chain_of(ca_svid()), key_of(ca_svid())), "is a CA"),
    "two URIs": (
        lambda one: made(ID, chain_of(two := svid(uris=[ID, SECOND])), key_of(two)),
        "has 2 URIs",
    ),
    "one bad of two": (
        lambda one: svid_message((ID, one)) + made(ID, b"\x30\0", key_of(one)),
        "does not parse",
    ),
    "no protobuf": (lambda one: b"\x0a\xff", "is no message"),
    "a length without end": (lambda one: b"\x0a" + b"\xff" * 11, "is no message"),
    "an unknown wire type": (lambda one: b"\x0b", "is no message"),
    "a name that is not UTF-8": (lambda one: pb(1, pb(1, b"\xff")), "not in UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_svids_that_are_refused(case: str) -> None:
    make, why = REFUSED[case]
    one = svid()
    with pytest.raises(CredentialError) as caught:
        read_svids(make(one))
    assert why in str(caught.value)
    assert key_of(one).hex() not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "no bundle of any trust domain"),
        (pb(2, pb(1, b"Plants!")), "is no trust domain"),
        (pb(2, pb(1, b"a.b") + pb(2, b"\x30\x80")), "is not in DER"),
        (pb(2, pb(1, b"a.b") + pb(2, chain_of(svid()))), "is no CA"),
        (pb(2, b"\x0a\x05a"), "is no message"),
    ],
)
def test_bundles_that_are_refused(message: bytes, why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        read_bundles(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (read_svids, read_bundles):
        for message in (data, pb(1, data), pb(2, data), pb(2, pb(1, b"a.b") + pb(2, data))):
            with suppress(CredentialError):
                read(message)


def test_numbers_and_fixed_sizes_are_skipped() -> None:
    """A later version of the API may have such fields."""
    others = b"\x50\x96\x01" + b"\x59" + bytes(8) + b"\x65" + bytes(4)
    assert len(read_svids(others + svid_message((ID, svid())))) == 1
    with pytest.raises(CredentialError, match="is no message"):
        read_svids(b"\x59" + bytes(7))
