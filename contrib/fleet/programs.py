"""
The programs of a fleet: each is a process that is started, paused and ended, and asked
whether it is ready.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

#: How many seconds a program may take to get ready, and how often it is asked.
_PATIENCE, _PAUSE = 30.0, 0.05


class FleetError(Exception):
    """What was asked for cannot be done; one line."""


@frozen
class Command:
    """
    How a program is started.

    :ivar words: the command.
    :ivar is_ready: asks the process with this number whether it is ready.  What it raises of
        `OSError` and `ValueError` means that it is not.
    :ivar environment: added to this process' own.
    """

    words: Sequence[str]
    is_ready: Callable[[int], Awaitable[bool]]
    environment: Mapping[str, str] = field(factory=dict)


@define(eq=False)
class Program:
    """
    :ivar name: its name, and that of its log and of its pid file.
    :ivar directory: where it runs.
    :ivar address: where it listens for its clients.
    :ivar command: how it is started.
    """

    name: str
    directory: Path
    address: str
    command: Command
    _process: Process | None = None
    #: All of its processes that have not ended, with what waits for their ends.
    _alive: dict[Process, asyncio.Task[None]] = field(factory=dict)
    #: Those that were told to end.
    _told: set[Process] = field(factory=set)

    @property
    def log(self) -> Path:
        """The file with all that it prints."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The number of its process, or None if it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def _pid_file(self) -> Path:
        return self.directory / f"{self.name}.pid"

    async def start(self) -> None:
        """
        Start it, and wait until it is ready.

        :raises FleetError: if it runs already, or does not get ready.
        """
        if self._process is not None:
            raise FleetError(f"{self.name} runs already")
        self._process = await self._started()

    async def replace(self, accepts_no_more: str) -> None:
        """
        Start a second process beside the first one, and then end that one in its own time.

        :param accepts_no_more: what it logs when it leaves all that is new to the other one.
        :raises FleetError: if the second one does not get ready; the first one goes on.
        """
        first = self._running()
        self._process = await self._started()
        said = self._says(accepts_no_more)
        self._told.add(first)
        first.terminate()
        while first in self._alive and self._says(accepts_no_more) == said:
            await asyncio.sleep(_PAUSE)

    async def end(self, number: signal.Signals) -> None:
        """
        Tell it to end, and wait until it has.

        :raises FleetError: if it does not run.
        """
        await self._alive[self._tell(number)]

    def begin_to_end(self) -> None:
        """
        Tell it to end in its own time.  Another process may be started meanwhile.

        :raises FleetError: if it does not run.
        """
        self._tell(signal.SIGTERM)
        self._process = None

    def pause(self) -> None:
        """Stop it where it is: it answers nothing, and closes nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._running().send_signal(signal.SIGCONT)

    async def end_all(self) -> None:
        """End every process of it at once."""
        for process in self._alive:
            self._told.add(process)
            process.kill()
        await asyncio.gather(*self._alive.values())

    def _running(self) -> Process:
        if self._process is None:
            raise FleetError(f"{self.name} does not run")
        return self._process

    def _tell(self, number: signal.Signals) -> Process:
        process = self._running()
        self._told.add(process)
        process.send_signal(number)
        return process

    def _says(self, text: str) -> int:
        return self.log.read_text(errors="replace").count(text)

    async def _started(self) -> Process:
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command.words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **self.command.environment},
                # Ctrl-C is for the fleet, which ends its programs itself.
                start_new_session=True,
            )
        self._alive[process] = asyncio.create_task(self._wait(process))
        self._pid_file.write_text(f"{process.pid}\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while process in self._alive:
                    with suppress(OSError, ValueError):
                        if await self.command.is_ready(process.pid):
                            return process
                    await asyncio.sleep(_PAUSE)
        if process in self._alive:
            process.kill()
        raise FleetError(f"{self.name} does not get ready; {self.log} says why")

    async def _wait(self, process: Process) -> None:
        status = await process.wait()
        del self._alive[process]
        with suppress(OSError):
            # It may be that of another process by now.
            if self._pid_file.read_text() == f"{process.pid}\n":
                self._pid_file.unlink()
        if process is self._process:
            self._process = None
        if process not in self._told:
            print(
                f"{self.name} ended by itself with status {status}; {self.log} says why",
                file=sys.stderr,
                flush=True,
            )
        self._told.discard(process)
