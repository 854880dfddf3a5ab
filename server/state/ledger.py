"""Money: what accounts have, what is reserved for running tasks, what was charged.

Amounts are whole nanodollars here; `to_usd` and `to_nanodollars` are the only borders.
"""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select, update

from server.state.accounts import AccountId
from server.state.books import Book, move
from server.state.tables import accounts, ledger, tasks

__all__ = ["Statement", "charge", "deposit", "release", "reserve", "reserved", "spent", "statement"]


class Statement(NamedTuple):
    """An account's name and, in nanodollars, what it can still spend (None: without a limit)."""

    name: str
    available: int | None


def statement(connection: Connection, account: AccountId) -> Statement:
    """What the account can spend now."""
    row = connection.execute(
        select(accounts.c.name, accounts.c.balance).where(accounts.c.id == account)
    ).one()
    return Statement(row.name, row.balance)


def spent(connection: Connection, account: AccountId, since: float = 0) -> tuple[int, int]:
    """The sum of charges since a time, and their number."""
    total, count = connection.execute(
        select(func.coalesce(func.sum(ledger.c.amount), 0), func.count()).where(
            ledger.c.account_id == account,
            ledger.c.destination == Book.REVENUE,
            ledger.c.created >= since,
        )
    ).one()
    return int(total), count


def deposit(connection: Connection, account: AccountId, amount: int, now: float) -> None:
    """Add to the balance; an account without a limit gets one by its first deposit."""
    connection.execute(
        update(accounts).where(accounts.c.id == account, accounts.c.balance.is_(None)).values(balance=0)
    )
    move(connection, account, amount, Book.ISSUED, Book.BALANCE, now)


def reserve(connection: Connection, account: AccountId, task_uuid: str, amount: int, now: float) -> bool:
    """Set aside what a task will cost; False if the account cannot pay it."""
    balance = connection.scalar(select(accounts.c.balance).where(accounts.c.id == account).with_for_update())
    source = Book.UNLIMITED if balance is None else Book.BALANCE
    if not move(connection, account, amount, source, Book.RESERVED, now, task_uuid):
        return False
    connection.execute(
        update(tasks).where(*_is(account, task_uuid)).values(reserved=tasks.c.reserved + amount)
    )
    return True


def release(connection: Connection, account: AccountId, task_uuid: str, now: float) -> int:
    """Give back what was set aside for a task; returns how much that was."""
    amount = _take_reserved(connection, account, task_uuid)
    if amount:
        source = _taken_from(connection, account, task_uuid)
        moved = move(connection, account, amount, Book.RESERVED, source, now, task_uuid)
        assert moved, "a task has more reserved than its account"
    return amount


def reserved(connection: Connection) -> int:
    """What is set aside in all accounts."""
    return int(connection.scalar(select(func.coalesce(func.sum(accounts.c.reserved), 0))) or 0)


def charge(connection: Connection, account: AccountId, task_uuid: str, now: float) -> int:
    """Turn what was set aside for a task into a charge; returns how much that was.

    Raises:
        IntegrityError: if the task was charged before.
    """
    amount = _take_reserved(connection, account, task_uuid)
    moved = move(connection, account, amount, Book.RESERVED, Book.REVENUE, now, task_uuid)
    assert moved, "a task has more reserved than its account"
    return amount


def _take_reserved(connection: Connection, account: AccountId, task_uuid: str) -> int:
    """What is set aside for a task, and from now on no longer is."""
    query = select(tasks.c.reserved).where(*_is(account, task_uuid)).with_for_update()
    amount: int = connection.scalar(query) or 0
    if amount:
        connection.execute(update(tasks).where(*_is(account, task_uuid)).values(reserved=0))
    return amount


def _taken_from(connection: Connection, account: AccountId, task_uuid: str) -> Book:
    """Where the last reservation of a task came from: its account may have got a limit meanwhile."""
    query = (
        select(ledger.c.source)
        .where(
            ledger.c.account_id == account,
            ledger.c.task_uuid == task_uuid,
            ledger.c.destination == Book.RESERVED,
        )
        .order_by(ledger.c.id.desc())
        .limit(1)
    )
    return Book(connection.execute(query).scalar_one())


def _is(account: AccountId, task_uuid: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return tasks.c.account_id == account, tasks.c.task_uuid == task_uuid
