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
from functools import cache
from typing import Final

from sqlalchemy import BigInteger, BindParameter, Connection, bindparam, insert, update

from server.state.prepared import Prepared
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
            succeeds has at least one.
        source: the book that it leaves.
        destination: the book that it enters.
        now: the time in seconds since the epoch.
        task_uuid: the task that it is moved for.
        attempt: the id of the attempt at that task.

    Returns:
        False if the account's book has too little; nothing is moved then.

    Raises:
        IntegrityError: if it is the second reservation of the attempt, its second charge or its second
            release.
    """
    if not amount and destination is not Book.REVENUE:
        return True
    of = {"of": account, "moved": amount}
    if _change(source, destination).count(connection, of) == 0:
        return False
    entry = {
        "account_id": account,
        "task_uuid": task_uuid,
        "attempt": attempt,
        "amount": amount,
        "source": source,
        "destination": destination,
        "created": now,
    }
    _ENTER.count(connection, entry)
    if destination is Book.REVENUE:
        day = day_of(now)
        if _ADD_TO_DAY.count(connection, of | {"on": day}) == 0:
            first = {"account_id": account, "day": day, "charged": amount, "charges": 1}
            _FIRST_OF_DAY.count(connection, first)
    return True


def day_of(time: float) -> int:
    """The day of UTC that a time in seconds is of, counted from 1970."""
    return math.floor(time / _DAY)


_moved: Final[BindParameter[int]] = bindparam("moved", type_=BigInteger)
_ENTER: Final = Prepared(insert(ledger))
_ADD_TO_DAY: Final = Prepared(
    update(usage)
    .where(usage.c.account_id == bindparam("of"), usage.c.day == bindparam("on"))
    .values(charged=usage.c.charged + _moved, charges=usage.c.charges + 1)
)
_FIRST_OF_DAY: Final = Prepared(insert(usage))


@cache
def _change(source: Book, destination: Book) -> Prepared:
    """What a movement does to the columns of its account, if the source has enough."""
    change = update(accounts).where(accounts.c.id == bindparam("of"))
    if (column := CACHED.get(source)) is not None:
        change = change.where(column >= _moved).values({column: column - _moved})
    if (column := CACHED.get(destination)) is not None:
        change = change.values({column: column + _moved})
    if destination is Book.REVENUE:
        change = change.values(charged=accounts.c.charged + _moved, charges=accounts.c.charges + 1)
    return Prepared(change)
