"""
Loads the configuration in the shadow: it judges every client, too, and changes nothing.

Of its file everything is read and checked, but no application and no authorizer is built,
so that no code of a user's runs.  Nothing is bound, opened for writing or fetched: documents
that the gate would fetch count as far as they are kept already.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.logger import Logger

from mtlsgate.errors import GateError, Problem
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.event_loop import any_reactor
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.loading import Loading, no_collection
from mtlsgate.load.sources import base_directory
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.protocols import no_gate
from mtlsgate.text import shown
from mtlsgate.upstream.state import TargetStates

_log = Logger("mtlsgate.shadow")


def load_shadow(path: Path, surroundings: Surroundings) -> Shadow:
    """
    :param path: a file or directory, absolute.
    :returns: what was loaded, or what is wrong with it.
    """
    seen: dict[Path, Stamp] = {}
    # The event loop is not its choice, and nothing of it runs.
    surroundings = evolve(
        surroundings, reactor=any_reactor, gate=no_gate, target_states=TargetStates()
    )
    try:
        with no_collection():
            epoch = Loading(str(path), surroundings, seen=seen, is_shadow=True).epoch()
    except GateError as error:
        return Shadow(str(path), None, tuple(str(error).split("\n")), seen)
    except Exception as error:  # noqa: BLE001 -- it must not keep the gate from going on
        _log.failure("{path}: loading the configuration in the shadow failed", path=str(path))
        return Shadow(str(path), None, (f"{path}: loading it failed: {error!r}",), seen)
    return Shadow(str(path), epoch, seen=seen)


def with_shadow(
    epoch: Epoch,
    name: str,
    surroundings: Surroundings,
    seen: dict[Path, Stamp] | None = None,
) -> Epoch:
    """
    :param epoch: a configuration that was loaded.
    :param name: its first file or directory.
    :param seen: gets the files of the shadow that were read, too.
    :returns: the same with the shadow that its settings name, if they do.  What is wrong
        with that is a warning: it does not keep the gate from starting.
    """
    named = epoch.settings.shadow
    if named is None:
        return epoch
    path = base_directory(name, surroundings.source) / named.value
    shadow = load_shadow(path, surroundings)
    if seen is not None:
        seen.update({path: stamp for path, stamp in shadow.seen.items() if path not in seen})
    warnings = epoch.warnings
    if shadow.problems:
        more = len(shadow.problems) - 1
        text = f"shadow: no client is judged by {shown(named.value)}: {shadow.problems[0]}"
        if more:
            text += f" (and {more} more {'problem' if more == 1 else 'problems'})"
        where = named.at.path or epoch.path
        warnings = tuple(sorted({*warnings, Problem(where, named.at, "settings", text)}))
    return evolve(epoch, shadow=shadow, warnings=warnings)
