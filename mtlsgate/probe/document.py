"""
The result of a probe for programs: the JSON of ``mtlsgate probe --json``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mtlsgate.probe.outcome import CertificateFacts, Outcome
from mtlsgate.probe.words import alert_name, problem_text, verdict_lines

#: Changes when a key of `to_dict` is removed or changes its meaning, not when one is added.
JSON_VERSION = 1


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """:returns: the outcome, ready for JSON, as the documentation describes it."""
    alert, at = outcome.alert, outcome.at
    presented = outcome.offered if outcome.presented else None
    return {
        "version": JSON_VERSION,
        "host": outcome.target.host,
        "port": outcome.target.port,
        "address": outcome.address,
        "server_name": outcome.target.server_name,
        "at": at.isoformat(timespec="seconds"),
        "timeout_seconds": outcome.timeout,
        "wait_seconds": outcome.wait,
        "verdict": outcome.verdict.value,
        "exit_status": outcome.exit_status,
        "ending": outcome.ending.value,
        "stage": outcome.stage.value,
        "explanation": "; ".join(verdict_lines(outcome)),
        "alert": None if alert is None else {"number": alert, "name": alert_name(alert)},
        "tls": None
        if outcome.tls_version is None
        else {"version": outcome.tls_version, "cipher": outcome.cipher, "group": outcome.group},
        "server": {
            "chain": [_certificate(one, at) for one in outcome.chain],
            "verified": outcome.verified,
            "problems": [problem_text(one) for one in outcome.problems or ()],
            "name_matches": outcome.name_matches,
            "name_problem": outcome.name_problem,
        },
        "client": {
            "asked": outcome.asked,
            "ca_names": list(outcome.ca_names),
            "presented": None if presented is None else _certificate(presented, at),
        },
    }


def _certificate(certificate: CertificateFacts, at: datetime) -> dict[str, Any]:
    return {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "days_left": (certificate.not_after - at).days,
        "sha256": certificate.sha256,
    }
