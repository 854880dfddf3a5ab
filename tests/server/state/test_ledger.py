"""Money: exact, and never spent twice."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from server.money import to_nanodollars, to_usd
from server.protocol.errors import ErrorItem
from server.state import ledger, tasks
from server.state.accounts import AccountId, account_named
from server.state.audit import audit
from server.state.books import day_of
from server.state.database import Database
from server.state.images import ImageRecord
from server.state.loose_files import note_loose
from server.state.records import Attempt, Status, StoredResult
from server.state.retention import forget_failed
from server.state.tables import accounts
from server.state.takeover import take_over
from tests.server.support.harness import new_uuid
from tests.server.support.records import accepted, attempt_of, record_of

NOW = 1_000_000.0
DAY = 86400
RESULT = StoredResult(image_uuid="i", image_name="i.png", input_image_uuid="j")
FAILURE = ErrorItem(code="taskCancelled", message="the task was cancelled")

amounts = st.integers(0, 5_000)


def accept(database: Database, account: AccountId) -> str:
    return accepted(database, account, NOW).task_uuid


def mistakes(database: Database) -> list[str]:
    return database.run_sync(audit).mistakes


def an_image(account: AccountId) -> ImageRecord:
    return ImageRecord(new_uuid(), account, f"{new_uuid()}.png", 10, 1, 1, NOW + DAY)


def attempt_has_price(database: Database, attempt: Attempt) -> bool:
    return record_of(database, attempt.account, attempt.task_uuid).price is not None


def row(database: Database, account: AccountId) -> tuple[int | None, int]:
    query = select(accounts.c.balance, accounts.c.reserved).where(accounts.c.id == account)
    balance, reserved = database.run_sync(lambda connection: connection.execute(query).one())
    return balance, reserved


class Paper(NamedTuple):
    """What a task should have set aside, and whether from the balance.

    `owed` is what it owes of its price in all, `paid` what it was charged when it was tried before.
    """

    account: AccountId
    price: int = 0
    from_balance: bool = False
    owed: int = 0
    paid: int = 0
    kept: bool = False

    @property
    def amount(self) -> int:
        return max(self.price - self.paid, 0)


class Bookkeeping(RuleBasedStateMachine):
    """Whatever happens in whatever order, the accounts agree with plain sums on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database("sqlite://")
        ada = self.database.run_sync(account_named, "ada", NOW, balance=0)
        bob = self.database.run_sync(account_named, "bob", NOW)
        self.balances: dict[AccountId, int | None] = {ada: 0, bob: None}
        self.charged: dict[AccountId, list[int]] = {ada: [], bob: []}
        self.open: dict[str, Paper] = {}
        self.failed: list[tuple[str, Paper]] = []

    def teardown(self) -> None:
        self.database.close()

    def a_task(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.open)))

    def attempt(self, task: str) -> Attempt:
        return attempt_of(self.database, self.open[task].account, task)

    def take(self, task: str, paper: Paper, price: int) -> None:
        balance = self.balances[paper.account]
        wanted = paper._replace(price=max(price, paper.paid), from_balance=balance is not None)
        payable = balance is None or balance >= wanted.amount
        attempt = attempt_of(self.database, paper.account, task)
        assert self.database.run_sync(tasks.reserve, attempt, price, NOW) is payable
        self.open[task] = wanted if payable else paper
        if payable and balance is not None:
            self.balances[paper.account] = balance - wanted.amount

    def end(self, paper: Paper, owed: int) -> Paper:
        """What it owes beyond what it paid is charged, the rest given back."""
        charged = max(owed - paper.paid, 0) if paper.amount else 0
        if charged:
            self.charged[paper.account].append(charged)
        if paper.from_balance:
            self.balances[paper.account] = (self.balances[paper.account] or 0) + paper.amount - charged
        return paper._replace(price=0, from_balance=False, paid=paper.paid + charged)

    @rule(data=st.data(), amount=st.integers(1, 10_000))
    def deposit(self, data: st.DataObject, amount: int) -> None:
        account = data.draw(st.sampled_from(list(self.balances)))
        self.database.run_sync(ledger.deposit, account, amount, NOW)
        self.balances[account] = (self.balances[account] or 0) + amount

    @rule(data=st.data(), amount=amounts)
    def begin(self, data: st.DataObject, amount: int) -> None:
        account = data.draw(st.sampled_from(list(self.balances)))
        self.take(accept(self.database, account), Paper(account), amount)

    @precondition(lambda self: self.failed)
    @rule(amount=amounts)
    def begin_what_failed_again(self, amount: int) -> None:
        task, paper = self.failed.pop()
        again = Attempt.of(paper.account, task)
        assert self.database.run_sync(tasks.accept, again, b"{}", None, NOW) is None
        self.take(task, paper, amount)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), sent=st.integers(1, 7))
    def send_a_part(self, data: st.DataObject, sent: int) -> None:
        task = self.a_task(data)
        paper = self.open[task]
        has_price = attempt_has_price(self.database, self.attempt(task))
        assert self.database.run_sync(tasks.note_sent, self.attempt(task), sent, 7) is has_price
        if has_price:
            part = min(math.ceil(paper.price * sent / 7 / 1000) * 1000, paper.price)
            owed = min(paper.paid + part, paper.price)
            self.open[task] = paper._replace(owed=max(paper.owed, owed))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), again=st.booleans())
    def upload(self, data: st.DataObject, again: bool) -> None:
        task = self.a_task(data)
        paper = self.open[task]
        if attempt_has_price(self.database, self.attempt(task)) and not paper.kept:
            image = an_image(paper.account)
            self.database.run_sync(note_loose, image.name, NOW)
            for _ in range(1 + again):
                self.database.run_sync(tasks.keep, self.attempt(task), RESULT, image)
            self.open[task] = paper._replace(owed=paper.price, kept=True)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), again=st.booleans())
    def succeed(self, data: st.DataObject, again: bool) -> None:
        task = self.a_task(data)
        attempt, paper = self.attempt(task), self.open.pop(task)
        price = max(paper.price, paper.paid)
        for _ in range(1 + again):
            record = self.database.run_sync(tasks.succeed, attempt, RESULT, NOW)
            assert record.result is not None
            assert record.result.cost == price
        self.end(paper, price)
        if not price:
            self.charged[paper.account].append(0)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), again=st.booleans(), cancelled=st.booleans())
    def fail(self, data: st.DataObject, again: bool, cancelled: bool) -> None:
        task = self.a_task(data)
        attempt, paper = self.attempt(task), self.open.pop(task)
        for _ in range(1 + again):
            if cancelled:
                self.database.run_sync(tasks.cancel, paper.account, task, "", NOW)
            else:
                self.database.run_sync(tasks.fail, attempt, FAILURE, NOW)
        ended = self.end(paper, paper.owed)
        record = record_of(self.database, paper.account, task)
        assert record.error is not None
        if not paper.kept:
            self.failed.append((task, ended))
        elif not ended.paid:
            self.charged[paper.account].append(0)
        assert (record.status, record.charged) == (
            Status.SUCCEEDED if paper.kept else Status.FAILED,
            ended.paid,
        )

    @precondition(lambda self: self.open)
    @rule(data=st.data(), amount=amounts)
    def begin_again_after_a_restart(self, data: st.DataObject, amount: int) -> None:
        assert self.database.run_sync(take_over, self.database.server_lock(), NOW) == len(self.open)
        self.open = {task: self.end(paper, paper.owed) for task, paper in self.open.items()}
        task = self.a_task(data)
        self.take(task, self.open.pop(task), amount)

    @invariant()
    def the_accounts_agree(self) -> None:
        for account, balance in self.balances.items():
            reserved = sum(paper.amount for paper in self.open.values() if paper.account == account)
            assert row(self.database, account) == (balance, reserved)
            assert self.database.run_sync(ledger.statement, account).available == balance
            charged = self.charged[account]
            assert self.database.run_sync(ledger.spent, account) == (sum(charged), len(charged))

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        assert mistakes(self.database) == []


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = hypothesis_settings(max_examples=10, stateful_step_count=30, deadline=None)


def test_threads_together_cannot_spend_more_than_there_is(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=0)
    database.run_sync(ledger.deposit, account, 1_000, NOW)
    open_tasks = [accept(database, account) for _ in range(60)]
    together = threading.Barrier(6)

    def spend(seed: int) -> int:
        paid = 0
        together.wait()
        for number, task in enumerate(open_tasks[seed * 10 : seed * 10 + 10]):
            if database.run_sync(tasks.reserve, attempt_of(database, account, task), 70, NOW):
                if (number + seed) % 2:
                    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
                    paid += 70
                else:
                    database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW)
            available = database.run_sync(ledger.statement, account).available
            assert available is not None
            assert available >= 0
        return paid

    with ThreadPoolExecutor(6) as threads:
        paid = sum(threads.map(spend, range(6)))
    assert row(database, account) == (1_000 - paid, 0)
    assert mistakes(database) == []
    assert database.run_sync(ledger.spent, account)[0] == paid


def test_of_many_reservations_at_once_only_those_that_can_be_paid_succeed(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=1_000)
    attempts = [accepted(database, account, NOW) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        granted = list(
            threads.map(lambda attempt: database.run_sync(tasks.reserve, attempt, 100, NOW), attempts)
        )
    assert granted.count(True) == 10
    assert database.run_sync(ledger.statement, account).available == 0


def test_an_account_without_a_limit_pays_everything_and_its_charges_are_kept(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW)
    task = accept(database, account)
    assert database.run_sync(tasks.reserve, attempt_of(database, account, task), 10**15, NOW)
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert database.run_sync(ledger.statement, account) == ("ada", None)
    assert database.run_sync(ledger.spent, account) == (10**15, 1)
    assert row(database, account) == (None, 0)
    assert mistakes(database) == []


def test_the_first_deposit_gives_an_account_a_limit(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW)
    database.run_sync(ledger.deposit, account, 500, NOW)
    assert database.run_sync(ledger.statement, account).available == 500
    assert not database.run_sync(tasks.reserve, accepted(database, account, NOW), 501, NOW)


def test_what_a_task_took_before_its_account_had_a_limit_does_not_become_balance(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW)
    task = accept(database, account)
    assert database.run_sync(tasks.reserve, attempt_of(database, account, task), 900, NOW)
    database.run_sync(ledger.deposit, account, 500, NOW)
    database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW)
    assert row(database, account) == (500, 0)
    assert mistakes(database) == []


def test_a_task_that_costs_nothing_has_its_charge_too(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=0)
    task = accept(database, account)
    assert database.run_sync(tasks.reserve, attempt_of(database, account, task), 0, NOW)
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert database.run_sync(ledger.spent, account) == (0, 1)
    assert mistakes(database) == []


@pytest.mark.parametrize("statement", ["UPDATE ledger SET amount = 1", "DELETE FROM ledger"])
def test_the_database_refuses_to_change_the_ledger(database: Database, statement: str) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=100)
    with pytest.raises(DBAPIError, match="the ledger is append-only"):
        execute(database, statement)
    assert row(database, account) == (100, 0)
    assert mistakes(database) == []


@pytest.mark.parametrize("column", ["balance", "reserved"])
def test_the_database_refuses_negative_amounts(database: Database, column: str) -> None:
    database.run_sync(account_named, "ada", NOW, balance=100)
    with pytest.raises(IntegrityError, match=f"{column}_not_negative"):
        database.run_sync(lambda connection: connection.execute(update(accounts).values({column: -1})))


def test_the_database_refuses_a_second_reservation_and_a_second_end_of_an_attempt(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=100)
    attempt = accepted(database, account, NOW)
    assert database.run_sync(ledger.reserve, attempt, 10, NOW)
    with pytest.raises(IntegrityError):
        database.run_sync(ledger.reserve, attempt, 10, NOW)
    other = accepted(database, account, NOW)
    assert database.run_sync(ledger.reserve, other, 20, NOW)
    database.run_sync(ledger.settle, attempt, 10, 4, NOW)
    for end in (ledger.release, ledger.charge):
        with pytest.raises(IntegrityError):
            database.run_sync(end, attempt, 1, NOW)
    assert row(database, account) == (76, 20)


def test_an_error_says_what_the_task_costs_all_the_same(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=100_000)
    cut, kept = accepted(database, account, NOW), accepted(database, account, NOW)
    for attempt in (cut, kept):
        assert database.run_sync(tasks.reserve, attempt, 10_000, NOW)
    assert database.run_sync(tasks.note_sent, cut, 1, 3)
    image = an_image(account)
    database.run_sync(note_loose, image.name, NOW)
    database.run_sync(tasks.keep, kept, RESULT, image)
    errors = [database.run_sync(tasks.fail, attempt, FAILURE, NOW).error for attempt in (cut, kept)]
    assert [error.message for error in errors if error] == [
        "the task was cancelled; 0.000004 USD is charged for the part of the result that was sent",
        "the task was cancelled; the result is kept and costs 0.00001 USD: getResponse has it",
    ]
    assert database.run_sync(ledger.spent, account) == (14_000, 2)


def test_a_task_that_owes_is_not_forgotten_with_what_it_owes(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=100_000)
    attempt = accepted(database, account, NOW)
    assert database.run_sync(tasks.reserve, attempt, 10_000, NOW)
    assert database.run_sync(tasks.note_sent, attempt, 1, 2)
    assert database.run_sync(tasks.withdraw, attempt, NOW)
    assert database.run_sync(forget_failed, NOW + 1) == 0
    assert record_of(database, account, attempt.task_uuid).charged == 5_000
    assert mistakes(database) == []


def test_a_balance_is_bounded(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW)
    database.run_sync(ledger.deposit, account, ledger.MAX_BALANCE - 1, NOW)
    with pytest.raises(ledger.BalanceTooLargeError):
        database.run_sync(ledger.deposit, account, 2, NOW)
    database.run_sync(ledger.deposit, account, 1, NOW)
    assert database.run_sync(ledger.statement, account).available == ledger.MAX_BALANCE
    for number in range(12):  # together more than 64 bits hold
        database.run_sync(account_named, f"account {number}", NOW, balance=ledger.MAX_BALANCE)
    assert mistakes(database) == []


def execute(database: Database, statement: str) -> None:
    database.run_sync(lambda connection: connection.execute(text(statement)))


def test_accounts_do_not_pay_for_each_other(database: Database) -> None:
    ada = database.run_sync(account_named, "ada", NOW, balance=100)
    bob = database.run_sync(account_named, "bob", NOW, balance=100)
    task = accept(database, ada)
    assert database.run_sync(tasks.accept, Attempt.of(bob, task), b"{}", None, NOW) is None, (
        "the same UUID is another task"
    )
    assert database.run_sync(tasks.reserve, attempt_of(database, ada, task), 60, NOW)
    database.run_sync(tasks.succeed, attempt_of(database, ada, task), RESULT, NOW)
    assert database.run_sync(ledger.statement, ada).available == 40
    assert database.run_sync(ledger.statement, bob).available == 100
    assert database.run_sync(ledger.spent, bob) == (0, 0)


def test_spending_is_counted_from_a_time_on_and_without_deposits(database: Database) -> None:
    account = database.run_sync(account_named, "ada", NOW, balance=0)
    database.run_sync(ledger.deposit, account, 100, NOW)
    for when, amount in ((NOW, 10), (NOW + DAY, 20)):
        task = accept(database, account)
        database.run_sync(tasks.reserve, attempt_of(database, account, task), amount, NOW)
        database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, when)
    assert database.run_sync(ledger.spent, account) == (30, 2)
    today = day_of(NOW)
    of_days = [database.run_sync(ledger.spent_since, account, today + later) for later in range(3)]
    assert of_days == [(30, 2), (20, 1), (0, 0)]


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
