"""
What a configuration is loaded with: the machine, the time, and what is known already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime

from attrs import field, frozen

from mtlsgate.clock import utc_now
from mtlsgate.interfaces import IGate
from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.event_loop import ChooseReactor, any_reactor
from mtlsgate.load.state import KeptDocuments
from mtlsgate.protocols import no_gate
from mtlsgate.spiffe.agents import Agents
from mtlsgate.upstream.state import TargetStates


@frozen(kw_only=True)
class Surroundings:
    """
    What the configurations of one service are loaded with.

    :ivar environ: the values of ``env.NAME``.
    :ivar now: returns the time to judge certificates by, here and in every handshake.
    :ivar source: has the files.
    :ivar reactor: chooses the reactor that protocol plugins get; raises ValueError if
        the configuration wants an event loop that it cannot have.
    :ivar gate: gives protocols the running gate.
    :ivar target_states: what is known of targets.
    :ivar kept: what was fetched; None for what is on disk.
    :ivar agents: what SPIFFE agents have delivered.
    """

    environ: Mapping[str, str] = field(default=os.environ, repr=False)
    now: Callable[[], datetime] = utc_now
    source: FileSource = DISK
    reactor: ChooseReactor = any_reactor
    gate: Callable[[], IGate] = no_gate
    target_states: TargetStates = field(factory=TargetStates)
    kept: KeptDocuments | None = None
    agents: Agents = field(factory=Agents)
