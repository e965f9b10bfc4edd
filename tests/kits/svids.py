"""X.509-SVIDs and bundles of two trust domains, for tests."""

from __future__ import annotations

from typing import Any

from cryptography import x509

from mtlsgate.admission import Rule
from mtlsgate.admission.bundles import Bundle
from mtlsgate.certificates.certificate import views
from mtlsgate.certificates.development_ca import key_usage
from mtlsgate.testing import Authority, Credential

#: The socket of the agent that rules name.
AGENT = "/run/spire/agent.sock"

PLANTS, OTHER = Authority.create("plants"), Authority.create("other")

#: A CA that may sign revocation lists, as a leaf must not.
SIGNS: Any = {"extra_extensions": [(key_usage("digital_signature", "crl_sign"), True)]}


def svid(
    uri: str = "spiffe://plants.example/press/7", authority: Authority = PLANTS, **options: Any
) -> Credential:
    """:returns: an X.509-SVID, as SPIRE issues them: without a common name."""
    usages = ("server_auth", "client_auth")
    return authority.issue(None, **{"uris": [uri], "usages": usages} | options)


def bundle(trust_domain: str, *authorities: Authority) -> Bundle:
    """:returns: what an agent has delivered of a trust domain."""
    return Bundle(trust_domain, AGENT, views(one.certificate for one in authorities))


def mesh(*bundles: Bundle, **options: Any) -> Rule:
    """:returns: a rule that admits the workloads of trust domains."""
    return Rule("mesh", **options).with_bundles(bundles)


def ca_svid() -> Credential:
    """:returns: a CA with the SPIFFE ID of a workload."""
    made = PLANTS.intermediate(
        "sly",
        extra_extensions=[
            (key_usage("digital_signature", "key_cert_sign"), True),
            (
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier("spiffe://plants.example/press/7")]
                ),
                False,
            ),
        ],
    )
    return Credential(made.certificate, made.private_key)
