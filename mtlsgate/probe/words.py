"""
The result of a probe in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from mtlsgate.certificates.server_identity import path_problem
from mtlsgate.probe.outcome import (
    CertificateFacts,
    Ending,
    Outcome,
    PathProblem,
    ProbeStage,
    Verdict,
)
from mtlsgate.text import printable

#: How many CAs are listed; the others are counted.
_NAMED = 10
_LABEL_WIDTH = 11

#: Alerts by number (RFC 8446, 6; RFC 5246, 7.2): the name, and the usual cause.
ALERTS = {
    10: ("unexpected_message", "the two sides do not understand each other"),
    20: ("bad_record_mac", "the data was damaged on the way"),
    22: ("record_overflow", "a record was too long"),
    40: ("handshake_failure", "the two have no cipher suite, group or signature in common"),
    42: (
        "bad_certificate",
        "the certificate is damaged, or the server's rules reject it; mtlsgate answers so when "
        "its rules reject, and its log says why",
    ),
    43: ("unsupported_certificate", "the certificate is not for TLS clients (extended key usage)"),
    44: ("certificate_revoked", "the certificate was revoked"),
    45: ("certificate_expired", "the certificate, or one above it, is outside its validity"),
    46: ("certificate_unknown", "the certificate is rejected, for no stated cause"),
    47: ("illegal_parameter", "the server took a field of the handshake for invalid"),
    48: (
        "unknown_ca",
        "the server knows no CA above the certificate, or an intermediate is missing",
    ),
    49: ("access_denied", "the certificate is valid, but not allowed in"),
    50: ("decode_error", "the server could not read a message"),
    51: ("decrypt_error", "a signature or a key exchange did not verify"),
    70: ("protocol_version", "the server does not speak a TLS version that was offered"),
    71: ("insufficient_security", "the server demands stronger cryptography than was offered"),
    80: (
        "internal_error",
        "the server broke, or its own rules reject the client and it has no better alert",
    ),
    86: ("inappropriate_fallback", "an older TLS version was offered than both can speak"),
    90: ("user_canceled", "the server gave up, for a cause of its own"),
    109: ("missing_extension", "the server misses an extension in the handshake"),
    110: ("unsupported_extension", "an extension came that nobody offered"),
    112: ("unrecognized_name", "the server knows no such server name: see --server-name"),
    115: ("unknown_psk_identity", "the server does not know the pre-shared key"),
    116: ("certificate_required", "no certificate was presented, and the server demands one"),
    120: ("no_application_protocol", "the server demands an application protocol (ALPN)"),
    121: ("ech_required", "the server demands an encrypted ClientHello"),
}

#: Alerts that servers may also send to a client without a certificate; in TLS 1.2 they must.
_ABOUT_THE_CERTIFICATE = (40, 42, 43, 44, 45, 46, 48, 49)


def describe(outcome: Outcome) -> list[str]:
    """:returns: the outcome for a terminal: a label and a text on each line."""
    return [
        printable(f"{label:<{_LABEL_WIDTH}}{text}".rstrip())
        for topic, texts in _topics(outcome)
        for label, text in zip([topic] + [""] * len(texts), texts, strict=False)
    ]


def _topics(outcome: Outcome) -> Iterator[tuple[str, list[str]]]:
    target = outcome.target
    address = "" if outcome.address in (None, target.host) else f" ({outcome.address})"
    yield "target", [f"{target}{address}"]
    if outcome.tls_version is not None:
        facts = [outcome.tls_version, outcome.cipher, outcome.group]
        yield "tls", [", ".join(one for one in facts if one)]
    if outcome.showed_certificate:
        shown = [line for one in outcome.chain for line in _shown(one, outcome.at)]
        yield "server", shown or ["a certificate that does not parse"]
        yield "verified", [_verified(outcome)]
        name, problem = target.server_name, outcome.name_problem
        yield "name", [f"{name}: {'matches' if problem is None else f'NO MATCH: {problem}'}"]
        yield "asked", _asked(outcome)
        yield "presented", _presented(outcome)
    yield outcome.verdict.value, verdict_lines(outcome)
    if outcome.verdict is Verdict.ADMITTED and outcome.is_impostor:
        yield "but", ["the server did not prove that it is the one you meant"]


def _shown(certificate: CertificateFacts, at: datetime) -> list[str]:
    subject, issuer = certificate.subject, certificate.issuer
    return [
        f"{subject}, issued by {'itself' if issuer == subject else issuer}, "
        f"{_validity(certificate, at)}",
        f"  SHA-256 {certificate.sha256}",
    ]


def _validity(certificate: CertificateFacts, at: datetime) -> str:
    if at < certificate.not_before:
        return f"NOT VALID before {certificate.not_before:%Y-%m-%d %H:%M} UTC"
    left = certificate.not_after - at
    if left < timedelta(0):
        return f"EXPIRED {_days(-left)} ago"
    return f"{_days(left)} left"


def _days(time: timedelta) -> str:
    return f"{time.days} day{'' if time.days == 1 else 's'}"


def _verified(outcome: Outcome) -> str:
    if outcome.problems is None:
        return "not verified: no --ca was given"
    if not outcome.problems:
        return "the chain leads to a CA in --ca"
    return "NOT VERIFIED: " + "; ".join(map(problem_text, outcome.problems))


def _asked(outcome: Outcome) -> list[str]:
    if outcome.asked is None:
        return ["not known: the handshake did not get so far"]
    if not outcome.asked:
        return ["for no client certificate"]
    if not outcome.ca_names:
        return ["for a client certificate, and named no CA"]
    names = list(outcome.ca_names[:_NAMED])
    if (rest := len(outcome.ca_names) - _NAMED) > 0:
        names.append(f"and {rest} more (--json has them all)")
    return ["for a client certificate issued by:", *(f"  {name}" for name in names)]


def _presented(outcome: Outcome) -> list[str]:
    if outcome.offered is None:
        return ["nothing: no --cert was given"]
    if outcome.presented:
        return _shown(outcome.offered, outcome.at)
    if outcome.asked:
        return ["nothing: the server takes no signature that the key of --cert can make"]
    return ["nothing: the server did not ask for it"]


def verdict_lines(outcome: Outcome) -> list[str]:
    """:returns: how it ended, then what that usually means."""
    when = {
        ProbeStage.HELLO: "before it showed a certificate",
        ProbeStage.HANDSHAKE: "during the handshake",
        ProbeStage.AFTER: "after the handshake",
    }.get(outcome.stage, "")
    wait, detail = f"{outcome.wait:g} s", outcome.detail
    match outcome.ending:
        case Ending.SILENCE:
            return [f"no objection within {wait}: admitted, as far as TLS tells"]
        case Ending.DATA:
            return ["the server sent data after the handshake"]
        case Ending.ALERT:
            number = outcome.alert or 0
            return [
                f"the server sent the alert {alert_name(number)} ({number}) {when}",
                f"usually: {_usually(outcome, number)}",
            ]
        case Ending.CLOSED:
            text = f"the server closed the connection {when}, in good order and without an alert"
            if outcome.stage is ProbeStage.AFTER:
                return [text, "usually: its application had nothing to say, or a limit was reached"]
            return [text]
        case Ending.CUT | Ending.RESET:
            verb = "closed" if outcome.ending is Ending.CUT else "reset"
            text = f"the server {verb} the connection {when}, without an alert"
            if outcome.stage is ProbeStage.HELLO:
                return [text, "usually: it does not speak TLS, or turned the address away"]
            return [text]
        case Ending.NOT_TLS:
            return [f"the server does not speak TLS here: {detail}"]
        case Ending.FAILED:
            return [f"TLS failed on this side: {detail}"]
        case Ending.TIMEOUT:
            what = (
                "the handshake was not done" if outcome.showed_certificate else "no answer in TLS"
            )
            return [f"{what} within {outcome.timeout:g} s"]
        case Ending.NO_CONNECTION:
            return [f"no connection: {detail}"]


def problem_text(problem: PathProblem) -> str:
    """:returns: the problem with the certificate's name; escape it before printing."""
    what = path_problem(problem.number, "--ca")
    if problem.certificate is None:
        return what
    if problem.number in (19, 20):
        return f"{what}: {problem.certificate.issuer}"
    return f"{problem.certificate.subject}: {what}" if problem.depth else what


def alert_name(number: int) -> str:
    """:returns: the alert's name in the RFCs."""
    return ALERTS[number][0] if number in ALERTS else "of an unknown kind"


def _usually(outcome: Outcome, number: int) -> str:
    if number in _ABOUT_THE_CERTIFICATE and outcome.asked and not outcome.presented:
        return ALERTS[116][1]
    return ALERTS[number][1] if number in ALERTS else "nothing is known of it"
