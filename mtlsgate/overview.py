"""
What a configuration does, in words and as a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from cryptography import x509

from mtlsgate.admission import Rule
from mtlsgate.credentials import sha256
from mtlsgate.epoch import Epoch, LoadedServer
from mtlsgate.text import printable

#: How many CAs a line names before it counts the rest.
_NAMED = 3


def describe(server: LoadedServer, where: Iterable[str]) -> str:
    """
    :param where: the addresses it listens on.
    :returns: what the gate does for one server, in one line.
    """
    admission = server.gate.context.admission
    if admission is None:
        rules = "lets in anyone"
    else:
        rules = "admits by " + ", ".join(map(describe_rule, admission.rules))
    return printable(
        f"{server.gate.name}: listening on {', '.join(where)}; {rules}; "
        f"protocol {server.model.protocol.name}"
    )


def describe_rule(rule: Rule) -> str:
    """:returns: a rule's label and what it demands, in one line."""
    names = [printable(one.subject.rfc4514_string()) for one in rule.authorities[:_NAMED]]
    if len(rule.authorities) > _NAMED:
        names.append(f"{len(rule.authorities) - _NAMED} more")
    demands = []
    if names:
        demands.append(f"CA {' or '.join(names)}")
    if rule.pins:
        demands.append(f"{len(rule.pins)} pin{'s' if len(rule.pins) > 1 else ''}")
    return f"rule {printable(rule.name)} ({', '.join(demands)})"


def print_overview(epoch: Epoch, now: datetime) -> None:
    """Print what the gate would do: servers, addresses, rules, CAs and pins."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.file.isatty():
        # A pipe has no width: a fingerprint must stay in one piece.
        console.width = 100_000
    for server in epoch.servers:
        console.print(Text(describe(server, [host.text for host in server.hosts])))
        table = Table("what", "subject", "days left", "SHA-256", box=None, padding=(0, 2, 0, 0))
        for what, certificate in _certificates(server):
            left = (certificate.not_valid_after_utc - now).days
            subject = printable(certificate.subject.rfc4514_string())
            table.add_row(
                Text(what),
                Text(subject, overflow="fold"),
                Text(str(left), style="red" if left < 0 else ""),
                Text(sha256(certificate).hex(), overflow="fold"),
            )
        console.print(table)


def _certificates(server: LoadedServer) -> Iterator[tuple[str, x509.Certificate]]:
    policy = server.gate.context.policy
    for credential in policy.credentials:
        yield "server certificate", credential.chain[0]
    for rule in policy.admission.rules if policy.admission else ():
        for authority in rule.authorities:
            yield f"rule {printable(rule.name)}: CA", authority
        for pin in rule.pins:
            yield f"rule {printable(rule.name)}: pin", pin
