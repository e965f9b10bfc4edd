"""
Who is let in: pure decisions on certificate paths.

A path that OpenSSL verified comes in, a verdict goes out.  Nothing here knows
of sockets, files or OpenSSL; what OpenSSL has checked already (signatures,
path building, constraints) is not done again, and what is checked here can
only reject further.

`AdmissionPolicy.judge` in `mtlsgate.admission.policy` is where to begin.
"""

from mtlsgate.admission.facts import allows_client_authentication
from mtlsgate.admission.policy import AdmissionPolicy
from mtlsgate.admission.rules import Admitted, Pin, Rule, authorities_of, lone_pins_of
from mtlsgate.admission.verdicts import Path, Rejection

__all__ = [
    "AdmissionPolicy",
    "Admitted",
    "Path",
    "Pin",
    "Rejection",
    "Rule",
    "allows_client_authentication",
    "authorities_of",
    "lone_pins_of",
]
