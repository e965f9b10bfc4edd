"""
x509-limbo's path validation cases, recast as clients that knock at a gate.

`load` reads the cases and `verdict` runs one of them: the gate is what the
loader would build from one rule on the case's CAs, the client presents the
case's leaf and intermediates, and the two shake hands in memory.
"""

from __future__ import annotations

import json
import lzma
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path as FilePath
from typing import Literal, cast

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning
from twisted.internet.task import Clock

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.certificates.development_ca import PrivateKey
from mtlsgate.certificates.parsing import parse_certificates
from mtlsgate.clock import utc_now
from mtlsgate.errors import CredentialError
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.server import GateServer
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.reasons import Reason
from mtlsgate.testing import Client, Credential, RecordingFactory
from mtlsgate.tls.server import GateContext, TlsPolicy
from tests.kits.gate import localhost, logging

Verification = Literal["strict", "compatible", "double"]


@frozen
class Case:
    """
    :ivar name: as x509-limbo calls it.
    :ivar set: ``core``, ``profile``, ``webpki``, ``crl`` or ``depth``, or one
        that is not about gates.
    :ivar succeeds: whether the client is to be admitted.
    :ivar trusted: the CAs, as PEM.
    :ivar intermediates: what the client sends along, PEM each.
    :ivar leaf: as PEM.
    :ivar key: the leaf's, as PEM; None where the case has none.
    :ivar time: what time it is; None for the present.
    :ivar max_depth: how many intermediates are allowed.
    :ivar crls: as PEM.
    """

    name: str
    set: str
    succeeds: bool
    trusted: bytes
    intermediates: tuple[bytes, ...]
    leaf: bytes
    key: bytes | None
    time: datetime | None
    max_depth: int | None
    crls: bytes


def load(path: FilePath) -> Iterator[Case]:
    """:returns: the cases of an xz-compressed file of recast x509-limbo cases."""
    with lzma.open(path) as stream:
        cases = json.load(stream)["testcases"]
    for one in cases:
        key, time = one["peer_certificate_key"], one["validation_time"]
        yield Case(
            name=one["id"],
            set=one["set"],
            succeeds=one["expected_result"] == "SUCCESS",
            trusted="".join(one["trusted_certs"]).encode(),
            intermediates=tuple(each.encode() for each in one["untrusted_intermediates"]),
            leaf=one["peer_certificate"].encode(),
            key=None if key is None else key.encode(),
            time=None if time is None else datetime.fromisoformat(time),
            max_depth=one["max_chain_depth"],
            crls="".join(one["crls"]).encode(),
        )


@frozen
class Outcome:
    """
    What became of a case.

    :ivar admitted: the client came in.
    :ivar reason: why it did not; None where there was no gate to knock at,
        because the loader refuses what it would be built from.
    :ivar detail: the particulars, in one line.
    """

    admitted: bool
    reason: Reason | None = None
    detail: str = ""


def verdict(case: Case, verification: Verification) -> Outcome:
    """Build the case's gate and let its client knock."""
    with warnings.catch_warnings():
        # Some serial numbers are not positive, which is what their cases are about.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            context = _context(case, verification)
        except CredentialError as error:
            return Outcome(False, detail=str(error))
        return _knock(case, context)


def _context(case: Case, verification: Verification) -> GateContext:
    """
    :raises CredentialError: where the loader would refuse.
    """
    strict = verification != "compatible"
    authorities = parse_certificates(case.trusted)
    if not all(one.is_ca for one in authorities):
        raise CredentialError("is not a CA (CA:FALSE)")
    revocation = Revocation(parse_crls(case.crls, strict=strict)) if case.crls else None
    policy = TlsPolicy(
        own=(localhost(),),
        admission=AdmissionPolicy(
            (Rule("limbo", authorities, max_depth=case.max_depth, revocation=revocation),)
        ),
        strict=strict,
        always_ask_twice=verification == "double",
    )
    return _LimboContext(policy, case)


def _knock(case: Case, context: GateContext) -> Outcome:
    application, clock = RecordingFactory(), Clock()
    with logging() as log:
        connections = Connections(clock, [HumanLog()])
        entrance = Entrance.of(GateServer("limbo", context, application), connections)
        client = Client(entrance, _credential(case), clock=clock)
        client.send(b"knock")
    if application.protocols:
        assert client.established
        return Outcome(True)
    assert client.disconnected
    return Outcome(False, Reason(log.only["reason"]), log.only["detail"])


def _credential(case: Case) -> Credential:
    assert case.key is not None
    return Credential(
        x509.load_pem_x509_certificate(case.leaf),
        cast(PrivateKey, load_pem_private_key(case.key, None)),
        tuple(map(x509.load_pem_x509_certificate, case.intermediates)),
    )


class _LimboContext(GateContext):
    """
    The gate's context at the time of a case.

    The gate's own clock is a parameter.  OpenSSL's is not, but each store can
    be told the time as long as no connection has used it.
    """

    def __init__(self, policy: TlsPolicy, case: Case) -> None:
        time = case.time
        super().__init__(policy, utc_now if time is None else lambda: time)
        if time is not None:
            for context in self._contexts:
                store = context.get_cert_store()
                assert store is not None
                store.set_time(time)
