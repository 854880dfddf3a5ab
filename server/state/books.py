"""The books, and the one way to move money between them.

Every row of the ledger moves an amount from one book to another, so that all books together always sum to
zero. Rows are only ever added: the database refuses to change or delete them.

| movement    | from                     | to                       |
|-------------|--------------------------|--------------------------|
| deposit     | issued                   | balance                  |
| reservation | balance, or unlimited    | reserved                 |
| release     | reserved                 | where it was taken from  |
| charge      | reserved                 | revenue                  |

What accounts without a limit use is taken from `unlimited`: that book's debt is what they were let have.

The sums that are asked for often are kept as the ledger grows: an account's balance, what it has reserved,
what it was charged in all and on each day.
"""

import math
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, insert, update

from server.state.tables import accounts, ledger, usage

__all__ = ["CACHED", "Book", "day_of", "move"]

_DAY: Final = 86400


class Book(StrEnum):
    """Where money is. The first two are books of each account, the others of the house."""

    BALANCE = "balance"
    RESERVED = "reserved"
    ISSUED = "issued"
    UNLIMITED = "unlimited"
    REVENUE = "revenue"


CACHED = {Book.BALANCE: accounts.c.balance, Book.RESERVED: accounts.c.reserved}
"""The columns that keep the sum of an account's rows."""


def move(
    connection: Connection,
    account: str,
    amount: int,
    source: Book,
    destination: Book,
    now: float,
    task_uuid: str | None = None,
    attempt: str | None = None,
) -> bool:
    """Move an amount between two books: a row of the ledger, and the sums that are kept of it.

    Args:
        connection: in a transaction.
        account: whose books they are.
        amount: in nanodollars. To move nothing leaves no row, but a charge always does: each task that
            succeeds has one.
        source: the book that it leaves.
        destination: the book that it enters.
        now: the time in seconds since the epoch.
        task_uuid: the task that it is moved for.
        attempt: the id of the attempt at that task.

    Returns:
        False if the account's book has too little; nothing is moved then.

    Raises:
        IntegrityError: if it is the second reservation of the attempt, its second end, or the second charge
            of the task.
    """
    if not amount and destination is not Book.REVENUE:
        return True
    change = update(accounts).where(accounts.c.id == account)
    if (column := CACHED.get(source)) is not None:
        change = change.where(column >= amount).values({column: column - amount})
    if (column := CACHED.get(destination)) is not None:
        change = change.values({column: column + amount})
    if destination is Book.REVENUE:
        change = change.values(charged=accounts.c.charged + amount, charges=accounts.c.charges + 1)
    if connection.execute(change).rowcount == 0:
        return False
    connection.execute(
        insert(ledger).values(
            account_id=account,
            task_uuid=task_uuid,
            attempt=attempt,
            amount=amount,
            source=source,
            destination=destination,
            created=now,
        )
    )
    if destination is Book.REVENUE:
        _add_to_day(connection, account, amount, day_of(now))
    return True


def day_of(time: float) -> int:
    """The day of UTC that a time in seconds is of, counted from 1970."""
    return math.floor(time / _DAY)


def _add_to_day(connection: Connection, account: str, amount: int, day: int) -> None:
    of_day = usage.c.account_id == account, usage.c.day == day
    added = {"charged": usage.c.charged + amount, "charges": usage.c.charges + 1}
    if connection.execute(update(usage).where(*of_day).values(added)).rowcount == 0:
        connection.execute(insert(usage).values(account_id=account, day=day, charged=amount, charges=1))
