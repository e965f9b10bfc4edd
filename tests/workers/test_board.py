"""
What all workers count together.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice

import pytest

from mtlsgate.gate.limits import Limits
from mtlsgate.reasons import Reason
from mtlsgate.workers.board import Board

IP = "192.0.2.1"


@pytest.fixture
def board() -> Iterator[Board]:
    found = Board.create(3)
    yield found
    os.close(found.descriptor)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_connections=2), Reason.TOO_MANY_CONNECTIONS),
        (Limits(max_connections_per_identity=2), Reason.TOO_MANY_OF_IDENTITY),
    ],
)
def test_admitted_clients_of_all_workers_count(
    board: Board, limits: Limits, reason: Reason
) -> None:
    """A limit is that of the gate, whichever workers the clients come to."""
    tallies = [board.tally(worker, "door") for worker in range(3)]
    for tally in tallies[:2]:
        assert tally.arrive(limits, IP, 0.0) is None
        assert tally.admit(limits, b"alice") is None
    tallies[2].arrived(IP)
    rejection = tallies[2].admit(limits, b"alice")
    assert rejection is not None
    assert rejection.reason is reason
    tallies[0].ended(IP, b"alice", admitted=True)
    assert tallies[2].admit(limits, b"alice") is None


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_handshakes=2), Reason.TOO_MANY_HANDSHAKES),
        (Limits(max_connections_per_ip=2), Reason.TOO_MANY_FROM_ADDRESS),
        (Limits(handshakes_per_second_per_ip=2), Reason.HANDSHAKE_RATE),
    ],
)
def test_arrivals_at_all_workers_count(board: Board, limits: Limits, reason: Reason) -> None:
    """As they come, too."""
    tallies = [board.tally(worker, "door") for worker in range(3)]
    assert tallies[0].arrive(limits, IP, 0.0) is None
    assert tallies[1].arrive(limits, IP, 0.0) is None
    rejection = tallies[2].arrive(limits, IP, 0.0)
    assert rejection is not None
    assert rejection.reason is reason


def test_servers_and_clients_do_not_count_for_each_other(board: Board) -> None:
    """Each has its own limit."""
    limits = Limits(max_connections_per_identity=1, max_connections_per_ip=1)
    first, second = board.tally(0, "door"), board.tally(1, "door")
    other = board.tally(1, "hatch")
    for tally, address, who in (
        (first, IP, b"alice"),
        (second, "192.0.2.2", b"bob"),
        (other, IP, b"alice"),
    ):
        assert tally.arrive(limits, address, 0.0) is None
        assert tally.admit(limits, who) is None


def test_a_killed_worker_gives_its_counts_back(board: Board) -> None:
    """The supervisor clears what it counted, and nothing else."""
    limits = Limits(max_connections_per_identity=2)
    killed, other, third = (board.tally(worker, "door") for worker in range(3))
    for tally in (killed, other):
        tally.arrived(IP)
        assert tally.admit(limits, b"alice") is None
    third.arrived(IP)
    assert third.admit(limits, b"alice") is not None
    board.clear(0)
    assert third.admit(limits, b"alice") is None
    third.arrived(IP)
    assert third.admit(limits, b"alice") is not None


def test_a_rate_refills(board: Board) -> None:
    """A source that waits gets in again, at any worker."""
    limits = Limits(handshakes_per_second_per_ip=1)
    tallies = [board.tally(worker, "door") for worker in range(2)]
    assert tallies[0].arrive(limits, IP, 100.0) is None
    assert tallies[1].arrive(limits, IP, 100.5) is not None
    assert tallies[1].arrive(limits, IP, 101.5) is None


def test_rates_of_many_sources_are_remembered_for_the_latest(board: Board) -> None:
    """When a set is full, the source that was silent longest is forgotten."""
    limits = Limits(handshakes_per_second_per_ip=1)
    tally = board.tally(0, "door")
    for number in range(70_000):
        assert tally.arrive(limits, f"source {number}", number * 1e-6) is None
    assert tally.arrive(limits, "source 69999", 0.1) is not None


def test_every_connection_has_a_number_of_its_own(board: Board) -> None:
    """Whichever worker has it, in the order in which they came."""
    first, second = board.numbers(), board.numbers()
    assert [next(first), next(second), next(second), next(first)] == [1, 2, 3, 4]


def test_many_counts_come_and_go(board: Board) -> None:
    """Every count can be found while it is there, and leaves its place when it goes."""
    tally, other = board.tally(0, "door"), board.tally(1, "door")
    identities = [b"%d" % number for number in range(20_000)]
    for identity in identities:
        tally.arrived(None)
        tally.admitted(identity)
    limits = Limits(max_connections_per_identity=1)
    other.arrived(None)
    assert all(other.refuse_admission(limits, one) is not None for one in identities[::97])
    for identity in identities:
        tally.ended(None, identity, admitted=True)
    assert all(other.refuse_admission(limits, one) is None for one in identities[::97])


def test_a_worker_that_is_killed_while_it_decides_keeps_nobody_waiting() -> None:
    """The system releases its lock."""
    board = Board.create(2)
    ready, tell = os.pipe()
    process = os.fork()
    if process == 0:
        with board:
            os.write(tell, b"1")
            signal.pause()
    os.read(ready, 1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert board.tally(1, "door").arrive(Limits(max_handshakes=1), IP, 0.0) is None


def test_processes_that_decide_at_the_same_time_never_exceed_a_limit() -> None:
    """Four of them try to admit the same client a thousand times each."""
    board, limits = Board.create(4), Limits(max_connections_per_identity=3)
    results, tell = os.pipe()
    processes = []
    for worker in range(4):
        process = os.fork()
        if process == 0:
            tally = board.tally(worker, "door")
            admitted = 0
            for _ in range(1000):
                tally.arrived(None)
                if tally.admit(limits, b"alice") is None:
                    admitted += 1
                else:
                    tally.ended(None, None, admitted=False)
            os.write(tell, bytes([admitted]))
            os._exit(0)
        processes.append(process)
    for process in processes:
        os.waitpid(process, 0)
    assert sum(os.read(results, 4)) == 3
    # Each number is given once, however many ask.
    assert list(islice(board.numbers(), 2)) == [1, 2]
