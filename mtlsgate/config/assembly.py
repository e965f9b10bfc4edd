"""
From the files of a configuration to one tree, and what its expressions can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import evaluate
from mtlsgate.config.merge import in_environment, merged
from mtlsgate.config.model import VariableDefaults
from mtlsgate.config.scope import Scope
from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import Block, Body
from mtlsgate.config.values import ExpressionErrors
from mtlsgate.errors import Report

#: Names the environment that the gate runs in.
ENVIRONMENT = "MTLSGATE_ENVIRONMENT"


@frozen
class SourceFile:
    """
    :ivar path: as messages name it; empty where a configuration is one file.
    :ivar data: what is in it.
    """

    path: str
    data: bytes


@frozen
class Assembled:
    """
    :ivar body: the files as one.
    :ivar scope: what its expressions can reach.
    """

    body: Body
    scope: Scope


def assemble(
    files: Sequence[SourceFile],
    scope: Scope,
    report: Report,
) -> Assembled | None:
    """
    :param files: in order; what later ones say replaces what earlier ones do.
    :param scope: the environment variables, and what reads files.
    :returns: the configuration, or None if the report says what cannot be read.
    """
    parsed = [parse(file.data, report, file.path) for file in files]
    bodies = [body for body in parsed if body is not None]
    if len(bodies) != len(parsed):
        return None
    name = _environment(bodies, scope)
    chosen = [in_environment(body, name) for body in bodies]
    if not name:
        for block in (block for _, found in chosen for block in found):
            text = f"no environment is named: set {ENVIRONMENT}, or environment in settings"
            report.error(block.at, block.heading, text)
    body = merged([body for body, _ in chosen])
    environ = {**_defaults(body, scope, report), **scope.environ}
    return Assembled(body, evolve(scope, environ=environ))


def _environment(bodies: Sequence[Body], scope: Scope) -> str:
    """:returns: the name of the environment, or an empty text."""
    if given := scope.environ.get(ENVIRONMENT):
        return given
    settings = [block for body in bodies for block in body.blocks if block.type == "settings"]
    name = ""
    for attribute in (one for block in settings for one in block.body.attributes):
        if attribute.name == "environment":
            try:
                found = evaluate(attribute.expression, scope).data
            except ExpressionErrors:
                # Whoever reads the settings reports it.
                continue
            name = found if isinstance(found, str) else name
    return name


def _defaults(body: Body, scope: Scope, report: Report) -> Mapping[str, str]:
    """:returns: what environment variables are that are not set."""
    found: dict[str, str] = {}
    for block in body.blocks:
        if block.type == "defaults":
            found.update(_variables(block, scope, report))
    return found


def _variables(block: Block, scope: Scope, report: Report) -> Mapping[str, str]:
    decoder = Decoder(scope, report)
    decoded = decoder.decode(VariableDefaults, block.body, block.at, block.heading, block.labels)
    return {} if decoded is None else decoded.environment_variables
