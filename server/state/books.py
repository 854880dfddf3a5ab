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
"""

from enum import StrEnum

from sqlalchemy import Connection, insert, update

from server.state.tables import accounts, ledger

__all__ = ["CACHED", "Book", "move"]


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
) -> bool:
    """Move an amount between two books, in a row of the ledger and in the columns that keep its sums.

    Args:
        amount: in nanodollars. To move nothing leaves no row, but a charge always does: each task that
            succeeds has one.

    Returns:
        False if the account's book has too little; nothing is moved then.
    """
    if not amount and destination is not Book.REVENUE:
        return True
    change = update(accounts).where(accounts.c.id == account)
    if (column := CACHED.get(source)) is not None:
        change = change.where(column >= amount).values({column: column - amount})
    if (column := CACHED.get(destination)) is not None:
        change = change.values({column: column + amount})
    if connection.execute(change).rowcount == 0:
        return False
    connection.execute(
        insert(ledger).values(
            account_id=account,
            task_uuid=task_uuid,
            amount=amount,
            source=source,
            destination=destination,
            created=now,
        )
    )
    return True
