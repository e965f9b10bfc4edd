"""
The log of the configuration in the shadow, in words.
"""

from __future__ import annotations

from pathlib import Path

from twisted.logger import Logger

from mtlsgate.gate.shadow import Outcome, ShadowVerdict
from mtlsgate.observe.event_lines import WHOLE_TEXT
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.peer import address_text
from mtlsgate.text import loggable, printable

_log = Logger("mtlsgate.shadow")


def log_verdict(verdict: ShadowVerdict, file: str) -> None:
    """
    Log another verdict on a client.

    :param file: the configuration in the shadow.
    """
    now, then, leaf = verdict.now, verdict.then, verdict.leaf
    assert then is not None
    address, name = address_text(verdict.address), printable(Path(file).name)
    words = _words(verdict)
    facts = {} if leaf is None else {"subject": loggable(subject_of(leaf))}
    facts |= {} if leaf is None else {"fingerprint": leaf.sha256.hex()}
    # As the line of the handshake shows it.
    shown = " ".join(
        f"{'sha256' if key == 'fingerprint' else key}={value}" for key, value in facts.items()
    )
    text = f"{now.server}: by {name} {address} {words}{f' [{shown}]' if shown else ''}"
    _log.info(
        WHOLE_TEXT,
        text=printable(text),
        server=now.server,
        connection=verdict.connection,
        peer_address=address,
        outcome=verdict.outcome.value,
        rule=now.rule,
        reason=None if now.rejection is None else now.rejection.reason.value,
        server_then=then.server or None,
        rule_then=then.rule,
        reason_then=None if then.rejection is None else then.rejection.reason.value,
        shadow=printable(file),
        **facts,
    )


def _words(verdict: ShadowVerdict) -> str:
    now, then = verdict.now, verdict.then
    assert then is not None
    held = "no certificate is asked for" if now.rule is None else f"rule {now.rule} admits it"
    if then.rejection is not None:
        detail = loggable(then.rejection.detail)
        return f"would be out: {then.rejection.reason.value}: {detail} (now {held})"
    would = "without a certificate" if then.rule is None else f"by rule {then.rule}"
    if now.rejection is not None:
        server = "" if now.server == then.server else f" to server {then.server}"
        return f"would be in{server} {would} (now rejected: {now.rejection.reason.value})"
    if verdict.outcome is Outcome.OTHER_SERVER:
        return f"would reach server {then.server}, {would} (now {held})"
    return f"would be admitted {would} (now {held})"
