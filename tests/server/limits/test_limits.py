"""The gate, by property: whatever is asked, given back and cancelled, in whatever order."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.limits.fair_gate import FairGate
from tests.server.support.harness import PATIENCE

CAPACITY = 10.0


class Worker:
    """Work that holds its amount of the gate until it is told to leave."""

    def __init__(self, crowd: "Crowd", account: str, amount: float) -> None:
        self.crowd, self.account, self.amount = crowd, account, amount
        self.inside = False
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        async with self.crowd.gate.hold(self.account, self.amount):
            self.inside = True
            self.crowd.check()
            try:
                await self.leave.wait()
            finally:
                self.inside = False


class Crowd:
    def __init__(self) -> None:
        self.gate = FairGate(CAPACITY)
        self.workers: list[Worker] = []

    def inside(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.inside]

    def check(self) -> None:
        inside = self.inside()
        assert len(inside) <= 1 or sum(worker.amount for worker in inside) <= CAPACITY + 1e-6

    async def act(self, name: str, account: str, amount: float, which: int) -> None:
        unfinished = [worker for worker in self.workers if not worker.task.done()]
        if name == "enter":
            self.workers.append(Worker(self, account, amount))
        elif name == "settle":
            await settled()
        elif unfinished:
            worker = unfinished[which % len(unfinished)]
            if name == "leave":
                worker.leave.set()
            else:
                worker.task.cancel()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


ACTIONS = st.tuples(
    st.sampled_from(("enter", "settle", "leave", "cancel")),
    st.sampled_from("AB"),
    st.sampled_from((0.000001, 5.0, CAPACITY / 3, CAPACITY, 25.0)),
    st.integers(0, 3),
)


@given(st.lists(ACTIONS, min_size=10, max_size=40))
def test_capacity_holds_and_no_waiter_is_lost(actions: list[tuple[str, str, float, int]]) -> None:
    async def live() -> None:
        crowd = Crowd()
        for action in actions:
            await crowd.act(*action)
        await settled()
        for worker in crowd.workers:
            worker.leave.set()
        ended = await asyncio.wait_for(
            asyncio.gather(*(worker.task for worker in crowd.workers), return_exceptions=True), PATIENCE
        )
        assert all(error is None or isinstance(error, asyncio.CancelledError) for error in ended)
        async with asyncio.timeout(PATIENCE), crowd.gate.hold("A", CAPACITY):
            pass  # all of the capacity is back

    asyncio.run(live())


@given(st.lists(ACTIONS, min_size=10, max_size=40))
def test_room_is_not_left_unused(actions: list[tuple[str, str, float, int]]) -> None:
    """Once things settle, the gate is empty only if nobody waits."""

    async def live() -> None:
        crowd = Crowd()
        for action in actions:
            await crowd.act(*action)
        await settled()
        await settled()
        unfinished = [worker for worker in crowd.workers if not worker.task.done()]
        assert crowd.inside() or not unfinished
        for worker in unfinished:
            worker.task.cancel()
        await asyncio.gather(*(worker.task for worker in crowd.workers), return_exceptions=True)

    asyncio.run(live())


async def order_of(*jobs: tuple[str, float], first: tuple[str, float]) -> str:
    """The accounts in the order they get in, each leaving as soon as it is in, behind a first one."""
    gate, order = FairGate(CAPACITY), ""

    async def work(account: str, amount: float) -> None:
        nonlocal order
        async with gate.hold(account, amount):
            order += account
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group, gate.hold(*first):
        for job in jobs:
            group.create_task(work(*job))
        await settled()
        assert not order
    return order


async def test_accounts_take_turns_however_much_one_of_them_sends() -> None:
    order = await order_of(*[("A", CAPACITY)] * 20, ("B", CAPACITY), ("C", CAPACITY), first=("A", CAPACITY))
    assert set(order[:3]) == {"A", "B", "C"}
    assert Counter(order) == {"A": 20, "B": 1, "C": 1}


async def test_a_large_job_is_not_overtaken_for_ever_by_small_ones() -> None:
    order = await order_of(("B", 2 * CAPACITY), *[("A", 1.0)] * 50, *[("C", 1.0)] * 50, first=("A", CAPACITY))
    assert order.index("B") <= 1


async def test_an_account_that_uses_nothing_comes_before_one_that_works() -> None:
    gate = FairGate(CAPACITY)
    entered: list[str] = []

    async def work(account: str) -> None:
        async with gate.hold(account, 5.0):
            entered.append(account)
            await asyncio.Event().wait()

    async with gate.hold("A", 5.0):
        async with gate.hold("A", 5.0):
            waiting = [asyncio.create_task(work(account)) for account in "AAB"]
            await settled()
        await settled()
        assert entered == ["B"]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("admitted_first", [False, True])
async def test_a_cancelled_waiter_makes_room_in_the_same_moment(admitted_first: bool) -> None:
    """Cancelled and let in within one step of the event loop, in either order, nothing leaks."""
    gate = FairGate(CAPACITY)

    async def work(leave: asyncio.Event, result: list[Any]) -> None:
        async with gate.hold("A", CAPACITY):
            await leave.wait()
        result.append(True)

    leave, done = asyncio.Event(), []  # type: ignore[var-annotated]
    holder = asyncio.create_task(work(leave, done))
    await settled()
    waiter = asyncio.create_task(work(leave, done))
    await settled()
    leave.set()
    if admitted_first:
        await holder
    waiter.cancel()
    await holder
    with suppress(asyncio.CancelledError):
        await waiter
    async with asyncio.timeout(PATIENCE), gate.hold("B", CAPACITY):
        pass


async def test_an_account_leaves_room_for_one_that_comes() -> None:
    gate = FairGate(CAPACITY, 6.0)
    entered: list[str] = []

    async def work(account: str, amount: float) -> None:
        async with gate.hold(account, amount):
            entered.append(account)
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        working = [group.create_task(work("A", 3.0)) for _ in range(5)]
        await settled()
        assert entered == ["A", "A"]
        working.append(group.create_task(work("B", 4.0)))
        await settled()
        assert entered == ["A", "A", "B"]
        working[0].cancel()
        await settled()
        assert entered == ["A", "A", "B", "A"]
        for task in working:
            task.cancel()


async def test_what_is_larger_than_a_share_runs_as_the_only_one_of_its_account() -> None:
    gate = FairGate(CAPACITY, 6.0)
    async with asyncio.timeout(PATIENCE), gate.hold("A", 9.0):
        second = asyncio.create_task(gate.hold("A", 0.5).__aenter__())
        await settled()
        assert not second.done()
        async with gate.hold("B", 1.0):
            pass
    await second


async def test_work_of_no_account_has_its_turn_like_any_other() -> None:
    gate = FairGate(1)
    async with asyncio.timeout(PATIENCE):
        for account in (None, "ada", None):
            async with gate.hold(account, 1):
                pass
