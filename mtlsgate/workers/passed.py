"""
What the supervisor passes to a worker: listening sockets, and the files of epochs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import evolve

from mtlsgate.gate.listener import BoundSocket
from mtlsgate.load.addresses import Address, HostError
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.loading import Loading, no_collection
from mtlsgate.load.shadow import load_shadow, with_shadow
from mtlsgate.load.snapshot import Snapshot
from mtlsgate.load.state import KeptDocuments
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.run.event_loop import ReactorChoice
from mtlsgate.run.sockets import PlainSocket, Sockets
from mtlsgate.workers.remote import RemoteGate


class PassedSockets(Sockets):
    """
    The sockets that the supervisor listens on, too.

    :ivar _by_key: those that nobody has taken yet.
    """

    def __init__(self, passed: Iterable[str]) -> None:
        """:param passed: the names of those that the service manager passed to it."""
        super().__init__(names=passed)
        self._by_key: dict[str, socket.socket] = {}

    def add(self, key: str, descriptor: int) -> None:
        """:param descriptor: belongs to this object from now on."""
        before = self._by_key.pop(key, None)
        if before is not None:
            before.close()
        self._by_key[key] = found = socket.socket(fileno=descriptor)
        found.setblocking(False)

    def take_all(self) -> dict[str, BoundSocket]:
        """:returns: all that nobody has taken, by their keys."""
        found, self._by_key = self._by_key, {}
        return {key: PlainSocket(one) for key, one in found.items()}

    def take_keyed(self, key: str, address: Address) -> BoundSocket:
        """:raises HostError: if the supervisor does not listen there."""
        if key not in self._by_key:
            raise HostError(f"the supervisor does not listen on {key}: reload again")
        return PlainSocket(self._by_key.pop(key))


class WorkerLoader:
    """
    Loads epochs from the files that the supervisor passes.

    :ivar choice: chooses the reactor, at the first.
    :ivar remote: the gate as protocols see it.
    :ivar seen: the files of the latest, with their state when they were read.
    :ivar agents: what SPIFFE agents have delivered.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """:param names: the files and directories of the configuration, absolute."""
        self.choice = ReactorChoice()
        self.remote = RemoteGate()
        self.seen: dict[Path, Stamp] = {}
        self._names = names
        self._surroundings = Surroundings(
            reactor=self.choice, gate=lambda: self.remote, kept=KeptDocuments()
        )
        self.agents = self._surroundings.agents

    def load(self, files: int) -> Epoch:
        """
        :param files: a descriptor of the files, which is closed.
        :raises GateError: with everything that is wrong with them.
        """
        surroundings, self.seen = self._with_files(files), {}
        with no_collection():
            epoch = Loading(self._names, surroundings, seen=self.seen).epoch()
        return with_shadow(epoch, self._names[0], surroundings, self.seen)

    def shadow(self, path: Path, files: int) -> Shadow:
        """
        :param path: of another configuration, to be tried.
        :param files: a descriptor of its files, which is closed.
        """
        return load_shadow(path, self._with_files(files))

    def _with_files(self, files: int) -> Surroundings:
        source = Snapshot(files)
        os.close(files)
        return evolve(self._surroundings, source=source)
