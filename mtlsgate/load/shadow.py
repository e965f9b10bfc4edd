"""
Loads the configuration in the shadow: it judges every client, too, and changes nothing.

Of its file everything is read and checked, but no application and no authorizer is built,
so that no code of a user's runs.  Nothing is bound, opened for writing or fetched: documents
that the gate would fetch count as far as they are kept already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from attrs import evolve
from twisted.logger import Logger

from mtlsgate.clock import utc_now
from mtlsgate.errors import GateError, Problem
from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.loading import Loading, no_collection
from mtlsgate.load.sources import base_directory
from mtlsgate.load.state import KeptDocuments
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import shown

_log = Logger("mtlsgate.shadow")


def load_shadow(
    path: Path,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], datetime] = utc_now,
    *,
    source: FileSource = DISK,
    kept: KeptDocuments | None = None,
    agents: Agents | None = None,
) -> Shadow:
    """
    :param path: a file or directory, absolute.
    :param environ: the values of ``env.NAME``.
    :param now: returns the time to judge certificates by.
    :param source: has the files.
    :param kept: what was fetched; by default what is on disk.
    :param agents: what SPIFFE agents have delivered; by default nothing.
    :returns: what was loaded, or what is wrong with it.
    """
    seen: dict[Path, Stamp] = {}
    try:
        with no_collection():
            epoch = Loading(
                str(path),
                environ,
                now,
                seen=seen,
                source=source,
                kept=kept,
                agents=agents,
                is_shadow=True,
            ).epoch()
    except GateError as error:
        return Shadow(str(path), None, tuple(str(error).split("\n")), seen)
    except Exception as error:  # noqa: BLE001 -- it must not keep the gate from going on
        _log.failure("{path}: loading the configuration in the shadow failed", path=str(path))
        return Shadow(str(path), None, (f"{path}: loading it failed: {error!r}",), seen)
    return Shadow(str(path), epoch, seen=seen)


def with_shadow(
    epoch: Epoch,
    name: str,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], datetime] = utc_now,
    *,
    seen: dict[Path, Stamp] | None = None,
    source: FileSource = DISK,
    kept: KeptDocuments | None = None,
    agents: Agents | None = None,
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
    path = base_directory(name, source) / named.value
    shadow = load_shadow(path, environ, now, source=source, kept=kept, agents=agents)
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
