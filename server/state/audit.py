"""Proves that the money is right: what is cached against the ledger, the ledger against the tasks.

Run it with `Database.snapshot`: it must see one moment.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, null, or_, select

from server.state.books import CACHED, Book
from server.state.records import Status
from server.state.tables import accounts, ledger, tasks

__all__ = ["Audit", "audit"]


class Audit(NamedTuple):
    """What was checked, and every mistake that was found, each a sentence. Amounts are in nanodollars."""

    accounts: int
    entries: int
    charges: int
    mistakes: list[str]


def audit(connection: Connection) -> Audit:
    """Check all books.

    1. The balance and the reserved amount of each account are the sums of its entries.
    2. What is reserved for each task is the sum of its entries, and nothing for a task that has ended.
    3. Each charge is of one task that succeeded, and each task that succeeded has one charge.
    4. All books together sum to zero.
    """
    mistakes = [
        *_cached_sums(connection),
        *_tasks(connection),
        *_total(connection),
    ]
    return Audit(
        accounts=_count(connection, select(accounts.c.id)),
        entries=_count(connection, select(ledger.c.id)),
        charges=_count(connection, select(ledger.c.id).where(ledger.c.destination == Book.REVENUE)),
        mistakes=mistakes,
    )


def _cached_sums(connection: Connection) -> Iterator[str]:
    for book, column in CACHED.items():
        sums = select(ledger.c.account_id, _sum(book).label("total")).group_by(ledger.c.account_id).subquery()
        total = func.coalesce(sums.c.total, 0)
        query = (
            select(accounts.c.name, column.label("kept"), total.label("total"))
            .outerjoin(sums, sums.c.account_id == accounts.c.id)
            .where(func.coalesce(column, 0) != total)
        )
        for row in connection.execute(query):
            kept = "no limit" if row.kept is None else row.kept
            yield f"account {row.name!r}: {book} is kept as {kept}, its entries sum to {row.total}"


def _tasks(connection: Connection) -> Iterator[str]:
    """Each task's record beside the sums of its entries; either may be without the other."""
    kept = select(
        tasks.c.account_id,
        tasks.c.task_uuid,
        tasks.c.status,
        tasks.c.reserved.label("kept"),
        literal(0).label("reserved"),
        literal(0).label("charges"),
    )
    entered = select(
        ledger.c.account_id,
        ledger.c.task_uuid,
        null(),
        literal(0),
        _change(Book.RESERVED),
        case((ledger.c.destination == Book.REVENUE, 1), else_=0),
    ).where(ledger.c.task_uuid.is_not(None))
    both = kept.union_all(entered).subquery()
    found = (
        select(
            both.c.task_uuid,
            func.max(both.c.status).label("status"),
            func.sum(both.c.kept).label("kept"),
            func.sum(both.c.reserved).label("reserved"),
            func.sum(both.c.charges).label("charges"),
        )
        .group_by(both.c.account_id, both.c.task_uuid)
        .subquery()
    )
    status = func.coalesce(found.c.status, "unknown")
    ended_with_reservation = and_(status != Status.ACCEPTED, found.c.kept != 0)
    wrong_charges = found.c.charges != case((status == Status.SUCCEEDED, 1), else_=0)
    query = select(found, status.label("state")).where(
        or_(found.c.kept != found.c.reserved, ended_with_reservation, wrong_charges)
    )
    for row in connection.execute(query):
        yield (
            f"task {row.task_uuid} ({row.state}): {row.kept} is kept as reserved, "
            f"its entries sum to {row.reserved}; it has {row.charges} charges"
        )


def _total(connection: Connection) -> Iterator[str]:
    kept = select(
        func.coalesce(func.sum(accounts.c.balance), 0), func.coalesce(func.sum(accounts.c.reserved), 0)
    )
    of_accounts = sum(int(amount) for amount in connection.execute(kept).one())
    house = [_sum(book) for book in Book if book not in CACHED]
    of_house = sum(int(amount or 0) for amount in connection.execute(select(*house)).one())
    if of_accounts + of_house != 0:
        yield f"all books sum to {of_accounts + of_house}: {of_accounts} of accounts, {of_house} of the house"


def _sum(book: Book) -> ColumnElement[int]:
    """What came into a book, less what left it."""
    return func.sum(_change(book))


def _change(book: Book) -> ColumnElement[int]:
    """What an entry adds to a book; negative if it takes from it."""
    return case(
        (ledger.c.destination == book, ledger.c.amount), (ledger.c.source == book, -ledger.c.amount), else_=0
    )


def _count(connection: Connection, query: Select[tuple[str]] | Select[tuple[int]]) -> int:
    return connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
