"""
A Redis Cluster: which master serves which key, and how that changes.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/: the slots of the
keys are spread over the masters.  A node that does not serve a slot says who does: MOVED for
good, ASK for one question while the slot moves.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from attrs import field, frozen
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError

from mtlsgate.registry.redis_address import Node
from mtlsgate.registry.redis_channel import Channel, Confirm
from mtlsgate.registry.redis_confirming import replicate, unconfirmed
from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_links import Command, Dialler, Link
from mtlsgate.registry.redis_nodes import Masters, Question, first_answers
from mtlsgate.registry.store import StoreError, StoreUnavailable

#: How often a question is sent on to another node.
_MOST_REDIRECTIONS = 4

_ASKING: Command = ("ASKING",)


@frozen
class Slots:
    """
    Who serves which slots.

    :ivar epoch: greater for what is newer.
    :ivar starts: the first slots of the ranges, ascending, from 0 without gaps.
    :ivar nodes: the master of each range.
    """

    epoch: int = field(eq=False)
    starts: tuple[int, ...]
    nodes: tuple[Node, ...]

    def node(self, key: bytes) -> Node:
        """:returns: the master that serves a key."""
        return self.nodes[bisect_right(self.starts, key_slot(key)) - 1]

    @property
    def masters(self) -> tuple[Node, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(self.nodes))


def read_slots(replies: Sequence[object], node: Node) -> Slots:
    """
    :param replies: to `Cluster.beat`.
    :param node: who answered.
    :raises StoreUnavailable: if the cluster does not serve all slots.
    :raises StoreError: if it is no cluster.
    """
    for reply in replies:
        if isinstance(reply, BaseException):
            if "cluster support disabled" in str(reply):
                raise StoreError(f"{node} belongs to no cluster: its URL begins with redis://")
            raise explained(reply, node)
    state, ranges = replies
    if not isinstance(state, bytes) or b"cluster_state:ok" not in state:
        raise StoreUnavailable(f"{node} says that the cluster is down")
    if not isinstance(ranges, list):
        raise StoreError(f"{node} answers what cannot be understood")
    found: list[tuple[int, Node]] = []
    end = 0
    for first, last, (host, port, *_), *_ in sorted(ranges, key=lambda entry: entry[0]):
        if first != end:
            break
        # "A NULL or empty host means the same endpoint as the one the reply came from."
        found.append((first, Node(host.decode() if host else node.host, port)))
        end = last + 1
    if end != REDIS_CLUSTER_HASH_SLOTS:
        raise StoreUnavailable(f"{node} says that nobody serves the slot {end}")
    epoch = int(state.partition(b"cluster_current_epoch:")[2].split(maxsplit=1)[0])
    return Slots(epoch, tuple(first for first, _ in found), tuple(master for _, master in found))


class Cluster:
    """
    The masters of a cluster.

    :param dialler: makes connections.
    """

    beat: Sequence[Command] = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._channels: dict[Node, Channel] = {}
        self._slots: Slots | None = None
        self._followed: dict[str, Node] = {}
        self._finding = asyncio.Lock()

    async def ask(self, questions: Sequence[Question]) -> list[object]:
        """:raises StoreError: if there is no answer."""
        replies, _ = await self._ask(questions, None)
        return replies

    async def write(self, questions: Sequence[Question]) -> tuple[list[object], Masters]:
        """:raises StoreError: if there is no answer, or no replica has it in time."""

        async def confirm(link: Link, role: object) -> None:
            await replicate(link, role, self._dialler.timeout)

        replies, nodes = await self._ask(questions, confirm)
        found = zip(questions, nodes, strict=True)
        return replies, {one.key: str(node) for one, node in found if node is not None}

    async def settle(self, masters: Masters) -> None:
        """:raises WriteUnconfirmed: if another node serves the slot of a key by now."""
        try:
            slots = await self._find_slots()
        except StoreUnavailable as error:
            raise unconfirmed(str(self._dialler.address), error) from error
        for key, where in masters.items():
            if (master := str(slots.node(key))) != where:
                raise unconfirmed(where, f"{master} is the master by now")

    async def _ask(
        self, questions: Sequence[Question], confirm: Confirm | None
    ) -> tuple[list[object], list[Node | None]]:
        """:returns: the replies, and who gave them: None for one whose slot is on its way."""
        replies: list[object] = [None] * len(questions)
        nodes: list[Node | None] = [None] * len(questions)
        slots = self._slots or await self._find_slots(is_new=False)
        # The nodes to ask, by the questions' indexes, and whether after ASK.
        wanted = {
            index: (slots.node(question.key), False) for index, question in enumerate(questions)
        }
        for _ in range(_MOST_REDIRECTIONS):
            for index, (node, is_moving) in wanted.items():
                nodes[index] = None if is_moving else node
            wanted = await self._ask_once(questions, wanted, replies, confirm)
            if not wanted:
                return replies, nodes
        raise StoreUnavailable("the cluster sends a question from one node to the other")

    async def channels(self) -> Sequence[Channel]:
        """:returns: one for each master."""
        slots = await self._find_slots()
        return [self._channel(node) for node in slots.masters]

    async def masters(self) -> Sequence[Link]:
        """:raises StoreError: if one cannot be connected to."""
        slots = await self._find_slots()
        links: list[Link] = []
        try:
            for node in slots.masters:
                links.append(await self._dialler.dial(node))
        except BaseException:
            await asyncio.gather(*(link.close() for link in links))
            raise
        self._followed = {link.where: node for link, node in zip(links, slots.masters, strict=True)}
        return links

    def mark(self, replies: Sequence[object], where: str) -> object:
        """:raises StoreError: if the cluster is down."""
        slots = read_slots(replies, self._followed[where])
        if self._followed[where] not in slots.masters:
            raise StoreUnavailable(f"{where} is no master any more")
        return slots

    async def moved(self) -> None:
        """Wait for ever: every beat asks every master, which is enough."""
        await asyncio.get_running_loop().create_future()

    async def forget(self) -> None:
        """The next question finds out anew who serves what."""
        self._slots = None
        for channel in self._channels.values():
            await channel.forget()

    async def close(self) -> None:
        """Close every connection."""
        for channel in self._channels.values():
            await channel.close()

    async def _ask_once(
        self,
        questions: Sequence[Question],
        wanted: dict[int, tuple[Node, bool]],
        replies: list[object],
        confirm: Confirm | None,
    ) -> dict[int, tuple[Node, bool]]:
        """:returns: what to ask where else."""
        by_node: dict[Node, list[int]] = defaultdict(list)
        for index, (node, _) in wanted.items():
            by_node[node].append(index)
        answers = await asyncio.gather(
            *(self._ask_node(node, questions, wanted, by_node[node], confirm) for node in by_node)
        )
        again: dict[int, tuple[Node, bool]] = {}
        for (node, indexes), answer in zip(by_node.items(), answers, strict=True):
            for index, reply in zip(indexes, answer, strict=True):
                if isinstance(reply, AskError):
                    is_moved = isinstance(reply, MovedError)
                    if is_moved:
                        self._slots = None
                    again[index] = Node(reply.host or node.host, reply.port), not is_moved
                else:
                    replies[index] = reply
        return again

    async def _ask_node(
        self,
        node: Node,
        questions: Sequence[Question],
        wanted: dict[int, tuple[Node, bool]],
        indexes: Sequence[int],
        confirm: Confirm | None,
    ) -> list[object]:
        commands: list[Command] = []
        places: list[int] = []
        for index in indexes:
            if wanted[index][1]:
                commands.append(_ASKING)
            places.append(len(commands))
            commands.append(questions[index].command)
        try:
            answers = await self._channel(node).ask(commands, confirm)
        except StoreUnavailable:
            # It may have been replaced: the next question finds out.
            self._slots = None
            raise
        return [answers[place] for place in places]

    def _channel(self, node: Node) -> Channel:
        if (channel := self._channels.get(node)) is None:
            connect = partial(self._dialler.dial, node)
            channel = Channel(connect, str(node), self._dialler.timeout)
            self._channels[node] = channel
        return channel

    async def _find_slots(self, is_new: bool = True) -> Slots:
        """
        Ask every node that is known who serves what.  Among the first answers that make a
        majority the newest counts, because a node that was cut off does not know.

        :param is_new: whether what somebody else has just found out is too old.
        """
        async with self._finding:
            if self._slots is not None and not is_new:
                return self._slots
            known = {*self._dialler.address.nodes, *self._channels}
            answers = await first_answers(map(self._slots_by, known), len(known) // 2 + 1)
            slots = max(answers, key=lambda answer: answer.epoch)
            self._slots = slots
            for node in [*self._channels]:
                if node not in slots.masters:
                    await self._channels.pop(node).close()
            return slots

    async def _slots_by(self, node: Node) -> Slots:
        channel = self._channel(node)
        try:
            # So that there is time left for the question, if some do not answer.
            async with asyncio.timeout(self._dialler.timeout / 2):
                return read_slots(await channel.ask(self.beat), node)
        except TimeoutError:
            raise StoreUnavailable(f"{node} did not answer in time") from None
