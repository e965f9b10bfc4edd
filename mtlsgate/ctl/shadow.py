"""
What ``mtlsgate ctl shadow`` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mtlsgate.ctl.fitting import Column, FittingText
from mtlsgate.ctl.printing import table, text
from mtlsgate.ctl.words import counted, moment

#: One of the gate's JSON objects.
Facts = Mapping[str, Any]

#: How many clients of each kind are listed; ``--json`` has all that the gate remembers.
_LISTED = 20
_NOTHING = "nothing is in the shadow"
_TITLES = {
    "would_be_out": "Who would be out:",
    "would_be_in": "Who would be in:",
    "other_server": "Who would reach another server:",
    "other_rule": "Who would be admitted by another rule:",
}
_NOT_JUDGED = {
    "not_asked": "only an authorizer, which is not asked, or a silent registry could tell",
    "not_fetched": "it depends on a revocation list or bundle that is not asked for by the shadow",
    "busy": "too many clients waited to be judged",
    "internal_error": "judging them failed: see the gate's log",
}


def put(facts: Facts) -> RenderableType:
    """:returns: what came of putting a configuration in the shadow."""
    if not facts["succeeded"]:
        problems = counted(len(facts["problems"]), "problem")
        return FittingText(text(f"{problems}: nothing has changed"))
    lines = [text(one) for one in facts["changes"]] or [text("it changes nothing for clients")]
    lines.append(text(f"{facts['file']} is in the shadow: it judges every client from now on"))
    return FittingText(Text("\n").join(lines))


def ended(facts: Facts) -> RenderableType:
    """:returns: whether something was in the shadow."""
    return text("nothing is in the shadow any more" if facts["ended"] else _NOTHING)


def status(facts: Facts | None) -> RenderableType:
    """:returns: what is in the shadow."""
    if facts is None:
        return text(_NOTHING)
    return FittingText(Text("\n").join(lines_of(facts["status"])))


def lines_of(facts: Facts) -> list[Text]:
    """
    :param facts: a status of the shadow.
    :returns: the same in lines.
    """
    by = "settings" if facts["set_by"] == "settings" else "ctl shadow"
    if facts["problems"]:
        first = text(f"{facts['file']}, named by {by}, judges nobody:", "bold red")
        return [first, *(text(f"  {one}", "red") for one in facts["problems"])]
    lines = [
        text(
            f"{facts['file']} is in the shadow, by {by}, since {moment(facts['since'])}: "
            f"{counted(facts['handshakes'], 'handshake')} judged"
        )
    ]
    if facts["would_be_out"] or facts["would_be_in"] or facts["not_judged"]:
        lines.append(
            text(
                f"would be out: {facts['would_be_out']}; would be in: {facts['would_be_in']}; "
                f"not judged: {facts['not_judged']} (ctl shadow report)"
            )
        )
    return lines


def report(facts: Facts | None, *, wide: bool = False) -> RenderableType:
    """:returns: what a person needs before putting the file in place."""
    if facts is None or facts["status"]["problems"]:
        return status(facts)
    return Group(*_parts(facts, wide=wide))


def _parts(facts: Facts, *, wide: bool) -> Iterator[RenderableType]:
    yield FittingText(Text("\n").join(_head(facts)))
    for title, lines in (
        ("What it would change:", facts["changes"]),
        ("Of the connected clients:", list(_of_reload(facts))),
    ):
        yield from _listed(title, lines)
    for outcome, title in _TITLES.items():
        yield from _clients(outcome, title, facts, wide=wide)
    unused = [_rule(one) for one in facts["uses"] if not one["count"]]
    yield from _listed("Nobody has used so far:", unused)
    yield from _listed("Not judged:", [*_not_judged(facts), *facts["not_counted"]])


def _head(facts: Facts) -> list[Text]:
    told = facts["status"]
    by = "settings" if told["set_by"] == "settings" else "ctl shadow"
    more = "more than " if facts["is_identities_full"] else ""
    lines = [
        text(f"{told['file']}, in the shadow by {by} since {moment(told['since'])}"),
        text(
            f"{counted(told['handshakes'], 'handshake')} and "
            f"{counted(facts['live'], 'connected client')} judged, of {more}"
            f"{facts['identities']} different clients"
        ),
    ]
    if not facts["changes"]:
        lines.append(text("no difference from the configuration in force", "bold"))
    if facts["waiting"]:
        lines.append(text(f"{counted(facts['waiting'], 'client')} not judged yet", "yellow"))
    if not any(one["outcome"] in _TITLES for one in facts["counts"]):
        lines.append(text("nobody would notice so far", "bold green"))
    return lines


def _of_reload(facts: Facts) -> Iterator[str]:
    if facts["closed"]:
        yield f"a reload would close {counted(facts['closed'], 'connection')}"
    if facts["kept"]:
        kept = counted(facts["kept"], "connection")
        yield f"it would keep {kept} of clients that are rejected when they come again"


def _clients(outcome: str, title: str, facts: Facts, *, wide: bool) -> Iterator[RenderableType]:
    found = [one for one in facts["clients"] if one["outcome"] == outcome]
    verdicts = sum(one["count"] for one in facts["counts"] if one["outcome"] == outcome)
    if not verdicts:
        return
    most = len(found) if wide else _LISTED
    yield Text()
    yield text(f"{title} {counted(verdicts, 'verdict')}", "bold")
    groups = [text(f"  {one}") for one in _groups(outcome, facts)]
    if len(groups) > 1:
        yield FittingText(Text("\n").join(groups))
    columns = (
        Column("client"),
        Column("address", rank=4),
        Column("server", rank=5),
        Column("now"),
        Column("then"),
        Column("times", is_right=True, rank=3),
        Column("connected", is_right=True, rank=2),
        Column("last", rank=6),
    )
    rows = [
        (
            one["subject"] or "(no certificate)",
            one["address"],
            one["server"],
            one["reason"] or _rule_words(one["rule"]),
            _then(one),
            one["count"],
            one["connected"] or None,
            moment(one["last"]),
        )
        for one in found[:most]
    ]
    yield table(columns, rows, "shadow report")
    shown = sum(one["count"] for one in found[:most])
    if shown < verdicts:
        yield text(f"and {counted(verdicts - shown, 'verdict')} on others, or earlier ones")


def _groups(outcome: str, facts: Facts) -> Iterator[str]:
    """:returns: the verdicts by rule and reason, the most frequent first."""
    for one in facts["counts"]:
        if one["outcome"] == outcome and one["reason"]:
            if outcome == "would_be_in":
                why = f"now {one['reason']}, then {_rule_words(one['rule'] or None)}"
            else:
                why = f"now {_rule_words(one['rule'] or None)}, then {one['reason']}"
            yield f"{one['count']} of server {one['server']}: {why}"


def _then(client: Facts) -> str:
    if client["reason_then"]:
        return str(client["reason_then"])
    words = _rule_words(client["rule_then"])
    is_other = client["server_then"] != client["server"]
    return f"server {client['server_then']}, {words}" if is_other else words


def _rule_words(rule: str | None) -> str:
    return "no certificate asked for" if rule is None else f"rule {rule}"


def _rule(use: Facts) -> str:
    rule = f", rule {use['rule']}" if use["rule"] else ""
    return f"server {use['server']}{rule}"


def _not_judged(facts: Facts) -> Iterator[str]:
    for reason, words in _NOT_JUDGED.items():
        count = sum(
            one["count"]
            for one in facts["counts"]
            if (one["outcome"], one["reason"]) == ("not_judged", reason)
        )
        if count:
            yield f"{counted(count, 'client')}: {words}"


def _listed(title: str, lines: Iterable[str]) -> Iterator[RenderableType]:
    found = [text(f"  {line}") for line in lines]
    if found:
        yield Text()
        yield text(title, "bold")
        yield FittingText(Text("\n").join(found))
