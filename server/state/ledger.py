"""Money: what accounts have, what is reserved for running tasks, what was charged.

Amounts are whole nanodollars here; `to_usd` and `to_nanodollars` are the only borders.
"""

from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, or_, select, update

from server.state.accounts import AccountId
from server.state.database import accounts, ledger, tasks

__all__ = [
    "Statement",
    "charge",
    "deposit",
    "release",
    "reserve",
    "reserved",
    "spent",
    "statement",
    "to_nanodollars",
    "to_usd",
]

_NANO = Decimal(10**9)


def to_usd(amount: int) -> Decimal:
    """Nanodollars as USD, exactly, without trailing zeros."""
    usd = amount / _NANO
    return usd.quantize(Decimal(1)) if amount % 10**9 == 0 else usd.normalize()


def to_nanodollars(usd: Decimal) -> int:
    """USD as nanodollars.

    Raises:
        ValueError: if there are fractions of a nanodollar, or it is not a finite number.
    """
    if not usd.is_finite():
        raise ValueError(f"{usd} is not an amount")
    amount = usd * _NANO
    if amount != int(amount):
        raise ValueError(f"{usd} USD is not a whole number of nanodollars")
    return int(amount)


class Statement(NamedTuple):
    """An account's name and, in nanodollars, what it can still spend (None: without a limit)."""

    name: str
    available: int | None


def statement(connection: Connection, account: AccountId) -> Statement:
    """What the account can spend now."""
    row = connection.execute(
        select(accounts.c.name, accounts.c.balance, accounts.c.reserved).where(accounts.c.id == account)
    ).one()
    return Statement(row.name, None if row.balance is None else row.balance - row.reserved)


def spent(connection: Connection, account: AccountId, since: float = 0) -> tuple[int, int]:
    """The sum of charges since a time, and their number."""
    total, count = connection.execute(
        select(func.coalesce(func.sum(-ledger.c.amount), 0), func.count()).where(
            ledger.c.account_id == account, ledger.c.task_uuid.is_not(None), ledger.c.created >= since
        )
    ).one()
    return int(total), count


def deposit(connection: Connection, account: AccountId, amount: int, now: float) -> None:
    """Add to the balance; an account without a limit gets one by its first deposit."""
    connection.execute(
        update(accounts)
        .where(accounts.c.id == account)
        .values(balance=func.coalesce(accounts.c.balance, 0) + amount)
    )
    connection.execute(insert(ledger).values(account_id=account, amount=amount, created=now))


def reserve(connection: Connection, account: AccountId, task_uuid: str, amount: int) -> bool:
    """Set aside what a task will cost; False if the account cannot pay it."""
    changed = connection.execute(
        update(accounts)
        .where(
            accounts.c.id == account,
            or_(accounts.c.balance.is_(None), accounts.c.balance - accounts.c.reserved >= amount),
        )
        .values(reserved=accounts.c.reserved + amount)
    )
    if changed.rowcount == 0:
        return False
    _set_reserved(connection, account, task_uuid, amount)
    return True


def release(connection: Connection, account: AccountId, task_uuid: str) -> int:
    """Give back what was set aside for a task; returns how much that was."""
    amount: int = (
        connection.scalar(
            select(tasks.c.reserved).where(tasks.c.account_id == account, tasks.c.task_uuid == task_uuid)
        )
        or 0
    )
    if amount:
        connection.execute(
            update(accounts).where(accounts.c.id == account).values(reserved=accounts.c.reserved - amount)
        )
        _set_reserved(connection, account, task_uuid, 0)
    return amount


def reserved(connection: Connection) -> int:
    """What is set aside in all accounts."""
    return int(connection.scalar(select(func.coalesce(func.sum(accounts.c.reserved), 0))) or 0)


def charge(connection: Connection, account: AccountId, task_uuid: str, now: float) -> int:
    """Turn what was set aside for a task into a charge; returns how much that was."""
    amount = release(connection, account, task_uuid)
    connection.execute(
        update(accounts)
        .where(accounts.c.id == account, accounts.c.balance.is_not(None))
        .values(balance=accounts.c.balance - amount)
    )
    connection.execute(
        insert(ledger).values(account_id=account, task_uuid=task_uuid, amount=-amount, created=now)
    )
    return amount


def _set_reserved(connection: Connection, account: AccountId, task_uuid: str, amount: int) -> None:
    connection.execute(
        update(tasks)
        .where(tasks.c.account_id == account, tasks.c.task_uuid == task_uuid)
        .values(reserved=amount)
    )
