"""
Who gets in: pure decisions on certificate paths.

A path that OpenSSL verified goes in, a verdict comes out.  Nothing here imports
sockets, files or OpenSSL.  What OpenSSL has checked (signatures, path building,
constraints) is not checked again; what is checked here can only reject.

`AdmissionPolicy.judge` in `mtlsgate.admission.policy` is where to begin.
"""

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
    "authorities_of",
    "lone_pins_of",
]
