"""
What the supervisor tells a new worker.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


@frozen(kw_only=True)
class Order:
    """
    What the supervisor tells a new worker.

    :ivar index: which worker it is, from 0.
    :ivar workers: how many there are.
    :ivar secret: of the board, in hex.
    :ivar names: the files and directories of the configuration, absolute.
    :ivar run: identifies this run of the gate in the audit log.
    :ivar config: the configuration, for people.
    :ivar started: when the gate started, as RFC 3339 has it.
    :ivar epoch: the number of the epoch in force.
    :ivar tells: whether it logs what an epoch has and where it listens.
    :ivar passed: the names of the sockets that the service manager passed.
    :ivar to_journal: whether systemd's journal gets the log.
    :ivar reactor: the short name of its reactor, if one was asked for.
    """

    index: int
    workers: int
    secret: str
    names: Sequence[str]
    run: str
    config: str
    started: str
    epoch: int
    tells: bool
    passed: Sequence[str]
    to_journal: bool
    reactor: str | None
