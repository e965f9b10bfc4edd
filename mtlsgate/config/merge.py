"""
Several trees to one, as Couper merges configuration files.

Later attributes replace earlier ones of the same name.  Blocks with a label are merged
with, or replace, those of the same label.  ``deny`` is the exception: it adds up, so that
no later file lets somebody in whom an earlier one keeps out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import evolve

from mtlsgate.config.tree import Attribute, Block, Body, Literal, ObjectExpression

#: What becomes of blocks of one type: those so far and those of the next file.
_Rule: TypeAlias = "Callable[[list[Block], list[Block]], list[Block]]"


def merged(bodies: Sequence[Body]) -> Body:
    """
    :param bodies: of whole files, in order.
    :returns: one for all of them.
    """
    result = bodies[0]
    for body in bodies[1:]:
        result = _merge(result, body, _OF_FILE)
    return result


def _merge(
    earlier: Body,
    later: Body,
    rules: dict[str, _Rule],
    combine: Callable[[Attribute, Attribute], Attribute] = lambda _, later: later,
) -> Body:
    attributes = {one.name: one for one in earlier.attributes}
    for one in later.attributes:
        before = attributes.get(one.name)
        attributes[one.name] = one if before is None else combine(before, one)
    blocks = list(earlier.blocks)
    for name in dict.fromkeys(block.type for block in later.blocks):
        added = [block for block in later.blocks if block.type == name]
        before_blocks = [block for block in blocks if block.type == name]
        after = rules.get(name, _add)(before_blocks, added)
        if not before_blocks:
            blocks += after
            continue
        # At the place of the first, so that the order of the rules stays.
        at = blocks.index(before_blocks[0])
        rest = [block for block in blocks if block.type != name]
        blocks = [*rest[:at], *after, *rest[at:]]
    faults = (*earlier.faults, *later.faults)
    return Body(tuple(attributes.values()), tuple(blocks), faults)


def _add(earlier: list[Block], later: list[Block]) -> list[Block]:
    return earlier + later


def _replace(_: list[Block], later: list[Block]) -> list[Block]:
    return later


def _labelled(earlier: list[Block], later: list[Block]) -> list[Block]:
    """Those with a label replace those of the same label; those without, all without."""
    by_label = {block.labels: block for block in later if block.labels}
    unlabelled = [block for block in later if not block.labels]
    kept = [
        by_label.pop(block.labels, block) for block in earlier if block.labels or not unlabelled
    ]
    # What replaced one stands in its place; what is new follows.
    return [*kept, *unlabelled, *by_label.values()]


def _inner(rules: dict[str, _Rule]) -> _Rule:
    """:returns: the rule for blocks that are merged with those of the same label."""

    def rule(earlier: list[Block], later: list[Block]) -> list[Block]:
        found = list(earlier)
        for block in later:
            same = [number for number, one in enumerate(found) if one.labels == block.labels]
            if len(same) == 1 and sum(one.labels == block.labels for one in later) == 1:
                before = found[same[0]]
                body = _merge(before.body, block.body, rules, _variables)
                found[same[0]] = evolve(before, body=body)
            else:
                found.append(_ambiguous(block) if same and not block.labels else block)
        return found

    return rule


def _ambiguous(block: Block) -> Block:
    """Several blocks without a label cannot be told apart."""
    text = f"give each {block.type} a label: without one, files cannot be merged"
    return evolve(block, body=evolve(block.body, faults=(*block.body.faults, (block.at, text))))


def _variables(earlier: Attribute, later: Attribute) -> Attribute:
    """Of ``environment_variables`` each variable is replaced by itself."""
    match earlier.expression, later.expression:
        case ObjectExpression(items=before), ObjectExpression(items=after, at=at) if (
            later.name == "environment_variables"
        ):
            names = {key.value for key, _ in after if isinstance(key, Literal)}
            kept = [
                (key, value)
                for key, value in before
                if not isinstance(key, Literal) or key.value not in names
            ]
            return evolve(later, expression=ObjectExpression((*kept, *after), at))
        case _:
            return later


_OF_TLS: dict[str, _Rule] = {
    "client_certificate": _labelled,
    "server_certificate": _labelled,
    "deny": _add,
}
_OF_SERVER: dict[str, _Rule] = {"protocol": _replace, "tls": _inner(_OF_TLS)}
_OF_FILE: dict[str, _Rule] = {
    "admin": _replace,
    "defaults": _inner({}),
    "client": _inner({"tls": _inner({})}),
    "registry": _inner({}),
    "server": _inner(_OF_SERVER),
    "settings": _inner({"audit": _replace}),
}


def in_environment(body: Body, name: str) -> tuple[Body, list[Block]]:
    """
    Put the content of each ``environment`` block that has the name as a label in the
    place of the block, and remove the others.

    :returns: the body without them, and the blocks that were found.
    """
    found: list[Block] = []
    attributes = {one.name: one for one in body.attributes}
    blocks: list[Block] = []
    faults = list(body.faults)
    for block in body.blocks:
        if block.type != "environment":
            blocks.append(block)
            continue
        found.append(block)
        if not block.labels:
            faults.append((block.at, "environment needs the name of one, or several, as labels"))
        elif name in block.labels:
            attributes |= {one.name: one for one in block.body.attributes}
            blocks += block.body.blocks
            faults += block.body.faults
    inside: list[Block] = []
    for block in blocks:
        inner, others = in_environment(block.body, name)
        found += others
        inside.append(evolve(block, body=inner))
    faults += [
        (block.at, f"{block.type} is an attribute and a block; remove one")
        for block in inside
        if block.type in attributes and found
    ]
    return Body(tuple(attributes.values()), tuple(inside), tuple(faults)), found
