"""
The sandbox of the running gate: by Landlock it gives up what it does not need.

It keeps what the configuration names: the directories of files that were read, so that
files which are renamed into place are read on reload; its logs and sockets; the ports of
its targets; and what Python and the name look-up of the C library read.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.logger import Logger

from mtlsgate.errors import START, ConfigError, GateError, Problem
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.reach import Reach
from mtlsgate.observe.owner import Owner, make_for
from mtlsgate.run.landlock import PORTS_ABI, Rights, landlock_abi, restrict
from mtlsgate.run.sandbox_rights import SYSTEM, Allowed, python_directories

_log = Logger("mtlsgate.service")

#: How often to look whether threads have ended, and seconds between two looks.
_LOOKS, _BETWEEN_LOOKS = 100, 0.02


class SandboxError(GateError):
    """The gate cannot have its sandbox; the text says why in one line."""


@frozen
class SandboxChoice:
    """
    Whether the gate runs in a sandbox.

    :ivar abi: the version of Landlock to use; 0 without a sandbox.
    :ivar why_not: why there is none, or None.
    :ivar is_required: whether the gate must not run without it.
    """

    abi: int = 0
    why_not: str | None = None
    is_required: bool = False


def choose_sandbox(
    epoch: Epoch,
    options: Mapping[str, Any] | None,
    abi: Callable[[], int] = landlock_abi,
) -> SandboxChoice:
    """
    :param options: twistd's; None outside of it.
    :param abi: tells the kernel's version of Landlock.
    :returns: whether the gate runs in a sandbox: by default if no code but mtlsgate's
        runs in it.
    :raises ConfigError: if the configuration wants one and the kernel has none.
    """
    wanted = epoch.settings.sandbox
    if wanted is not None and not wanted.value:
        return SandboxChoice(why_not="sandbox = false")
    found = abi()
    if not found:
        why = "this kernel has no Landlock, or does not allow it"
        if wanted is not None:
            at, text = wanted.at, f"sandbox: {why}"
            raise ConfigError([Problem(at.path or epoch.path, at, "settings", text)])
        return SandboxChoice(why_not=why)
    if wanted is None:
        if epoch.reach.user_code:
            return SandboxChoice(why_not=f"{epoch.reach.user_code[0]} runs code of yours")
        if _is_traced(options):
            return SandboxChoice(why_not="a debugger or profiler runs with the gate")
    return SandboxChoice(found, is_required=wanted is not None)


def make_directories(epoch: Epoch, owner: Owner) -> None:
    """
    Make the directories that the gate will write to: from its sandbox it could not, and
    one that is not there cannot be allowed.

    :param owner: whom the gate becomes.
    """
    directories = {one.path.parent: 0o755 for one in epoch.fetches}
    directories |= {one.storage.directory: 0o700 for one in epoch.wanted}
    for directory, mode in directories.items():
        with suppress(OSError):
            # What cannot be kept is told when it was fetched.
            make_for(owner, directory, partial(_make_directory, directory, mode, owner))


def _make_directory(directory: Path, mode: int, owner: Owner) -> None:
    try:
        directory.mkdir(mode=mode, parents=True)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        # The user could not make it: it is for them all the same.
        os.chown(directory, *owner, follow_symlinks=False)


def _is_traced(options: Mapping[str, Any] | None) -> bool:
    """:returns: whether something in the process writes files that nobody has named."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return True
    return options is not None and bool(options.get("profile") or options.get("debug"))


def count_threads() -> int:
    """:returns: how many threads the process has, those of libraries among them."""
    return len(os.listdir("/proc/self/task"))


class Sandbox(Service):
    """
    Enters the sandbox before anything of the gate starts a thread.

    :ivar choice: whether there is one.
    :ivar allowed: what it allows of the configuration; None without a sandbox.
    :ivar _is_entered: whether it has been entered, or cannot be.
    """

    def __init__(
        self,
        choice: SandboxChoice,
        allowed: Allowed,
        enter: Callable[[Rights, int], object] = restrict,
        threads: Callable[[], int] = count_threads,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """
        :param choice: whether there is one.
        :param allowed: what it allows of the configuration.
        :param enter: gives up all other rights.
        :param threads: tells how many threads the process has.
        :param pause: waits for seconds; the reactor does not run yet.
        """
        self._pause = pause
        self._threads = threads
        self.choice = choice
        self.allowed = allowed if choice.abi else None
        self._enter = enter
        self._is_entered = False

    @property
    def status(self) -> str:
        """Whether it is on, and why not, for people."""
        if self.choice.abi:
            return f"on (Landlock {self.choice.abi})"
        return f"off: {self.choice.why_not}"

    def privilegedStartService(self) -> None:
        """Enter it, also before privileges are dropped: what follows starts threads."""
        super().privilegedStartService()
        self._begin()

    def startService(self) -> None:
        """Enter it, if that has not happened yet."""
        super().startService()
        self._begin()

    def _begin(self) -> None:
        if self._is_entered:
            return
        self._is_entered = True
        if self.allowed is None:
            _log.info("no sandbox: {why}", why=self.choice.why_not)
            return
        try:
            self._check_threads()
            self._enter(self._rights(self.allowed.rights), self.choice.abi)
        except (OSError, SandboxError) as error:
            self._go_without(getattr(error, "strerror", None) or str(error))
        else:
            self._say(self.allowed.rights)

    def _go_without(self, why: str) -> None:
        """:raises SystemExit: if the configuration wants a sandbox."""
        if self.choice.is_required:
            _log.critical("sandbox: {why}", why=why)
            # twistd would print any other exception with a traceback.
            raise SystemExit(f"sandbox: {why}; settings {{ sandbox = false }} does without")
        self.choice, self.allowed = SandboxChoice(why_not=why), None
        _log.warn("no sandbox: {why}", why=why)

    def _check_threads(self) -> None:
        """:raises SandboxError: if there are other threads, which it would not hold."""
        for _ in range(_LOOKS):
            if self._threads() == 1:
                return
            # One that is over may take a moment to be gone.
            self._pause(_BETWEEN_LOOKS)
        raise SandboxError("the process has other threads already, which would be outside of it")

    def _rights(self, rights: Rights) -> Rights:
        read, looked_in = python_directories()
        return evolve(
            rights,
            read=rights.read | set(read) | SYSTEM,
            list=rights.list | set(looked_in),
            write=rights.write | {Path(os.devnull)},
        )

    def _say(self, rights: Rights) -> None:
        ports = ", ".join(map(str, sorted(rights.ports))) or "none"
        if rights.any_port:
            ports = "all, because a registry says only later which"
        if self.choice.abi < PORTS_ABI:
            ports = f"all, because this kernel's Landlock is of version {self.choice.abi}"
        _log.info(
            "in a sandbox: reads {reads}; writes in {writes}; connects to ports: {ports}",
            reads=", ".join(map(str, sorted(rights.read))) or "nothing",
            writes=", ".join(map(str, sorted(rights.write))) or "nothing",
            ports=ports,
        )

    def guarded(
        self, load: Callable[[bool], Epoch], seen: Callable[[], Mapping[Path, Stamp]]
    ) -> Callable[[bool], Epoch]:
        """
        :param load: loads the configuration anew.
        :param seen: tells which files the latest load has read.
        :returns: the same, but it refuses a configuration that needs more than the
            sandbox allows, which cannot be widened.
        """

        def guarded(is_trial: bool) -> Epoch:
            try:
                epoch = load(is_trial)
            except GateError as error:
                if self.allowed is not None:
                    lines = list(self.allowed.missing(Reach(), seen()))
                    if lines:
                        raise SandboxError(
                            "\n".join([*map(_restart, lines), str(error)])
                        ) from error
                raise
            # What is wrong with the shadow is a warning.
            theirs = {} if epoch.shadow is None else epoch.shadow.seen
            self._refuse(epoch, seen().keys() - theirs.keys())
            if epoch.shadow is not None:
                explained = self._explained if epoch.shadow.problems else self._with_barred
                epoch = evolve(epoch, shadow=explained(epoch.shadow))
            return epoch

        return guarded

    def guarded_shadow(self, load: Callable[[Path], Shadow]) -> Callable[[Path], Shadow]:
        """
        :param load: loads a configuration for the shadow.
        :returns: the same; if the sandbox does not allow to read it, or to ask its registries,
            it says what to do.
        """
        return lambda path: self._with_barred(self._explained(load(path)))

    def _explained(self, shadow: Shadow) -> Shadow:
        lines = () if self.allowed is None else self.allowed.missing(Reach(), shadow.seen)
        remedy = "name it in settings { shadow } and restart the gate, or put it beside gate.hcl"
        problems = tuple(f"{line}: {remedy}" for line in lines)
        if not problems:
            return shadow
        return evolve(shadow, epoch=None, problems=(*problems, *shadow.problems))

    def _with_barred(self, shadow: Shadow) -> Shadow:
        lines = () if self.allowed is None else self.allowed.missing(shadow.reach, ())
        remedy = "name the file in settings { shadow } and restart the gate"
        return evolve(shadow, barred=tuple(f"{line}: {remedy}" for line in lines))

    def _refuse(self, epoch: Epoch, seen: Iterable[Path]) -> None:
        """:raises GateError: if an epoch needs a restart of the gate."""
        wanted = epoch.settings.sandbox
        at = START if wanted is None else wanted.at
        if self.allowed is None:
            if wanted is not None and wanted.value:
                text = "sandbox: the gate runs without one: restart it"
                raise ConfigError([Problem(at.path or epoch.path, at, "settings", text)])
            return
        if wanted is not None and not wanted.value:
            text = "sandbox: the gate runs in its sandbox, which it cannot leave: restart it"
            raise ConfigError([Problem(at.path or epoch.path, at, "settings", text)])
        lines = list(self.allowed.missing(epoch.reach, seen))
        if wanted is None:
            lines += [
                f"{code} runs code of yours, but the gate runs in its sandbox"
                for code in epoch.reach.user_code
            ]
        if lines:
            raise SandboxError("\n".join(map(_restart, lines)))


def _restart(line: str) -> str:
    return f"{line}: restart the gate"
