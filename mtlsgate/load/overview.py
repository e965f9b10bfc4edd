"""
Describes what a configuration does, in words and as a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from mtlsgate.admission import Rule
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.parsing import MissingCredential
from mtlsgate.config.urls import parse_url
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.servers import LoadedServer
from mtlsgate.spiffe.agents import SvidSource
from mtlsgate.spiffe.subscription import Stream
from mtlsgate.text import printable
from mtlsgate.tls.server import TlsPolicy

#: How many CAs a line names; the others are counted.
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
        f"{server.gate.name}: listening on {', '.join(where)}; {_before_tls(server)}{rules}; "
        f"protocol {server.model.protocol.name}"
    )


def describe_client(client: LoadedClient, where: Iterable[str]) -> str:
    """
    :param where: the addresses it listens on.
    :returns: what a client gate does, in one line.
    """
    gate = client.gate
    leaf, source = gate.tls.credential, gate.tls.own_source
    shown = "no certificate" if leaf is None else leaf.chain[0].subject.rfc4514_string()
    if source is not None:
        shown = f"the agent at {source.agent} says"
    names = " or ".join(target.text for target in gate.targets)
    return printable(
        f"{gate.name}: listening on {', '.join(where)}; client gate in plaintext; "
        f"connects to {names} as {shown}"
    )


def _before_tls(server: LoadedServer) -> str:
    """:returns: what comes before TLS, in words."""
    said = ""
    if server.proxies is not None:
        networks = " or ".join(map(str, server.proxies.networks)) or "its unix socket"
        said += f"for clients of proxies at {networks}; "
    if server.model.starttls is not None:
        said += f"TLS by STARTTLS as in {server.model.starttls}; "
    return said


def describe_rule(rule: Rule) -> str:
    """:returns: a rule's label and what it requires, in one line."""
    demands = [f"trust domain {one.trust_domain}" for one in rule.bundles]
    authorities = () if rule.bundles else rule.authorities
    names = [printable(one.subject.rfc4514_string()) for one in authorities[:_NAMED]]
    if len(authorities) > _NAMED:
        names.append(f"{len(authorities) - _NAMED} more")
    if names:
        demands.append(f"CA {' or '.join(names)}")
    if rule.pins:
        demands.append(f"{len(rule.pins)} pin{'s' if len(rule.pins) > 1 else ''}")
    demands += [word for word, blocks in (("allow", rule.allow), ("deny", rule.deny)) if blocks]
    if rule.registry is not None:
        demands.append(f"registry {printable(rule.registry.label)}")
    if rule.max_depth is not None:
        demands.append(f"at most {rule.max_depth} intermediates")
    if rule.revocation is not None:
        demands.append("revocation")
    return f"rule {printable(rule.name)} ({', '.join(demands)})"


def overview(epoch: Epoch, now: datetime) -> Iterator[str]:
    """:returns: what the gate would do, in lines: servers, addresses, rules, CAs
    and pins."""
    heading = ("what", "subject", "days left", "SHA-256")
    for server in epoch.servers:
        yield describe(server, [host.text for host in server.hosts])
        yield from _table(heading, list(_rows(server.gate.context.policy, now)))
    for client in epoch.clients:
        yield describe_client(client, [host.text for host in client.hosts])
        yield from _table(heading, list(_rows_of_client(client, now)))
    if epoch.admin is not None:
        yield printable(f"admin endpoint at {epoch.admin}")


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()


def _rows(policy: TlsPolicy, now: datetime) -> Iterator[tuple[str, ...]]:
    """:returns: everything that expires, in file order."""

    for own in policy.own:
        if isinstance(own.source, SvidSource):
            yield (
                "server certificate",
                printable(f"the agent at {own.source.agent} delivers it"),
                "",
                "",
            )
        elif isinstance(own, MissingCredential):
            yield "server certificate", f"none yet: {printable(own.why)}", "", ""
        else:
            yield _row("server certificate", own.chain[0], now)
    for rule in policy.admission.rules if policy.admission else ():
        name = f"rule {printable(rule.name)}"
        for bundle in rule.bundles:
            said = f"the agent at {bundle.agent} delivers those of {bundle.trust_domain}"
            yield f"{name}: CAs", printable(said), "", ""
        for authority in () if rule.bundles else rule.authorities:
            yield _row(f"{name}: CA", authority, now)
        for pin in rule.pins:
            pinned = "" if pin.name is None else f" {printable(pin.name)}"
            yield _row(f"{name}: pin{pinned}", pin.certificate, now, pin.retire_after)
        lists = rule.revocation
        for url, fetched in () if lists is None else lists.fetched.items():
            if not fetched:
                yield f"{name}: CRL", f"nothing fetched yet from {parse_url(url)}", "", ""
        for one in () if lists is None else lists.lists:
            if lists is not None and not lists.is_superseded(one, now):
                days = (one.next_update - now).days
                yield f"{name}: CRL", printable(one.issuer.rfc4514_string()), str(days), ""


def _rows_of_client(client: LoadedClient, now: datetime) -> Iterator[tuple[str, ...]]:
    """:returns: everything of a client gate that expires."""
    tls = client.gate.tls
    for agent, stream in tls.wanted:
        what, it = (
            ("client certificate", "it") if stream is Stream.SVIDS else ("target's CAs", "them")
        )
        yield what, printable(f"the agent at {agent} delivers {it}"), "", ""
    if tls.credential is not None:
        yield _row("client certificate", tls.credential.chain[0], now)
    for authority in tls.anchors or ():
        yield _row("target's CA", authority, now)
    for pin in tls.pins:
        yield _row("target's pin", pin, now)


def _row(
    what: str, one: Certificate, now: datetime, end: datetime | None = None
) -> tuple[str, ...]:
    days = (min(end or one.not_after, one.not_after) - now).days
    return what, printable(one.subject.rfc4514_string()), str(days), one.sha256.hex()
