"""
The manifests under contrib/kubernetes: what Kubernetes takes, and what the gate does in them.
"""

from __future__ import annotations

import copy
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cryptography import x509

from mtlsgate.load.epoch import Epoch
from mtlsgate.load.loading import load
from mtlsgate.testing import Authority, Credential
from tests.kits.contrib import CONTRIB, Volume, parses
from tests.kits.programs import RunningGate, gate, program, run

KUBERNETES = CONTRIB / "kubernetes"
pytestmark = pytest.mark.skipif(not CONTRIB.is_dir(), reason="installed without contrib")

#: The oldest that has every field that is used, and the newest of which there are schemas.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
#: Kinds that other projects define, and what they say of them.
CRDS = {
    "Certificate": Path(__file__).parent / "crds" / "certificate.json",
    "PodMonitor": Path(__file__).parent / "crds" / "podmonitor.json",
}
SETS = ("gate", "sidecar", "fleet")


def manifests(directory: Path = KUBERNETES) -> list[Any]:
    """:returns: all manifests of a directory and of those below."""
    return [
        one
        for path in sorted(directory.rglob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
    ]


def name_of(manifest: Any) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def the(kind: str, name: str, directory: Path = KUBERNETES) -> Any:
    """:returns: the one manifest of that kind and name."""
    (found,) = (
        one
        for one in manifests(directory)
        if (one["kind"], one["metadata"]["name"]) == (kind, name)
    )
    return found


def deployment(of: str) -> Any:
    (found,) = (one for one in manifests(KUBERNETES / of) if one["kind"] == "Deployment")
    return found


def gate_of(deployed: Any) -> Any:
    """:returns: the container that the gate runs in."""
    (found,) = (one for one in pod_of(deployed)["containers"] if one["name"] == "gate")
    return found


def pod_of(deployed: Any) -> Any:
    return deployed["spec"]["template"]["spec"]


# What Kubernetes takes


def objection(manifest: Any, version: str) -> str | None:
    """:returns: why a cluster would not take it, or None."""
    try:
        if manifest["kind"] in CRDS:
            jsonschema.validate(manifest, json.loads(CRDS[manifest["kind"]].read_text()))
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error.message)
    return None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", manifests(), ids=name_of)
def test_kubernetes_takes_them(manifest: Any, version: str) -> None:
    """Each manifest satisfies the schema of its kind: no unknown field, none missing."""
    assert objection(manifest, version) is None


@pytest.mark.parametrize("kind", ["Deployment", "NetworkPolicy", "Certificate", "PodMonitor"])
def test_a_misspelt_field_would_be_found(kind: str) -> None:
    """The schemas are strict: the tests above can fail."""
    manifest = copy.deepcopy(next(one for one in manifests() if one["kind"] == kind))
    manifest["spec"]["misspelt"] = True
    said = objection(manifest, VERSIONS[-1])
    assert said is not None
    assert "misspelt" in said


# What belongs together


@pytest.mark.parametrize("of", SETS)
def test_probes_are_commands_that_there_are(of: str) -> None:
    """All probes ask the socket that the configuration names, in the time that they have."""
    container = gate_of(deployment(of))
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]
        words = probe["exec"]["command"]
        assert parses(words)
        assert words[-1] == "/run/mtlsgate/gate.sock"
        assert f'listen = "unix:{words[-1]}"' in configuration(of)
        # More than the three seconds that mtlsgate ctl waits.
        assert probe["timeoutSeconds"] > 3
    assert "ready" in container["readinessProbe"]["exec"]["command"]
    # A gate that drains is not restarted.
    assert "health" in container["livenessProbe"]["exec"]["command"]


@pytest.mark.parametrize("of", SETS)
def test_a_pod_has_time_to_drain(of: str, tmp_path: Path) -> None:
    """What Kubernetes waits is longer than the pre-stop hook and drain_timeout together."""
    deployed = deployment(of)
    pod = pod_of(deployed)
    drained = gate_of(deployed)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drained += mounted(of, tmp_path).load().settings.drain_timeout
    assert pod["terminationGracePeriodSeconds"] > drained
    for container in pod["containers"]:
        if container["name"] != "gate":
            # The application behind it ends after the gate.
            waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > waits >= drained


@pytest.mark.parametrize("of", SETS)
def test_the_gate_has_no_rights(of: str) -> None:
    """It runs as nobody, on a root that it cannot write."""
    pod, container = pod_of(deployment(of)), gate_of(deployment(of))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    # An update never reaches what is mounted by subPath.
    assert not [one for one in container["volumeMounts"] if "subPath" in one]


@pytest.mark.parametrize("of", SETS)
def test_selectors_find_the_pods(of: str) -> None:
    """Services, policies and budgets select pods that there are, and ports that these name."""
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in map(deployment, SETS)]
    ports = {one["name"] for one in gate_of(deployment(of))["ports"]}
    seen = set()
    for manifest in manifests(KUBERNETES / of):
        spec = manifest.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        if selector:
            seen.add(manifest["kind"])
            assert selector.get("matchLabels", selector) in labels
        for port in spec.get("ports", []):
            assert port["targetPort"] in ports
    assert {"Deployment", "Service", "NetworkPolicy"} <= seen


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    """It reads the certificate as cert-manager writes it, and checks a port that the gates have,
    for a path and by a name that these have."""
    authority = Authority.create("Internal")
    own = authority.issue("haproxy")
    for file, content in (
        ("tls.crt", own.pem),
        ("tls.key", own.key_pem),
        ("ca.crt", authority.pem),
    ):
        (tmp_path / file).write_bytes(content)
    (mount,) = (
        one["mountPath"]
        for one in pod_of(deployment("haproxy"))["containers"][0]["volumeMounts"]
        if one["name"] == "tls"
    )
    text = the("ConfigMap", "mtlsgate-haproxy")["data"]["haproxy.cfg"]
    (tmp_path / "haproxy.cfg").write_text(text.replace(mount, str(tmp_path)))
    status, output = run(program("haproxy"), "-c", "-f", tmp_path / "haproxy.cfg")
    assert status == 0, output
    assert "WARNING" not in output
    assert f"check port {the('Service', 'mtlsgate-pods')['spec']['ports'][1]['port']} " in text
    assert 'routes = ["/readyz", ' in configuration("fleet")
    (name,) = re.findall(r"verifyhost (\S+)", text)
    assert name in the("Certificate", "mtlsgate-server")["spec"]["dnsNames"]


def test_redis_lets_in_who_has_to(tmp_path: Path) -> None:
    """The gates and the Sentinels come to Redis; the gates are named as their pods are."""
    for store in ("mtlsgate-redis", "mtlsgate-sentinel"):
        (rule,) = the("NetworkPolicy", store)["spec"]["ingress"]
        (expression,) = rule["from"][0]["podSelector"]["matchExpressions"]
        pods = deployment("fleet")["spec"]["template"]["metadata"]["labels"]
        assert pods[expression["key"]] in expression["values"]
    (host,) = re.findall(r"redis\+sentinel://([^./]+)\.", configuration("fleet"))
    assert the("Service", host)["spec"]["ports"][0]["port"] == 26379


def test_prometheus_finds_the_metrics(tmp_path: Path) -> None:
    """The port, the path and the name that it verifies are those of the gate."""
    (endpoint,) = the("PodMonitor", "mtlsgate")["spec"]["podMetricsEndpoints"]
    ports = {one["name"]: one["containerPort"] for one in gate_of(deployment("gate"))["ports"]}
    assert f'hosts = ["*:{ports[endpoint["port"]]}"]' in configuration("gate")
    assert f'routes = ["{endpoint["path"]}"]' in configuration("gate")
    names = the("Certificate", "mtlsgate-server")["spec"]["dnsNames"]
    assert endpoint["tlsConfig"]["serverName"] in names


def test_the_certificate_is_the_one_that_is_mounted() -> None:
    """cert-manager writes the secret that all deployments mount."""
    written = the("Certificate", "mtlsgate-server")["spec"]["secretName"]
    for of in SETS:
        secrets = [one["secret"] for one in pod_of(deployment(of))["volumes"] if "secret" in one]
        assert written in [one["secretName"] for one in secrets]


# What the gate does in them


def configuration(of: str) -> str:
    """:returns: the configuration of a set."""
    (found,) = (
        one["data"]["gate.hcl"]
        for one in manifests(KUBERNETES / of)
        if one["kind"] == "ConfigMap" and "gate.hcl" in one["data"]
    )
    assert isinstance(found, str)
    return found


class Mounted:
    """
    The volumes of a pod, below a directory of the test's.

    :ivar config: the configuration, whose paths lead to them.
    :ivar clients: the CA of the clients.
    :ivar volumes: by their names.
    """

    def __init__(self, of: str, root: Path) -> None:
        pod, container = pod_of(deployment(of)), gate_of(deployment(of))
        places = {one["name"]: root / one["mountPath"][1:] for one in container["volumeMounts"]}
        self.clients = Authority.create("Clients")
        self.internal = Authority.create("Internal")
        self.volumes: dict[str, Volume] = {}
        text = configuration(of)
        for place in ("/etc/mtlsgate", "/run/mtlsgate"):
            text = text.replace(place, f"{root}{place}")
        self.text = text.replace('"*:', '"127.0.0.1:').replace(":8443", ":0").replace(":9443", ":0")
        for volume in pod["volumes"]:
            path = places.pop(volume["name"])
            mode = volume.get("secret", {}).get("defaultMode", 0o644)
            if "emptyDir" in volume:
                path.mkdir(parents=True)
                path.chmod(0o2777)
            else:
                self.volumes[volume["name"]] = Volume(path, mode)
        assert not places, "mounted, but no volume"
        self.volumes["config"].update({"gate.hcl": self.text.encode()})
        self.volumes["server"].update(self.secret(self.issue()))
        self.volumes["clients"].update({"ca.crt": self.clients.pem})
        if "target" in self.volumes:
            self.volumes["target"].update({"ca.crt": self.internal.pem})
        if "redis" in self.volumes:
            self.volumes["redis"].update({"password": b"0123456789abcdef"})
        words = container["args"]
        assert parses(words)
        assert words[-2] == "--config"
        self.config = root / words[-1][1:]

    def issue(self) -> Credential:
        """:returns: what cert-manager would write next."""
        names = the("Certificate", "mtlsgate-server")["spec"]["dnsNames"]
        return self.internal.issue("gate", dns_names=names, usages=["server_auth"])

    def secret(self, credential: Credential) -> dict[str, bytes]:
        """:returns: the files of a kubernetes.io/tls secret by cert-manager."""
        return {
            "tls.crt": credential.pem,
            "tls.key": credential.key_pem,
            "ca.crt": self.internal.pem,
        }

    def load(self) -> Epoch:
        return load(str(self.config))


def mounted(of: str, root: Path) -> Mounted:
    return Mounted(of, root)


@pytest.mark.parametrize("of", SETS)
def test_the_configuration_loads_where_it_is_mounted(of: str, tmp_path: Path) -> None:
    """Every file that it names is in a volume, and nothing in it is worth a warning, but that
    Redis is spoken to in plaintext, which docs/kubernetes.md says."""
    found = [one.text for one in mounted(of, tmp_path).load().warnings]
    assert len(found) == (of == "fleet")
    assert all("in plaintext" in text for text in found)


def certificate_of(port: int) -> bytes:
    """:returns: the certificate that a server shows, as DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    with context.wrap_socket(plain) as client:
        shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return shown


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Mounted, RunningGate]]:
    """A gate on the volumes of the sidecar."""
    here = mounted("sidecar", tmp_path)
    with gate(here.config, cwd=tmp_path) as made:
        yield here, made


@pytest.mark.slow
def test_an_update_of_a_volume_takes_over(running: tuple[Mounted, RunningGate]) -> None:
    """The certificate that cert-manager renews, and a configuration that is edited, are in
    force without a restart, though the files' names are links that never change."""
    here, made = running
    credential = here.issue()
    here.volumes["server"].update(here.secret(credential))
    made.read_until("epoch 2 is in force")
    assert certificate_of(made.port("gate")) == credential.der
    edited = here.text.replace('drain_timeout = "20s"', 'drain_timeout = "1s"')
    here.volumes["config"].update({"gate.hcl": edited.encode()})
    made.read_until("epoch 3 is in force")
    # A broken update changes nothing.
    here.volumes["config"].update({"gate.hcl": b"server {"})
    made.read_until("epoch 3 stays in force")
    x509.load_der_x509_certificate(certificate_of(made.port("gate")))
