"""
``mtlsgate probe``: tests from the client's side whether a gate admits a client.

`probe` in `mtlsgate.probe.client` is where to begin.  What it comes back with
is an `Outcome`, which `describe` puts into words and `to_dict` into JSON.
"""

from mtlsgate.certificates.server_identity import name_problem
from mtlsgate.probe.arguments import (
    ProbeError,
    load_identity,
    load_trust,
    parse_target,
    read_passphrase,
)
from mtlsgate.probe.client import probe
from mtlsgate.probe.document import to_dict
from mtlsgate.probe.outcome import (
    CertificateFacts,
    Ending,
    Outcome,
    PathProblem,
    ProbeStage,
    ProbeTarget,
    Verdict,
)
from mtlsgate.probe.words import ALERTS, alert_name, describe, problem_text

__all__ = [
    "ALERTS",
    "CertificateFacts",
    "Ending",
    "Outcome",
    "PathProblem",
    "ProbeError",
    "ProbeStage",
    "ProbeTarget",
    "Verdict",
    "alert_name",
    "describe",
    "load_identity",
    "load_trust",
    "name_problem",
    "parse_target",
    "probe",
    "problem_text",
    "read_passphrase",
    "to_dict",
]
