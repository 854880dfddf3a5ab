"""Money: what accounts have, what is reserved for running tasks, what was charged.

Amounts are whole nanodollars here; `to_usd` and `to_nanodollars` are the only borders.
"""

from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text, update

from server.state.accounts import AccountId
from server.state.books import Book, move
from server.state.prepared import Prepared
from server.state.records import Attempt
from server.state.tables import accounts, ledger, usage

__all__ = [
    "MAX_BALANCE",
    "BalanceTooLargeError",
    "Spent",
    "Statement",
    "charge",
    "deposit",
    "release",
    "reserve",
    "reserved",
    "settle",
    "spent",
    "spent_since",
    "statement",
]

MAX_BALANCE: Final = 10**18
"""Nanodollars that an account holds at most, a billion USD: all sums stay within 64 bits."""


# Not against the key of the row, to which each new task and image refers: that would be a deadlock.
_BALANCE: Final = Prepared(
    select(accounts.c.balance).where(accounts.c.id == bindparam("of")).with_for_update(key_share=True)
)
_RESERVED_FROM: Final = Prepared(
    select(ledger.c.source).where(ledger.c.attempt == bindparam("id"), text("destination = 'reserved'"))
)


class BalanceTooLargeError(Exception):
    """A deposit would make a balance larger than `MAX_BALANCE`."""


class Statement(NamedTuple):
    """An account's name and, in nanodollars, what it can still spend (None: without a limit)."""

    name: str
    available: int | None


class Spent(NamedTuple):
    """What was charged, in nanodollars, and how many times."""

    charged: int
    charges: int


def statement(connection: Connection, account: AccountId) -> Statement:
    """What the account can spend now."""
    row = connection.execute(
        select(accounts.c.name, accounts.c.balance).where(accounts.c.id == account)
    ).one()
    return Statement(row.name, row.balance)


def spent(connection: Connection, account: AccountId) -> Spent:
    """What the account was charged in all."""
    query = select(accounts.c.charged, accounts.c.charges).where(accounts.c.id == account)
    return Spent(*connection.execute(query).one())


def spent_since(connection: Connection, account: AccountId, day: int) -> Spent:
    """What the account was charged on a day, as `day_of` counts them, and since."""
    sums = func.coalesce(func.sum(usage.c.charged), 0), func.coalesce(func.sum(usage.c.charges), 0)
    charged, charges = connection.execute(
        select(*sums).where(usage.c.account_id == account, usage.c.day >= day)
    ).one()
    return Spent(int(charged), int(charges))


def deposit(connection: Connection, account: AccountId, amount: int, now: float) -> None:
    """Add to the balance; an account without a limit gets one by its first deposit.

    Raises:
        BalanceTooLargeError: if the balance would exceed `MAX_BALANCE`.
    """
    balance = _balance(connection, account)
    if (balance or 0) + amount > MAX_BALANCE:
        raise BalanceTooLargeError(f"the account has {balance or 0} nanodollars, and may have {MAX_BALANCE}")
    if balance is None:
        connection.execute(update(accounts).where(accounts.c.id == account).values(balance=0))
    move(connection, account, amount, Book.ISSUED, Book.BALANCE, now)


def reserve(connection: Connection, attempt: Attempt, amount: int, now: float) -> bool:
    """Set aside what an attempt will cost; False if the account cannot pay it.

    Raises:
        IntegrityError: if the attempt reserved before.
    """
    balance = _balance(connection, attempt.account)
    source = Book.UNLIMITED if balance is None else Book.BALANCE
    return move(
        connection, attempt.account, amount, source, Book.RESERVED, now, attempt.task_uuid, attempt.id
    )


def release(connection: Connection, attempt: Attempt, amount: int, now: float) -> None:
    """Give back what an attempt has reserved."""
    if not amount:
        return
    # Its account may have got a limit meanwhile.
    row = _RESERVED_FROM.first(connection, {"id": attempt.id})
    assert row is not None, "what an attempt has reserved came from nowhere"
    source = Book(row[0])
    moved = move(
        connection, attempt.account, amount, Book.RESERVED, source, now, attempt.task_uuid, attempt.id
    )
    assert moved, "an attempt has more reserved than its account"


def charge(connection: Connection, attempt: Attempt, amount: int, now: float) -> None:
    """Turn what an attempt has reserved, or a part of it, into a charge.

    Raises:
        IntegrityError: if the attempt was charged before.
    """
    moved = move(
        connection, attempt.account, amount, Book.RESERVED, Book.REVENUE, now, attempt.task_uuid, attempt.id
    )
    assert moved, "an attempt has more reserved than its account"


def settle(connection: Connection, attempt: Attempt, reserved: int, owed: int, now: float) -> None:
    """End an attempt: charge what it owes of what it has reserved, and give back the rest."""
    if owed:
        charge(connection, attempt, owed, now)
    release(connection, attempt, reserved - owed, now)


def reserved(connection: Connection) -> int:
    """What is set aside in all accounts."""
    return int(connection.scalar(select(func.coalesce(func.sum(accounts.c.reserved), 0))) or 0)


def _balance(connection: Connection, account: AccountId) -> int | None:
    """What an account has, locked; None if it has no limit."""
    row = _BALANCE.first(connection, {"of": account})
    return None if row is None else row[0]
