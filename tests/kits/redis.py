"""
Real Redis servers: alone, with sentinels, as a cluster.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import (
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
from attrs import define
from redis.backoff import NoBackoff
from redis.retry import Retry

from mtlsgate.registry.opening import open_store
from mtlsgate.registry.store import Store, StoreOptions
from tests.kits.following import PATIENCE, wait_until
from tests.kits.programs import free_port, program

#: What every registry of the tests begins with.
PREFIX = "gate:devices"
NO_FILES: Mapping[str, str] = MappingProxyType({})
#: So that replicas do not take their time.
QUICK = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


@define(eq=False)
class Server:
    """
    A Redis on a Unix socket, and on a port of 127.0.0.1 if it has one.

    :ivar home: its directory.
    :ivar options: on its command line.
    :ivar port: 0 for none.
    """

    home: Path
    options: Sequence[str]
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens, besides the port."""
        return self.home / "r.sock"

    @property
    def url(self) -> str:
        """By the port if it has one."""
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket))
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("redis-server"), *self.options, *where, "--dir", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers)

    def do(self, *command: str | bytes | float) -> object:
        """:returns: the reply to a command of somebody's."""
        with redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*command)

    def says(self, section: str, text: str) -> bool:
        """:returns: whether a section of its ``INFO`` has a text."""
        return text in str(self.do("INFO", section))

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=PATIENCE)
            self._process = None

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "log").read_text()
        try:
            self.do("PING")
        except (redis.ResponseError, redis.AuthenticationError):
            return True
        except redis.ConnectionError:
            return False
        return True


@contextmanager
def server(*options: str, port: int = 0) -> Iterator[Server]:
    """
    Run a Redis until the block ends.

    :param options: on its command line.
    """
    with ExitStack() as running:
        made = _made(running, ("--save", "", *options), port)
        made.start()
        yield made


def _made(running: ExitStack, options: Sequence[str], port: int) -> Server:
    # Below /tmp, because the path of a socket has 107 characters at most.
    home = Path(tempfile.mkdtemp(prefix="redis", dir="/tmp"))
    running.callback(shutil.rmtree, home)
    made = Server(home, options, port)
    running.callback(made.kill)
    return made


@contextmanager
def replicated(replicas: int = 1) -> Iterator[tuple[Server, ...]]:
    """Run a master and its replicas, in step, until the block ends."""
    with ExitStack() as running:
        master, *others = (
            running.enter_context(server(*QUICK, port=free_port())) for _ in range(1 + replicas)
        )
        for replica in others:
            replica.do("REPLICAOF", "127.0.0.1", master.port)
        until_in_step(master, replicas)
        yield master, *others


def until_in_step(master: Server, replicas: int) -> None:
    """Wait until replicas acknowledge what their master sends.  They begin up to a second after
    they have said that they follow, and a new master begins with a PING each second."""

    def is_so() -> bool:
        role = master.do("ROLE")
        assert isinstance(role, list)
        _, _, found = role
        assert isinstance(found, list)
        return len(found) == replicas and all(int(offset) > 0 for *_, offset in found)

    wait_until(is_so)


@contextmanager
def watched(master: Server, count: int = 3) -> Iterator[list[Server]]:
    """Run sentinels that watch a master, which they call ``main``.  They put another Redis in
    its place when `fail_over` tells one to: a busy machine does not make them."""
    with ExitStack() as running:
        sentinels = []
        for _ in range(count):
            sentinel = _made(running, (), free_port())
            config = sentinel.home / "sentinel.conf"
            config.write_text(
                f"sentinel monitor main 127.0.0.1 {master.port} {count // 2 + 1}\n"
                "sentinel down-after-milliseconds main 600000\n"
                "sentinel failover-timeout main 5000\n"
            )
            sentinel.options = (str(config), "--sentinel")
            sentinel.start()
            sentinels.append(sentinel)
        others = f"'sentinels': {count}"
        wait_until(lambda: all(one.says("sentinel", others) for one in sentinels))
        yield sentinels


def fail_over(sentinels: Sequence[Server], master: Server) -> None:
    """Have the first sentinel put a replica in the place of a master, alive or not; return when
    all of them name the new one."""

    def is_over() -> bool:
        if all(master_of(sentinel) != master.port for sentinel in sentinels):
            return True
        # One that failed is not tried again without a word.
        with suppress(redis.ResponseError):
            sentinels[0].do("SENTINEL FAILOVER", "main")
        return False

    wait_until(is_over)


def master_of(sentinel: Server) -> int:
    """:returns: the port of the master that a sentinel names."""
    address = sentinel.do("SENTINEL GET-MASTER-ADDR-BY-NAME", "main")
    assert isinstance(address, tuple)
    return int(address[1])


@contextmanager
def cluster(masters: int = 3, replicas: int = 0) -> Iterator[list[Server]]:
    """Run a cluster: first its masters, then the replicas of the first ones."""
    options = (*("--cluster-enabled", "yes", "--cluster-node-timeout", "600"), "--save", "")
    quick = (*QUICK, "--cluster-replica-validity-factor", "0")
    with ExitStack() as running:
        nodes = []
        for _ in range(masters + replicas):
            ports = ("--cluster-port", str(free_port()))
            node = _made(running, (*options, *quick, *ports), free_port())
            node.start()
            nodes.append(node)
        first, *rest = nodes
        for index, node in enumerate(nodes[:masters]):
            start, end = (16384 * place // masters for place in (index, index + 1))
            node.do("CLUSTER ADDSLOTSRANGE", start, end - 1)
            # So that two masters never claim the same configuration.
            node.do("CLUSTER SET-CONFIG-EPOCH", index + 1)
        for node in rest:
            bus = node.options[node.options.index("--cluster-port") + 1]
            first.do("CLUSTER MEET", "127.0.0.1", node.port, bus)
        names = {id(node): _id(node) for node in nodes}
        wait_until(lambda: all(_knows(node, names.values()) for node in nodes))
        for index, node in enumerate(nodes[masters:]):
            node.do("CLUSTER REPLICATE", names[id(nodes[index])])
            until_in_step(nodes[index], 1)
        known = [str(node.port) for node in nodes]
        for node in nodes:
            wait_until(lambda: all(port in str(node.do("CLUSTER SLOTS")) for port in known))  # noqa: B023
        wait_until(lambda: all(is_up(node) for node in nodes))
        yield nodes


def _knows(node: Server, names: Iterable[str]) -> bool:
    known = str(node.do("CLUSTER NODES"))
    return all(name in known for name in names)


def is_up(node: Server) -> bool:
    """:returns: whether its cluster is up, by its account."""
    return "'cluster_state': 'ok'" in _cluster_info(node)


def _cluster_info(node: Server) -> str:
    return str(node.do("CLUSTER INFO"))


def masters(node: Server) -> set[int]:
    """:returns: the ports of its cluster's masters, by its account."""
    slots = node.do("CLUSTER SLOTS")
    assert isinstance(slots, list)
    return {master[1] for _, _, master, *_ in slots}


def owner_of(nodes: Sequence[Server], name: str) -> Server:
    """:returns: which of a new cluster's masters has a key."""
    slot = _slot(nodes[0], name)
    starts = [16384 * index // len(nodes) for index in range(len(nodes))]
    return nodes[max(index for index, start in enumerate(starts) if start <= slot)]


def migration(nodes: Sequence[Server], name: str) -> tuple[Server, Server]:
    """Begin to move a key's slot in a cluster of masters; return whose it is, and whose it
    will be."""
    slot = _slot(nodes[0], name)
    owner = owner_of(nodes, name)
    target = nodes[nodes.index(owner) - 1]
    target.do("CLUSTER SETSLOT", slot, "IMPORTING", _id(owner))
    owner.do("CLUSTER SETSLOT", slot, "MIGRATING", _id(target))
    return owner, target


def move_key(owner: Server, target: Server, name: str) -> None:
    """Move a key, whose slot is on its way."""
    owner.do("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)


def end_migration(nodes: Sequence[Server], target: Server, name: str) -> None:
    """The slot of a key is its new owner's."""
    for node in (target, *(node for node in nodes if node is not target)):
        node.do("CLUSTER SETSLOT", _slot(node, name), "NODE", _id(target))


def _id(node: Server) -> str:
    found = node.do("CLUSTER MYID")
    return found.decode() if isinstance(found, bytes) else str(found)


def _slot(node: Server, name: str) -> int:
    slot = node.do("CLUSTER KEYSLOT", name)
    assert isinstance(slot, int)
    return slot


@asynccontextmanager
async def opened(
    url: str, timeout: float = 5.0, files: Mapping[str, Any] = NO_FILES, **options: Any
) -> AsyncIterator[Store]:
    """
    Open a store, and close it when the block ends.

    :param files: of its TLS.
    """
    store = open_store(StoreOptions(url, PREFIX, timeout, **files, **options))
    try:
        yield store
    finally:
        await store.close()


def key(name: str) -> str:
    """:returns: where the registry of the tests has a device."""
    return f"{PREFIX}:d:{name}"
