"""The promise that everything else is built around: what is delivered is charged once, at its price.

So is what leaves a server before: tiles by their part of the price, results that are uploaded whole.

Tasks are sent, cancelled and sent again, at two servers, whose connections to clients and to the database are
cut, which are killed and replaced, in any order and at the same time. Nothing that is delivered is free,
nothing that is charged is lost, and nothing is charged twice.

    pytest -s -m slow tests/server/upscale/test_charged_once.py

takes ten thousand steps on each database.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from server.protocol.errors import DatabaseUnavailableError, TaskError
from server.state.accounts import account_named
from server.state.audit import audit
from server.state.database import Database
from server.state.logins import Login
from server.state.records import Status, TaskRecord
from server.state.tasks import find
from tests.server.support.harness import new_uuid
from tests.server.support.nodes import PARTS, PRICES, Client, Node, World, charges_of, request_for
from tests.server.support.postgresql import PostgreSQL

CREDIT = 60_000
SESSIONS = ("first", "second")

nodes = st.integers(0, 1)
numbers = st.integers(0, 30)
sessions = st.sampled_from(SESSIONS)
actions = st.one_of(
    st.tuples(st.just("send"), nodes, st.sampled_from(sorted(PRICES)), sessions),
    st.tuples(st.just("send_again"), nodes, numbers, sessions),
    st.tuples(st.just("cancel"), nodes, numbers),
    st.tuples(st.just("work"), nodes, numbers),
    st.tuples(st.just("work"), nodes, numbers),
    st.tuples(st.just("look"), nodes),
    st.tuples(st.just("connect"), nodes, sessions),
    st.tuples(st.just("cut"), sessions),
    st.tuples(st.just("lose"), nodes, st.lists(st.sampled_from(["before", "after", ""]), max_size=3)),
)


class Customers(RuleBasedStateMachine):
    """Customers of one account, and what they got of two servers."""

    new_url: ClassVar[Callable[[], str]]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).new_url()
        self.books = Database(self.url)
        self.account = self.books.run_sync(account_named, "ada", 0.0, balance=CREDIT)
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.nodes = [self.new_node(), self.new_node()]
        self.clients: dict[str, Client] = {}
        self.everyone: list[Client] = []
        self.models: dict[str, str] = {}
        self.answered: list[tuple[str, int]] = []
        self.promised: set[str] = set()
        self.refused: dict[str, Node] = {}
        """Tasks that were never answered but that the database failed, and who said so last."""

    def new_node(self) -> Node:
        async def begin() -> Node:
            return Node(self.url, self.account, self.world)

        return self.loop.run_until_complete(begin())

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self.finish())
            self.everything_is_in_order()
            self.nothing_that_is_charged_is_lost()
        finally:
            for node in self.nodes:
                self.loop.run_until_complete(node.crash())
            self.loop.close()
            self.books.close()

    @rule(together=st.lists(actions, min_size=1, max_size=3))
    def some_act_together(self, together: list[tuple[Any, ...]]) -> None:
        type(self).steps += len(together)
        self.loop.run_until_complete(self.act(together))

    @rule(
        node=nodes,
        model=st.sampled_from(["tiles", "failing tiles", "upload"]),
        session=sessions,
        steps=st.integers(2, PARTS + 2),
        end=st.sampled_from(["cancel", "kill", "cut", ""]),
        together=st.lists(actions, max_size=2),
    )
    def a_part_of_a_result_leaves(
        self, node: int, model: str, session: str, steps: int, end: str, together: list[tuple[Any, ...]]
    ) -> None:
        """A client that is connected gets tiles, or an upload is under way, when something happens."""
        type(self).steps += 2 + steps + len(together)
        self.loop.run_until_complete(self.act([("connect", node, session)]))
        self.loop.run_until_complete(self.act([("send", node, model, session)]))
        task = list(self.models)[-1]
        for _ in range(steps):
            self.loop.run_until_complete(self.act([("work_at", node, task)]))
        happens = {"cancel": [("cancel_it", node, task)], "cut": [("cut", session)]}
        self.loop.run_until_complete(
            self.act([*happens.get(end, []), *together], node if end == "kill" else None)
        )

    @rule(together=st.lists(actions, max_size=2), victim=nodes, delay=st.integers(0, 8))
    def a_server_is_killed(self, together: list[tuple[Any, ...]], victim: int, delay: int) -> None:
        type(self).steps += 1 + len(together)
        self.loop.run_until_complete(self.act(together, victim, delay))

    @invariant()
    def everything_is_in_order(self) -> None:
        assert self.books.snapshot(audit).mistakes == []
        charged = self.charged()
        got = dict(self.got())
        for task, model in self.models.items():
            amount, price = charged.get(task, 0), PRICES[model]
            record = self.books.run_sync(find, self.account, task)
            owed = amount if record is None else max(amount, record.due)
            assert amount <= price, "it was charged more than once"
            assert amount <= self.most(task, price), "it was charged, and nothing left"
            assert owed >= self.least(task, price), "a part of it was free"
            if task in got:
                assert (amount, got[task]) == (price, price), f"{task} was delivered: {record}"

    def charged(self) -> dict[str, int]:
        """What each task was charged in all."""
        return {task: sum(amounts) for task, amounts in self.books.run_sync(charges_of, self.account).items()}

    def least(self, task: str, price: int) -> int:
        """What is to be paid for what somebody has of a task."""
        if task in self.world.uploaded:
            return price
        return min(math.ceil(price * sum(client.tiles[task] for client in self.everyone) / PARTS), price)

    def most(self, task: str, price: int) -> int:
        """What may be charged for what may have left of a task, to a client that was gone perhaps."""
        record = self.books.run_sync(find, self.account, task)
        if record is not None and record.result is not None:
            return price
        tiles = [count for attempt, count in self.world.tiles.items() if attempt.task_uuid == task]
        return min(sum(math.ceil(price * count / PARTS / 1000) * 1000 for count in tiles), price)

    def nothing_that_is_charged_is_lost(self) -> None:
        got = {task for task, _ in self.got()}
        for task, amount in self.charged().items():
            record = self.books.run_sync(find, self.account, task)
            assert record is not None
            if record.error is not None:
                assert round((record.error.cost or 0) * 10**9) == amount, "the error says what it costs"
                continue
            assert task in got, "it was charged, and never came"
            assert task not in self.refused, "it was refused, and charged"

    def got(self) -> list[tuple[str, int]]:
        return self.answered + [result for client in self.everyone for result in client.results]

    async def act(self, together: list[tuple[Any, ...]], victim: int | None = None, delay: int = 0) -> None:
        begun = [(asyncio.create_task(self.do(*action)), action) for action in together]
        if victim is not None:
            for _ in range(delay):
                await asyncio.sleep(0)
            await self.kill(victim, [task for task, action in begun if victim in action])
        await asyncio.gather(*(task for task, _ in begun), return_exceptions=victim is not None)
        for node in self.nodes:
            await node.settle()

    async def kill(self, victim: int, waiting: list[asyncio.Task[None]]) -> None:
        """Kill a server; those who wait for it never learn what became of what they asked."""
        node = self.nodes[victim]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for client in self.everyone:
            client.is_cut = client.is_cut or node.has(client)
        await node.crash()
        # Killed within the second in which the server would have withdrawn it: nobody knows of it any more.
        self.refused = {task: at for task, at in self.refused.items() if at is not node}
        self.nodes[victim] = Node(self.url, self.account, self.world)

    async def do(self, kind: str, *arguments: Any) -> None:
        act: Callable[..., Coroutine[Any, Any, None]] = getattr(self, f"do_{kind}")
        try:
            await act(*arguments)
        except DatabaseUnavailableError:
            return

    async def do_send(self, node: int, model: str, session: str) -> None:
        task = new_uuid()
        self.models[task] = model
        await self.submit(self.nodes[node], task, session)

    async def do_send_again(self, node: int, number: int, session: str) -> None:
        if self.models:
            await self.submit(self.nodes[node], self.task(number), session)

    async def submit(self, node: Node, task: str, session: str) -> None:
        request = request_for(task, self.models[task])
        try:
            taken = await node.runner.submit(self.account, request, session=session, base_url="http://us")
        except DatabaseUnavailableError:
            if task not in self.promised:
                self.refused[task] = node
            raise
        except TaskError:
            return
        self.promised.add(task)
        self.refused.pop(task, None)
        if isinstance(taken, TaskRecord) and taken.status is Status.SUCCEEDED and taken.error is None:
            assert taken.result is not None
            self.answered.append((task, taken.result.cost))

    async def do_cancel(self, node: int, number: int) -> None:
        if self.models:
            await self.do_cancel_it(node, self.task(number))

    async def do_cancel_it(self, node: int, task: str) -> None:
        await self.nodes[node].runner.cancel(Login(self.account, None), task, "http://us")

    async def do_work(self, node: int, number: int) -> None:
        if waiting := self.nodes[node].pipeline.waiting:
            waiting[number % len(waiting)][1].set()

    async def do_work_at(self, node: int, task: str) -> None:
        for attempt, event in self.nodes[node].pipeline.waiting:
            if attempt.task_uuid == task:
                event.set()

    async def do_look(self, node: int) -> None:
        await self.nodes[node].look()

    async def do_connect(self, node: int, session: str) -> None:
        self.clients[session] = client = Client()
        self.everyone.append(client)
        await self.nodes[node].connect(session, client)

    async def do_cut(self, session: str) -> None:
        if session in self.clients:
            self.clients[session].is_cut = True

    async def do_lose(self, node: int, cuts: list[str]) -> None:
        self.nodes[node].database.cuts += cuts

    def task(self, number: int) -> str:
        """One of the tasks that were sent last."""
        return list(self.models)[-8:][number % min(8, len(self.models))]

    async def finish(self) -> None:
        """Have everything end, and everybody get what there is for them."""
        for node in self.nodes:
            node.database.cuts.clear()
        for _ in range(8):
            for node in self.nodes:
                await node.look()
                await node.settle()
                while node.pipeline.waiting:
                    for _, event in node.pipeline.waiting:
                        event.set()
                    await node.settle()
        for session in SESSIONS:
            await self.do_connect(0, session)
            await self.nodes[0].settle()
        for task in self.models:
            record = self.books.run_sync(find, self.account, task)
            assert record is None or record.status is not Status.ACCEPTED, "it has no outcome"


def run(monkeypatch: pytest.MonkeyPatch, new_url: Callable[[], str], examples: int, steps: int) -> int:
    """Run some examples, of so many steps at most; returns how many things happened."""
    monkeypatch.setattr("server.state.database._TRY_AGAIN_AFTER", 0.001)
    machine = type("Machine", (Customers,), {"new_url": staticmethod(new_url), "steps": 0})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # a failing run shows its steps; to find fewer takes minutes
    )
    run_state_machine_as_test(machine, settings=chosen)
    return int(machine.steps)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives new databases."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / new_uuid()}.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database


def test_what_is_delivered_is_charged_once_at_its_price(
    monkeypatch: pytest.MonkeyPatch, new_url: Callable[[], str]
) -> None:
    assert run(monkeypatch, new_url, examples=4, steps=25) > 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_delivered_is_charged_once_at_its_price_in_ten_thousand_steps(
    monkeypatch: pytest.MonkeyPatch, new_url: Callable[[], str]
) -> None:
    taken = 0
    while taken < 10_000:
        taken += run(monkeypatch, new_url, examples=100, steps=50)
    print(f"\n{taken} steps")
