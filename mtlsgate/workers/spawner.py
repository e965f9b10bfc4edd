"""
The process that forks workers.

Starting a worker means to import much, which takes most of a second.  This process
has imported it all, has one thread and no reactor, and waits.  So a worker that was
killed is replaced within a tenth of a second, and workers share this memory.  The
supervisor forks it before it has anything that workers should not have, and it ends
with the supervisor.  If it ends before, ``python -m mtlsgate.workers.spawner`` takes
its place.

It gets orders on a socket, one message each: JSON, and the descriptors that go with
it.  It reports there which processes were started, and how they ended.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NoReturn

import twisted.internet
from attrs import define, field

from mtlsgate.config.syntax import parse
from mtlsgate.errors import Report
from mtlsgate.observe.owner import groups_of
from mtlsgate.protocols import GROUP
from mtlsgate.run.sandbox_rights import python_directories
from mtlsgate.run.twistd import Surroundings
from mtlsgate.workers.naming import name_process
from mtlsgate.workers.order import Order
from mtlsgate.workers.preparing import prepare
from mtlsgate.workers.process import work

#: What `ps` and `top` show.
_NAME = "mtlsgate-spawn"
_ON_FIRST_USE = (
    "encodings.ascii",
    "encodings.idna",
    "importlib.readers",
    "twisted.internet.default",
    "twisted.internet.epollreactor",
    "twisted.internet.unix",
    "cryptography.hazmat.backends.openssl.backend",
)
#: The descriptor of orders.
ORDERS = 3
#: Bytes of an order, and descriptors that go with it.
LARGEST, MOST_DESCRIPTORS = 131072, 16
#: Signals that only the supervisor answers.  SIGTERM, too: it may be sent to all of a
#: service's processes, and the supervisor still needs this one.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def _prepare(order: dict[str, Any], descriptors: Sequence[int]) -> None:
    with socket.socket(fileno=descriptors[0]) as end:
        prepare(end, order["names"], is_shadow=order["is_shadow"])


def _work(order: dict[str, Any], descriptors: Sequence[int]) -> None:
    work(Order(**order), descriptors)


#: What a forked process does, by the name of its job.
_JOBS: Mapping[str, Callable[[dict[str, Any], Sequence[int]], None]] = {
    "prepare": _prepare,
    "work": _work,
}


@define
class _Spawner:
    """
    :ivar _orders: the socket of orders.
    :ivar _running: the numbers that the supervisor gave processes, by their own.
    """

    _orders: socket.socket
    _running: dict[int, int] = field(factory=dict)

    def serve(self) -> None:
        """Follow orders until the supervisor is gone."""
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        woken, waker = socket.socketpair()
        waker.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            self._serve(woken, waker)
        finally:
            # Before the descriptor is closed: another file may get its number.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _serve(self, woken: socket.socket, waker: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is woken:
                        woken.recv(4096)
                        self._reap()
                    elif not self._obey((woken, waker)):
                        return

    def _reap(self) -> None:
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            number = self._running.pop(process)
            self._report(ended=number, status=os.waitstatus_to_exitcode(status))

    def _obey(self, others: Sequence[socket.socket]) -> bool:
        """:returns: whether there may be further orders."""
        try:
            said, descriptors, _, _ = socket.recv_fds(self._orders, LARGEST, MOST_DESCRIPTORS)
        except ConnectionResetError:
            return False
        if not said:
            return False
        order = json.loads(said)
        number, job = order.pop("number"), order.pop("job")
        if job == "kill":
            for process, other in self._running.items():
                if other == number:
                    os.kill(process, signal.SIGKILL)
            return True
        process = os.fork()
        if process == 0:
            for one in (self._orders, *others):
                one.close()
            _run(job, order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._running[process] = number
        self._report(started=number, process=process)
        return True

    def _report(self, **facts: int) -> None:
        # If the supervisor is gone, the next order says so.
        with suppress(ConnectionError):
            self._orders.send(json.dumps(facts).encode())


def _run(job: str, order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """What a forked process does."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        sys.path[:] = order.pop("sys_path")
        _JOBS[job](order, descriptors)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 -- it must not go on as another spawner
        traceback.print_exc()
    finally:
        # Without the spawner's exit handlers.
        os._exit(status)


def _import_all(protocols: Iterable[str], modules: Iterable[str] = ()) -> None:
    """
    Import what is else imported on first use: to be quick then, and because another user
    may be unable to read it.

    :param protocols: the names of the configuration's protocols.  Only built-in ones are
        imported: other code may keep the reactor that it finds.
    :param modules: what its blocks need; loading says so if a library is missing.
    """
    parse(b"one = 1\n", Report(""))
    # Imports a module of its own for each platform.
    sysconfig.get_config_vars()
    for name in _ON_FIRST_USE:
        import_module(name)
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    # Reads what Python was built with, and keeps it.
    python_directories()
    for entry in entry_points(group=GROUP):
        if entry.name in protocols and entry.module.startswith("mtlsgate."):
            entry.load()


def _serve(orders: socket.socket) -> None:
    gc.collect()
    gc.freeze()
    _Spawner(orders).serve()


def fork_spawner(
    surroundings: Surroundings, protocols: Iterable[str], modules: Iterable[str] = ()
) -> socket.socket:
    """
    Fork the process.  Only while there is one thread.

    :param protocols: the names of the configuration's protocols.
    :param modules: the modules that its blocks need.
    :returns: the socket of orders.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    try:
        _close_all_but(theirs.fileno())
        name_process(_NAME)
        _forget_reactor()
        _import_all(protocols, modules)
        _settle(surroundings)
        _serve(theirs)
    finally:
        # Without the supervisor's exit handlers.
        os._exit(0)


def _close_all_but(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            # One of them was used to read the directory.
            with suppress(OSError):
                os.close(int(name))


def _forget_reactor() -> None:
    """Let each worker have a reactor of its own, also if ``--reactor`` installed one."""
    if sys.modules.pop("twisted.internet.reactor", None) is not None:
        del twisted.internet.reactor


def _settle(surroundings: Surroundings) -> None:
    if surroundings.is_daemon:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.close(nothing)
        os.setsid()
    uid, gid = surroundings.owner
    if os.geteuid() == 0:
        if gid != -1:
            os.setgroups(groups_of(uid, gid))
            os.setgid(gid)
        if uid != -1:
            os.setuid(uid)
    os.chdir(surroundings.directory)
    if surroundings.umask is not None:
        os.umask(surroundings.umask)


def main() -> None:
    """Run the process, which has the socket of orders already."""
    name_process(_NAME)
    with socket.socket(fileno=ORDERS) as orders:
        orders.set_inheritable(False)
        _import_all(())
        _serve(orders)


if __name__ == "__main__":
    main()
