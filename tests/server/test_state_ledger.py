"""Money: exact, and never spent twice."""

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import func, select

from server.protocol.errors import ErrorItem
from server.state import ledger, tasks
from server.state.accounts import AccountId, account_named
from server.state.database import Database, accounts
from server.state.database import ledger as entries
from server.state.ledger import to_nanodollars, to_usd
from server.state.tasks import StoredResult
from tests.server.harness import new_uuid

NOW = 1_000_000.0
RESULT = StoredResult(image_uuid="i", image_name="i.png", input_image_uuid="j")
FAILURE = ErrorItem(code="taskCancelled", message="the task was cancelled")

amounts = st.integers(0, 5_000)


def accept(database: Database, account: AccountId) -> str:
    task = new_uuid()
    assert database.run_sync(tasks.accept, account, task, b"{}", None, NOW) is None
    return task


def sum_of_entries(database: Database, account: AccountId) -> int:
    query = select(func.coalesce(func.sum(entries.c.amount), 0)).where(entries.c.account_id == account)
    return int(database.run_sync(lambda connection: connection.scalar(query)) or 0)


def row(database: Database, account: AccountId) -> tuple[int | None, int]:
    query = select(accounts.c.balance, accounts.c.reserved).where(accounts.c.id == account)
    balance, reserved = database.run_sync(lambda connection: connection.execute(query).one())
    return balance, reserved


class Bookkeeping(RuleBasedStateMachine):
    """Whatever happens in whatever order, the account agrees with a plain sum on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database("sqlite://")
        self.account = self.database.run_sync(account_named, "ada", NOW, balance=0)
        self.balance = 0
        self.charged: list[int] = []
        self.open: dict[str, int] = {}

    def teardown(self) -> None:
        self.database.close()

    @rule(amount=st.integers(1, 10_000))
    def deposit(self, amount: int) -> None:
        self.database.run_sync(ledger.deposit, self.account, amount, NOW)
        self.balance += amount

    @rule(amount=amounts)
    def begin(self, amount: int) -> None:
        task = accept(self.database, self.account)
        payable = self.balance - sum(self.open.values()) >= amount
        assert self.database.run_sync(ledger.reserve, self.account, task, amount) is payable
        self.open[task] = amount if payable else 0

    @precondition(lambda self: self.open)
    @rule(data=st.data(), again=st.booleans())
    def succeed(self, data: st.DataObject, again: bool) -> None:
        task = data.draw(st.sampled_from(sorted(self.open)))
        for _ in range(1 + again):
            record = self.database.run_sync(tasks.succeed, self.account, task, RESULT, NOW)
            assert record.result is not None
            assert record.result.cost == self.open[task]
        self.balance -= self.open[task]
        self.charged.append(self.open.pop(task))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), again=st.booleans())
    def fail(self, data: st.DataObject, again: bool) -> None:
        task = data.draw(st.sampled_from(sorted(self.open)))
        for _ in range(1 + again):
            self.database.run_sync(tasks.fail, self.account, task, FAILURE, NOW)
        del self.open[task]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def begin_again_after_a_restart(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.open)))
        assert self.database.run_sync(ledger.release, self.account, task) == self.open[task]
        assert self.database.run_sync(ledger.release, self.account, task) == 0
        assert self.database.run_sync(ledger.reserve, self.account, task, self.open[task])

    @invariant()
    def the_account_agrees(self) -> None:
        assert row(self.database, self.account) == (self.balance, sum(self.open.values()))
        available = self.database.run_sync(ledger.statement, self.account).available
        assert available == self.balance - sum(self.open.values())
        assert available >= 0

    @invariant()
    def the_entries_add_up(self) -> None:
        assert sum_of_entries(self.database, self.account) == self.balance
        charged = self.database.run_sync(ledger.spent, self.account)
        assert charged == (sum(self.charged), len(self.charged))


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = hypothesis_settings(max_examples=20, stateful_step_count=30, deadline=None)


def test_threads_together_cannot_spend_more_than_there_is(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=0)
    database.run_sync(ledger.deposit, account, 1_000, NOW)
    open_tasks = [accept(database, account) for _ in range(60)]
    together = threading.Barrier(6)

    def spend(seed: int) -> int:
        paid = 0
        together.wait()
        for number, task in enumerate(open_tasks[seed * 10 : seed * 10 + 10]):
            if database.run_sync(ledger.reserve, account, task, 70):
                if (number + seed) % 2:
                    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
                    paid += 70
                else:
                    database.run_sync(tasks.fail, account, task, FAILURE, NOW)
            available = database.run_sync(ledger.statement, account).available
            assert available is not None
            assert available >= 0
        return paid

    with ThreadPoolExecutor(6) as threads:
        paid = sum(threads.map(spend, range(6)))
    assert row(database, account) == (1_000 - paid, 0)
    assert sum_of_entries(database, account) == 1_000 - paid
    assert database.run_sync(ledger.spent, account)[0] == paid


def test_of_many_reservations_at_once_only_those_that_can_be_paid_succeed(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=1_000)
    open_tasks = [accept(database, account) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        granted = list(
            threads.map(lambda task: database.run_sync(ledger.reserve, account, task, 100), open_tasks)
        )
    assert granted.count(True) == 10
    assert database.run_sync(ledger.statement, account).available == 0


def test_an_account_without_a_limit_pays_everything_and_its_charges_are_kept(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW)
    task = accept(database, account)
    assert database.run_sync(ledger.reserve, account, task, 10**15)
    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    assert database.run_sync(ledger.statement, account) == ("ada", None)
    assert database.run_sync(ledger.spent, account) == (10**15, 1)
    assert row(database, account) == (None, 0)


def test_the_first_deposit_gives_an_account_a_limit(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW)
    database.run_sync(ledger.deposit, account, 500, NOW)
    assert database.run_sync(ledger.statement, account).available == 500
    assert not database.run_sync(ledger.reserve, account, accept(database, account), 501)


def test_accounts_do_not_pay_for_each_other(database: Database) -> None:
    ada = database.run_sync(account_named, "ada", NOW, balance=100)
    bob = database.run_sync(account_named, "bob", NOW, balance=100)
    task = accept(database, ada)
    assert database.run_sync(tasks.accept, bob, task, b"{}", None, NOW) is None, (
        "the same UUID is another task"
    )
    assert database.run_sync(ledger.reserve, ada, task, 60)
    database.run_sync(tasks.succeed, ada, task, RESULT, NOW)
    assert database.run_sync(ledger.statement, ada).available == 40
    assert database.run_sync(ledger.statement, bob).available == 100
    assert database.run_sync(ledger.spent, bob) == (0, 0)


def test_spending_is_counted_from_a_time_on_and_without_deposits(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=0)
    database.run_sync(ledger.deposit, account, 100, NOW)
    for when, amount in ((NOW, 10), (NOW + 10, 20)):
        task = accept(database, account)
        database.run_sync(ledger.reserve, account, task, amount)
        database.run_sync(tasks.succeed, account, task, RESULT, when)
    assert database.run_sync(ledger.spent, account) == (30, 2)
    assert database.run_sync(ledger.spent, account, NOW + 5) == (20, 1)
    assert database.run_sync(ledger.spent, account, NOW + 11) == (0, 0)


@given(st.integers(0, 10**18))
def test_amounts_survive_the_way_to_usd_and_back(amount: int) -> None:
    assert to_nanodollars(to_usd(amount)) == amount


@pytest.mark.parametrize("usd", ["0.0000000001", "1.0000000005", "nan", "inf", "-inf"])
def test_what_is_not_a_whole_number_of_nanodollars_is_refused(usd: str) -> None:
    with pytest.raises(ValueError, match=r"USD is not a whole number|is not an amount"):
        to_nanodollars(Decimal(usd))


def test_usd_is_written_without_superfluous_zeros() -> None:
    shown = [str(to_usd(amount)) for amount in (0, 1_000, 1_300_000, 100 * 10**9)]
    assert shown == ["0", "0.000001", "0.0013", "100"]
