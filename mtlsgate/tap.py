"""
``twistd mtlsgate``: options and wiring.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

from mtlsgate.admin.service import AdminService
from mtlsgate.admin.sockets import take
from mtlsgate.clock import MonotonicReactor, utc_now
from mtlsgate.errors import GateError
from mtlsgate.gate.connections import Connections
from mtlsgate.load.acme import modules_for
from mtlsgate.load.disk import Disk
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.loading import Loading
from mtlsgate.load.outline import Configured
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.event_log import EventLog, Turns
from mtlsgate.observe.history import History
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.owner import Owner
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.registry.opening import module_of
from mtlsgate.run.agent_watch import AgentWatch
from mtlsgate.run.certificate_orders import CertificateOrders
from mtlsgate.run.control import Control, GateHandle
from mtlsgate.run.deadline_watch import DeadlineWatch
from mtlsgate.run.ending import end
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.event_loop import ReactorChoice
from mtlsgate.run.fetcher import Fetcher
from mtlsgate.run.file_watcher import FileWatcher
from mtlsgate.run.followers import ObserversFollower
from mtlsgate.run.listening import bind, bind_all, keyed
from mtlsgate.run.loader import Loader
from mtlsgate.run.log_output import LogFollower, LogPlace, complain, log_notices, open_log
from mtlsgate.run.names import configured_names
from mtlsgate.run.privileged_reader import PrivilegedReader, reader_if_root
from mtlsgate.run.privileges import UserFollower, become_configured_user
from mtlsgate.run.reactor_lag import ReactorLag
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.registries.words import WordsInShadow
from mtlsgate.run.reloading import Reloader
from mtlsgate.run.sandbox import Sandbox, choose_sandbox, make_directories
from mtlsgate.run.sandbox_rights import Allowed, home_of
from mtlsgate.run.service import GateService
from mtlsgate.run.service_manager import Notifier, ServiceManager
from mtlsgate.run.shadow import Shadowing
from mtlsgate.run.shadow_control import ShadowControl, ShadowFollower
from mtlsgate.run.signals import Handler, SignalService
from mtlsgate.run.sockets import Sockets
from mtlsgate.run.status_taker import Process, StatusTaker
from mtlsgate.run.threads import OwnThread
from mtlsgate.run.twistd import mend_pid_file, surroundings_of
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.workers.cores import worker_count

if TYPE_CHECKING:
    from mtlsgate.workers.supervisor import Start


class Options(usage.Options):
    """The options of ``twistd mtlsgate``."""

    synopsis = "[--config FILE_OR_DIRECTORY ...]"
    longdesc = "An mTLS gate: verified TLS clients, and no others, reach the protocol behind it."
    epoch: Epoch
    handle: GateHandle
    loader: Loader
    log: LogFollower | None
    manager: ServiceManager
    source: Disk
    reactor: MonotonicReactor
    sandbox: Sandbox
    sockets: Sockets
    supervised: Start
    workers: int = 1

    def __init__(self) -> None:
        super().__init__()
        self["config"] = []

    def opt_config(self, path: str) -> None:
        """A configuration file, or a directory of .hcl files; repeatable. [default: gate.hcl]"""
        self["config"].append(path)

    opt_c = opt_config

    def postOptions(self) -> None:
        """
        Load the configuration and bind the addresses before daemonizing, while
        problems can still be shown on the terminal.
        """
        choice = ReactorChoice()
        say = partial(print, file=sys.stderr)
        self.handle = GateHandle()
        self.manager = ServiceManager.of_process()
        names = self["config"] or ["gate.hcl"]
        # Daemonizing changes the directory, so do this before.  Each ".." stays: behind a
        # symbolic link it leads elsewhere, and all loads must read the same files.
        absolute = [str(Path(name).absolute()) for name in names]
        # Do this first: a process cannot leak what it has not read.
        reader = reader_if_root()
        self.source = Disk(os.open if reader is None else reader.open)
        self.loader = Loader(absolute, self.handle, choice, self.source)
        try:
            loading = self.loader.begin(names, say)
            if loading.configuration is not None:
                self.workers = worker_count(loading.configuration.settings.workers)
            if self.workers > 1:
                self._prepare_supervisor(names, loading, reader, choice, say)
                return
            self.epoch = self.loader.first(loading)
            owner = become_configured_user(self.parent, self.epoch)
            mend_pid_file(self.parent, owner, say)
            self.reactor = choice.get()
            self.log = self._log(self.epoch, owner)
            audit = self["audit"] = AuditLog()
            audit.turn_to(audit.prepare(self.epoch.path, self.epoch.settings.audit, owner))
            self.sockets = Sockets.of_process(owner=owner)
            self["bound"] = bind(self.epoch, self.sockets)
            self["admin"] = take(self.epoch.admin, owner=owner)
            _settle(reader, owner, self.loader.seen)
            self.sandbox = self._sandbox(owner)
            for line in log_notices(self.parent, self.epoch):
                say(line)
        except MemoryError as error:
            # pyOpenSSL, where memory must not be written and executed.
            complain(f"mtlsgate: {error or 'out of memory'}")
            raise SystemExit(1) from None
        except GateError as error:
            # usage.UsageError would bury the message under twistd's own help.
            complain(str(error))
            raise SystemExit(1) from None

    def _prepare_supervisor(
        self,
        names: Sequence[str],
        loading: Loading,
        reader: PrivilegedReader | None,
        choice: ReactorChoice,
        say: Callable[[str], object],
    ) -> None:
        """:raises GateError: if anything is wrong with the configuration."""
        # Imported here: without workers nobody pays for it.
        from mtlsgate.workers.preparing import prepare_in_child
        from mtlsgate.workers.spawner import fork_spawner
        from mtlsgate.workers.supervisor import Start

        outline = loading.outline()
        owner = become_configured_user(self.parent, outline)
        surroundings = surroundings_of(self.parent, owner)
        assert loading.configuration is not None
        servers = loading.configuration.server
        stores = (module_of(one.url.value) for one in loading.configuration.registry)
        modules = {*modules_for(servers), *filter(None, stores)}
        protocols = {one.protocol.name for one in servers}
        orders = fork_spawner(surroundings, protocols, sorted(modules))
        prepared = prepare_in_child(names, self.source.opener, say, owner)
        outline = prepared.outline(names)
        mend_pid_file(self.parent, owner, say)
        self.reactor = choice.get()
        self.log = self._log(outline, owner)
        audit = AuditLog()
        audit.turn_to(audit.prepare(outline.path, outline.settings.audit, owner))
        self.sockets = Sockets.of_process(owner=owner)
        assigned = dict(keyed(outline.hosts, self.sockets.key_of))
        self.supervised = Start(
            names=self.loader.paths,
            workers=self.workers,
            prepared=prepared,
            outline=outline,
            bound=bind_all(outline.path, assigned, self.sockets),
            sockets=self.sockets,
            admin=take(outline.admin, owner=owner),
            audit=audit,
            log=self.log,
            source=self.source,
            handle=self.handle,
            orders=orders,
            reactor=surroundings.reactor,
            manager=self.manager,
        )
        _settle(reader, owner, prepared.seen)
        for line in log_notices(self.parent, outline):
            say(line)

    def _log(self, epoch: Configured, owner: Owner) -> LogFollower | None:
        """
        :returns: the log; None if somebody else writes it.
        :raises GateError: if its file cannot be opened.
        """
        place = LogPlace.of(self.parent)
        if place is None:
            return None
        output = open_log(place, epoch, owner)
        return LogFollower(EventLog(output, cast(Turns, self.reactor)), place)

    def _sandbox(self, owner: Owner) -> Sandbox:
        """:raises GateError: if there is to be one, and the kernel has none."""
        twistd: dict[str, Any] = self.parent or {}
        written = [twistd["pidfile"]] if twistd.get("pidfile") else []
        if self.log is not None:
            written += self.log.log.output.stream.files
        make_directories(self.epoch, owner)
        home = home_of(os.geteuid() if owner[0] == -1 else owner[0])
        allowed = Allowed.by(
            self.epoch.reach_with_shadow, self.loader.seen, map(Path, written), home
        )
        return Sandbox(choose_sandbox(self.epoch, self.parent), allowed)


def _settle(reader: PrivilegedReader | None, owner: Owner, seen: Mapping[Path, Stamp]) -> None:
    """Tell the reader for whom it reads, or end it if nobody needs it."""
    if reader is None:
        return
    if owner[0] in (-1, 0):
        reader.close()
    else:
        reader.allow(owner, seen)


class _Services(MultiService):
    """
    All services, in the application that twistd makes.

    :ivar _observer: writes twistd's log; None if twistd writes it itself.
    """

    def __init__(self, observer: EventLog | None) -> None:
        super().__init__()
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Tell twistd which log observer to use, by a component of the application."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)


def makeService(options: Options) -> IService:
    """:returns: the service that runs the configuration."""
    if options.workers > 1:
        from mtlsgate.workers.supervisor import supervise

        services = _Services(None if options.log is None else options.log.log)
        for one in supervise(options.supervised, options.reactor):
            one.setServiceParent(services)
        return services
    loader, handle, log = options.loader, options.handle, options.log
    reactor = options.reactor
    # twistd keeps the options as long as it runs.  Take the first epoch out of them, so
    # that it can be freed later.
    epoch, bound = options.epoch, options.pop("bound")
    del options.epoch
    observers = Observers(
        audit=options["audit"],
        log=HumanLog(epoch.settings.quiet),
        counts=Counts(configured_names(epoch)),
        recent=RecentRejections(epoch.settings.quiet),
        history=History(reactor.seconds, utc_now),
        changes=Changes(reactor),
    )
    registries = Desks.of(reactor)
    shadowing = Shadowing(
        epoch,
        options.sockets.key_of,
        reactor,
        observers,
        loader.agents,
        Desks.of(reactor, utc_now, WordsInShadow()),
        utc_now,
    )
    connections = Connections(reactor, (*observers.all, shadowing), registries=registries)
    shadow_follower = ShadowFollower(shadowing, connections)
    admin = AdminService(handle, epoch.admin, options["admin"], reactor, connections.gone)
    followers = (
        UserFollower.of(epoch),
        ObserversFollower(observers),
        shadow_follower,
        admin,
        *(() if log is None else (log,)),
    )
    runner = EpochRunner(
        epoch,
        bound,
        options.sockets,
        reactor,
        connections,
        followers,
        refreshed=shadowing.refreshed,
        registries=registries,
    )
    in_thread = OwnThread(cast(Any, reactor))
    notifier = Notifier(options.manager, lambda: _state(runner), reactor)
    sandbox = options.sandbox
    load = sandbox.guarded(loader.again, lambda: loader.seen)
    reloader = Reloader(runner, load, in_thread, [notifier, shadow_follower])
    lag = ReactorLag(reactor)
    upkeep = Upkeep(runner, reloader.refresh, reactor, in_thread)
    fetcher, agents = Fetcher.of(upkeep), AgentWatch.of(upkeep, loader.agents)
    orders = CertificateOrders.of(upkeep)
    gate = GateService(runner, reloader, observers, fetcher, agents, shadowing, orders)
    process = Process(
        version=version("mtlsgate"),
        config=loader.path,
        started=connections.now(),
        began=runner.since,
        lag=lag.seconds,
        sandbox=lambda: sandbox.status,
    )
    taker = StatusTaker(gate, process)
    end_gate = partial(_end, runner, notifier, reactor)
    metrics = Metrics(observers.counts, taker.state)
    load_shadow = sandbox.guarded_shadow(loader.shadow)
    shadow = ShadowControl(shadowing, runner, load_shadow, in_thread, loader.paths[0])
    handle.attach(Control(taker, metrics, in_thread, end_gate, shadow))
    watcher = FileWatcher(
        lambda: loader.seen if runner.epoch.settings.watch else {},
        reloader.reload,
        reactor,
        in_thread,
        options.source,
    )

    def rotate() -> None:
        observers.audit.rotate()
        if log is not None:
            log.log.rotate()

    handlers: dict[Signals, Handler] = {
        SIGHUP: reloader.reload,
        SIGUSR1: rotate,
        SIGTERM: end_gate,
        SIGINT: end_gate,
    }
    services = _Services(None if log is None else log.log)
    # Signals first: as soon as the gate listens, it must be possible to stop it.
    deadlines = DeadlineWatch(lambda: runner.epoch, connections.now, reactor)
    # The sandbox first: threads that run already would not be in it.
    for service in (
        sandbox,
        SignalService(handlers, reactor),
        gate,
        watcher,
        fetcher,
        agents,
        orders,
        deadlines,
        admin,
        lag,
        notifier,
    ):
        service.setServiceParent(services)
    return services


def _state(runner: EpochRunner) -> str:
    count = len(runner.epoch.servers)
    servers = "1 server" if count == 1 else f"{count} servers"
    return f"{servers}; epoch {runner.number} is in force"


def _end(runner: EpochRunner, notifier: Notifier, reactor: Any) -> None:
    """End, and tell the service manager."""
    is_first = not runner.is_draining
    end(runner, reactor)
    if is_first:
        whose = f"{len(runner.connections)} connections"
        notifier.draining(whose, runner.epoch.settings.drain_timeout)
