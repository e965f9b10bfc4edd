"""
How much a client may send that carries nothing.
"""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from mtlsgate.http2.budgets import ALLOWANCES, Budgets, Spent
from mtlsgate.http2.faults import ConnectionFault


class Time:
    now = 1000.0

    def seconds(self) -> float:
        return self.now


def spend(budgets: Budgets, what: Spent, times: int) -> None:
    for _ in range(times):
        budgets.spend(what)


@pytest.mark.parametrize("what", Spent)
def test_a_budget_ends(what: Spent) -> None:
    budgets = Budgets(Time().seconds)
    spend(budgets, what, ALLOWANCES[what].burst)
    with pytest.raises(ConnectionFault) as caught:
        budgets.spend(what)
    assert caught.value.code is ErrorCodes.ENHANCE_YOUR_CALM
    assert caught.value.cause == f"too many {what.value}"


@pytest.mark.parametrize("what", Spent)
def test_time_refills_it_and_never_beyond_its_size(what: Spent) -> None:
    time = Time()
    budgets = Budgets(time.seconds)
    spend(budgets, what, ALLOWANCES[what].burst)
    time.now += 10 / ALLOWANCES[what].rate
    spend(budgets, what, 10)
    time.now += 1e9
    spend(budgets, what, ALLOWANCES[what].burst)
    with pytest.raises(ConnectionFault):
        budgets.spend(what)


def test_budgets_do_not_depend_on_each_other() -> None:
    budgets = Budgets(Time().seconds)
    spend(budgets, Spent.PING, ALLOWANCES[Spent.PING].burst)
    budgets.spend(Spent.SETTINGS)


def test_useful_work_refills_some() -> None:
    """A client may reset one request for each that it takes in full, and PING as bytes come."""
    budgets = Budgets(Time().seconds)
    spend(budgets, Spent.RESET, ALLOWANCES[Spent.RESET].burst)
    spend(budgets, Spent.PING, ALLOWANCES[Spent.PING].burst)
    budgets.answered()
    budgets.came()
    budgets.spend(Spent.RESET)
    spend(budgets, Spent.PING, 2)


@pytest.mark.parametrize("what", [Spent.PRIORITY, Spent.UNKNOWN])
def test_a_client_may_order_its_requests(what: Spent) -> None:
    """By PRIORITY, or by PRIORITY_UPDATE, which is not known here."""
    budgets = Budgets(Time().seconds)
    for _ in range(2 * ALLOWANCES[what].burst):
        budgets.spend(what)
        budgets.answered()


def test_a_client_may_ping_for_each_message_that_it_gets() -> None:
    """Clients of gRPC do, however short the messages are."""
    budgets = Budgets(Time().seconds)
    for _ in range(2 * ALLOWANCES[Spent.PING].burst):
        budgets.sent(20)
        budgets.spend(Spent.PING)


def test_a_window_of_one_byte_pays_for_nothing() -> None:
    """CVE-2019-9511: the server would send a frame for each byte."""
    budgets = Budgets(Time().seconds)
    for _ in range(ALLOWANCES[Spent.WINDOW].burst):
        budgets.spend(Spent.WINDOW)
        budgets.sent(1)
    with pytest.raises(ConnectionFault):
        spend(budgets, Spent.WINDOW, 10)
