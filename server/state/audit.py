"""Proves that the money is right: the sums that are kept against the ledger, the ledger against the tasks.

Run it with `Database.snapshot`: it must see one moment.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, null, or_, select

from server.state.books import CACHED, Book
from server.state.records import Status
from server.state.tables import accounts, images, ledger, tasks, usage

__all__ = ["Audit", "audit"]


class Audit(NamedTuple):
    """What was checked, and every mistake that was found, each a sentence. Amounts are in nanodollars."""

    accounts: int
    entries: int
    charges: int
    mistakes: list[str]


def audit(connection: Connection) -> Audit:
    """Check all books.

    1. The balance, the reserved amount and the charges that are kept of each account, and those of its days,
       are the sums of its entries.
    2. What a task that is under way has reserved is the sum of its entries; one that has ended has nothing
       reserved.
    3. What a task was charged is the sum of its charges; if it succeeded it has one at least, and that sum is
       its price. There is no charge without a task.
    4. No charge is more than its attempt reserved.
    5. All books together sum to zero.
    6. The bytes that are kept of each account's images are the sum of their sizes.
    """
    mistakes = [
        *_cached_sums(connection),
        *_usage(connection),
        *_tasks(connection),
        *_charges(connection),
        *_total(connection),
        *_stored(connection),
    ]
    return Audit(
        accounts=_count(connection, select(accounts.c.id)),
        entries=_count(connection, select(ledger.c.id)),
        charges=_count(connection, select(ledger.c.id).where(ledger.c.destination == Book.REVENUE)),
        mistakes=mistakes,
    )


def _cached_sums(connection: Connection) -> Iterator[str]:
    is_charge = ledger.c.destination == Book.REVENUE
    kept: dict[str, tuple[ColumnElement[int], ColumnElement[int]]] = {
        "charged": (accounts.c.charged, func.sum(case((is_charge, ledger.c.amount), else_=0))),
        "charges": (accounts.c.charges, func.sum(case((is_charge, 1), else_=0))),
    }
    kept |= {book.value: (column, _sum(book)) for book, column in CACHED.items()}
    for name, (column, entered) in kept.items():
        sums = select(ledger.c.account_id, entered.label("total")).group_by(ledger.c.account_id).subquery()
        total = func.coalesce(sums.c.total, 0)
        query = (
            select(accounts.c.name, column.label("kept"), total.label("total"))
            .outerjoin(sums, sums.c.account_id == accounts.c.id)
            .where(func.coalesce(column, 0) != total)
        )
        for row in connection.execute(query):
            is_kept = "no limit" if row.kept is None else row.kept
            yield f"account {row.name!r}: {name} is kept as {is_kept}, its entries sum to {row.total}"


def _usage(connection: Connection) -> Iterator[str]:
    """What is kept of each account's days, beside what it was charged in all."""
    days = (
        select(
            usage.c.account_id,
            func.sum(usage.c.charged).label("charged"),
            func.sum(usage.c.charges).label("charges"),
        )
        .group_by(usage.c.account_id)
        .subquery()
    )
    charged, charges = func.coalesce(days.c.charged, 0), func.coalesce(days.c.charges, 0)
    query = (
        select(accounts.c.name, accounts.c.charged, charged.label("of_days"))
        .outerjoin(days, days.c.account_id == accounts.c.id)
        .where(or_(accounts.c.charged != charged, accounts.c.charges != charges))
    )
    for row in connection.execute(query):
        yield f"account {row.name!r}: it was charged {row.charged}, the sum of its days is {row.of_days}"


def _tasks(connection: Connection) -> Iterator[str]:
    """Each task's record beside the sums of its entries; either may be without the other."""
    running, succeeded, failed = (
        tasks.c.status == status for status in (Status.ACCEPTED, Status.SUCCEEDED, Status.FAILED)
    )
    kept = select(
        tasks.c.account_id,
        tasks.c.task_uuid,
        tasks.c.status,
        case((running, func.coalesce(tasks.c.price - tasks.c.charged, 0)), else_=0).label("kept"),
        literal(0).label("reserved"),
        tasks.c.charged.label("due"),
        case(
            (succeeded, func.coalesce(tasks.c.price, -1)),
            (and_(failed, tasks.c.price.is_not(None)), -1),
            else_=tasks.c.charged,
        ).label("price"),
        literal(0).label("charged"),
        literal(0).label("charges"),
        literal(0).label("empty"),
    )
    is_charge = ledger.c.destination == Book.REVENUE
    entered = select(
        ledger.c.account_id,
        ledger.c.task_uuid,
        null(),
        literal(0),
        _change(Book.RESERVED),
        literal(0),
        literal(0),
        case((is_charge, ledger.c.amount), else_=0),
        case((is_charge, 1), else_=0),
        case((and_(is_charge, ledger.c.amount == 0), 1), else_=0),
    ).where(ledger.c.task_uuid.is_not(None))
    both = kept.union_all(entered).subquery()
    found = (
        select(
            both.c.task_uuid,
            func.max(both.c.status).label("status"),
            *(
                func.sum(both.c[name]).label(name)
                for name in ("kept", "reserved", "due", "price", "charged", "charges", "empty")
            ),
        )
        .group_by(both.c.account_id, both.c.task_uuid)
        .subquery()
    )
    status = func.coalesce(found.c.status, "unknown")
    uncharged = and_(found.c.charges == 0, status == Status.SUCCEEDED)
    superfluous = and_(found.c.empty > 0, found.c.charges > 1)
    unknown = and_(found.c.charges > 0, status == "unknown")
    wrong = or_(
        found.c.kept != found.c.reserved,
        found.c.charged != found.c.due,
        found.c.charged != found.c.price,
        uncharged,
        superfluous,
        unknown,
    )
    for row in connection.execute(select(found, status.label("state")).where(wrong)):
        yield (
            f"task {row.task_uuid} ({row.state}): {row.kept} is kept as reserved, "
            f"its entries sum to {row.reserved}; {row.due} is kept as charged, its price is {row.price}; "
            f"it has {row.charges} charges, which sum to {row.charged}"
        )


def _charges(connection: Connection) -> Iterator[str]:
    """Each charge beside what its attempt reserved. Old charges name no attempt."""
    reservation = ledger.alias()
    reserved = func.coalesce(reservation.c.amount, 0)
    query = (
        select(ledger.c.task_uuid, ledger.c.amount, reserved.label("reserved"))
        .outerjoin(
            reservation,
            and_(reservation.c.attempt == ledger.c.attempt, reservation.c.destination == Book.RESERVED.value),
        )
        .where(
            ledger.c.destination == Book.REVENUE,
            ledger.c.attempt.is_not(None),
            ledger.c.amount > reserved,
        )
    )
    for row in connection.execute(query):
        yield f"task {row.task_uuid} was charged {row.amount}; its attempt reserved {row.reserved}"


def _total(connection: Connection) -> Iterator[str]:
    # Summed in Python: the sums of all accounts together may be more than 64 bits hold.
    kept = connection.execute(select(accounts.c.balance, accounts.c.reserved))
    of_accounts = sum((row.balance or 0) + row.reserved for row in kept)
    house = [_sum(book) for book in Book if book not in CACHED]
    entries = connection.execute(select(*house).group_by(ledger.c.account_id))
    of_house = sum(int(amount or 0) for row in entries for amount in row)
    if of_accounts + of_house != 0:
        yield f"all books sum to {of_accounts + of_house}: {of_accounts} of accounts, {of_house} of the house"


def _stored(connection: Connection) -> Iterator[str]:
    sums = select(images.c.account_id, func.sum(images.c.size).label("total")).group_by(images.c.account_id)
    found = sums.subquery()
    total = func.coalesce(found.c.total, 0)
    query = (
        select(accounts.c.name, accounts.c.stored, total.label("total"))
        .outerjoin(found, found.c.account_id == accounts.c.id)
        .where(accounts.c.stored != total)
    )
    for row in connection.execute(query):
        yield f"account {row.name!r}: {row.stored} bytes are kept as stored, its images have {row.total}"


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
