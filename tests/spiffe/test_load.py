"""What a configuration may say of SPIFFE agents, and what is read of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mtlsgate.certificates.parsing import MissingCredential
from mtlsgate.config.agents import parse_agent
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.identities import wanted
from mtlsgate.load.overview import overview
from mtlsgate.spiffe.subscription import Stream
from tests.kits.pki import NOW, Site, server, site
from tests.kits.svids import AGENT, svid

OWN = f'server_certificate {{\nspiffe = "unix:{AGENT}"\n}}\n'
FILES = 'server_certificate {\npublic_key_file = "server.crt"\nprivate_key_file = "server.key"\n}\n'
SVIDS, BUNDLES = (AGENT, Stream.SVIDS), (AGENT, Stream.BUNDLES)


def rule(*more: str, domain: str = "plants.example") -> str:
    lines = "\n".join((f'spiffe_trust_domain = "{domain}"', *more))
    return f'client_certificate "mesh" {{\n{lines}\n}}\n'


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def agents_of(epoch: Epoch) -> list[str]:
    admission = epoch.servers[0].gate.context.policy.admission
    assert admission is not None
    return [f"{one.trust_domain} {one.agent}" for one in admission.rules[0].bundles]


def test_the_agent_of_the_server_delivers_the_bundle(here: Site) -> None:
    epoch = here.load(server(OWN + rule('spiffe_federated = ["other.example"]')))
    assert wanted(epoch) == {SVIDS, BUNDLES}
    assert agents_of(epoch) == [f"plants.example {AGENT}", f"other.example {AGENT}"]
    [own] = epoch.servers[0].gate.context.policy.own
    assert isinstance(own, MissingCredential)


@pytest.mark.parametrize(
    ("tls", "environ", "agent"),
    [
        (OWN + rule('spiffe_socket = "unix:/other.sock"'), {}, "/other.sock"),
        (FILES + rule(), {"SPIFFE_ENDPOINT_SOCKET": "unix:///env.sock"}, "/env.sock"),
        (OWN + rule(), {"SPIFFE_ENDPOINT_SOCKET": "unix:///env.sock"}, AGENT),
    ],
)
def test_where_the_agent_of_a_rule_is(
    here: Site, tls: str, environ: Mapping[str, str], agent: str
) -> None:
    assert agents_of(here.load(server(tls), environ=environ)) == [f"plants.example {agent}"]


def test_all_else_of_a_rule_works_with_it(here: Site) -> None:
    more = (
        'allow {\nspiffe_ids = ["spiffe://plants.example/press/*"]\n}',
        'leaf_certificate_file = "client.crt"',
        "max_depth = 1",
        'crl_url = "https://plants.example/list.crl"',
    )
    epoch = here.load(server(FILES + rule(f'spiffe_socket = "unix:{AGENT}"', *more)))
    admission = epoch.servers[0].gate.context.policy.admission
    assert admission is not None
    [read] = admission.rules
    assert read.demands_ca
    assert len(read.pins) == 1
    assert read.max_depth == 1
    assert read.revocation is not None


def test_nothing_is_warned_of_that_only_a_running_gate_can_know(here: Site) -> None:
    """To check a configuration, no agent is asked."""
    text = server(OWN + rule())
    assert here.warnings(text) == []
    lines = "\n".join(overview(here.load(text), NOW))
    assert f"the agent at {AGENT} delivers it" in lines
    assert "rule mesh (trust domain plants.example)" in lines


def test_a_pin_that_no_workload_can_be_is_warned_of(here: Site) -> None:
    [warning] = here.warnings(server(OWN + rule('leaf_certificate_file = "client.crt"')))
    assert "can never be admitted: it has no URI among its names" in warning
    here.write("other.crt", svid("spiffe://other.example/x", now=NOW).pem)
    [warning] = here.warnings(server(OWN + rule('leaf_certificate_file = "other.crt"')))
    assert "spiffe://other.example/x is in another trust domain" in warning
    here.write("press.crt", svid(now=NOW).pem)
    assert here.warnings(server(OWN + rule('leaf_certificate_file = "press.crt"'))) == []


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        (FILES + rule(), "no agent delivers the trust domain's bundle: set spiffe_socket"),
        (OWN + rule(domain="Plants"), 'spiffe_trust_domain: "Plants" is no trust domain'),
        (OWN + rule('spiffe_federated = ["a b"]'), 'spiffe_federated: "a b" is no trust domain'),
        (
            OWN + rule('ca_certificate_file = "root.crt"'),
            "ca_certificate_file and spiffe_trust_domain are mutually exclusive",
        ),
        (
            OWN + 'client_certificate {\nca_certificate_file = "root.crt"\n'
            'spiffe_federated = ["a.b"]\n}',
            "spiffe_federated needs spiffe_trust_domain",
        ),
        (
            'server_certificate {\nspiffe = "unix:/a"\npublic_key_file = "server.crt"\n}' + rule(),
            "public_key_file and spiffe are mutually exclusive",
        ),
        (
            'server_certificate {\nspiffe = "unix:/a"\nocsp_stapling = true\n}' + rule(),
            "ocsp_stapling has no effect with spiffe",
        ),
        (
            'server_certificate {\nspiffe = "unix:/a"\nspiffe_id = "spiffe://a.b"\n}' + rule(),
            'spiffe_id: "spiffe://a.b" names a trust domain',
        ),
        ("server_certificate {\n}" + rule(), "public_key or public_key_file is missing"),
        (
            OWN + 'server_certificate {\nspiffe = "unix:/b"\n}' + rule(),
            "the server has several agents: set spiffe_socket to one of them",
        ),
    ],
)
def test_mistakes_are_told_with_the_remedy(here: Site, tls: str, problem: str) -> None:
    problems = here.problems(server(tls.replace("}client", "}\nclient")))
    assert any(problem in one for one in problems), problems


def test_a_wrong_environment_is_told(here: Site) -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": "tcp://127.0.0.1:1"}
    [problem] = here.problems(server(FILES + rule()), environ=environ)
    assert "the environment variable SPIFFE_ENDPOINT_SOCKET is a TCP address" in problem


@pytest.mark.parametrize("text", ["unix:/a/b.sock", "unix:///a/b.sock"])
def test_two_ways_to_write_a_socket(text: str) -> None:
    assert parse_agent(text) == "/a/b.sock"


@pytest.mark.parametrize(
    "text",
    ["", "/a", "unix:a", "unix://host/a", "unix:/a?b", "unix:" + "/a" * 54, "http:/a", "unix:"],
)
def test_what_is_no_socket(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        parse_agent(text)
