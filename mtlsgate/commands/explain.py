"""
``mtlsgate explain``: finds the server and the chain that `mtlsgate.observe.explanation`
explains.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.parsing import parse_certificates, read_file
from mtlsgate.errors import CredentialError, did_you_mean
from mtlsgate.gate.server import GateServer
from mtlsgate.load.loading import load
from mtlsgate.load.sources import ConfigPaths, names_of
from mtlsgate.observe.explanation import Explanation
from mtlsgate.reasons import Reason
from mtlsgate.text import quoted


def choose_server(paths: ConfigPaths, name: str | None) -> GateServer:
    """
    :param paths: the configuration, as for `mtlsgate.load.loading.load`.
    :param name: the server's name; None means the only server.
    :raises ConfigError: if the configuration is wrong.
    :raises ValueError: if there is no such server, or it asks for no certificate.
    """
    config = ", ".join(names_of(paths))
    servers = [one.gate for one in load(paths, offline=True).servers]
    names = ", ".join(quoted(one.name) for one in servers)
    chosen = [one for one in servers if name in (None, one.name)]
    if not chosen:
        hint = did_you_mean(name or "", [one.name for one in servers])
        raise ValueError(f"{config} has no server {quoted(name or '')}{hint}: {names}")
    if len(chosen) > 1 and name is None:
        raise ValueError(f"{config} has several servers: name one with --server: {names}")
    if len(chosen) > 1:
        raise ValueError(f"{config} has several servers {quoted(name or '')}: give them labels")
    if chosen[0].context.judge is None:
        raise ValueError(f"server {quoted(chosen[0].name)} lets in anyone: it judges nobody")
    return chosen[0]


def read_chain(files: Iterable[str]) -> tuple[Certificate, ...]:
    """
    :param files: the files, the leaf's first; PEM or DER.
    :raises ValueError: if one cannot be read or does not parse.
    """
    chain: list[Certificate] = []
    for name in files:
        try:
            chain += parse_certificates(read_file(Path(name)))
        except CredentialError as error:
            raise ValueError(f"{name}: {error}") from None
    return tuple(chain)


def unknown_here(explanation: Explanation) -> str | None:
    """:returns: why only the running gate could tell the verdict, or None if this is it."""
    verdict = explanation.verdict
    if isinstance(verdict, Rejection) and verdict.reason is Reason.BUNDLE_MISSING:
        return (
            "that cannot be told here, since no SPIFFE agent is asked: ask the running gate, at "
            "/explain of its admin endpoint"
        )
    return None
