"""Who used what: tasks, pixels, time of devices, errors and money, by account, model and day.

Each server adds up what ended and records the sums every few seconds (`add`). A server that is killed takes
those of the last seconds with it; what was charged is in the ledger all the same, and is reported without a
model, as are charges of before there were these sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, insert, select, update

from server.state.accounts import AccountId
from server.state.tables import accounts, errors_of_models, usage, usage_of_models

__all__ = ["Amounts", "Usage", "UsageKey", "add", "find_usage"]


class UsageKey(NamedTuple):
    """What amounts are of; `day` as `day_of` counts them."""

    account: AccountId
    day: int
    model: str


@dataclass(slots=True)
class Amounts:
    """What was used.

    Attributes:
        tasks: that have an outcome.
        failed: of these; not those that were cancelled.
        cancelled: of these.
        pixels: of the results.
        device: milliseconds that devices worked.
        elapsed: milliseconds from the acceptance of the tasks to their outcomes, summed.
        charged: in nanodollars.
        errors: how many tasks failed with each code.
    """

    tasks: int = 0
    failed: int = 0
    cancelled: int = 0
    pixels: int = 0
    device: int = 0
    elapsed: int = 0
    charged: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Amounts") -> None:
        """Add what was used beside it."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count


_SUMS: Final = ("tasks", "failed", "cancelled", "pixels", "device", "elapsed", "charged")


class Usage(NamedTuple):
    """What an account used of a model; `day` is None for all days together.

    Attributes:
        account: its name.
        model: None for charges that are not known to be of one.
    """

    account: str
    model: str | None
    day: int | None
    amounts: Amounts


def _this(table: Table) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.account_id == bindparam("of"),
        table.c.day == bindparam("on"),
        table.c.model == bindparam("by"),
    )


_ADD: Final = (
    update(usage_of_models)
    .where(*_this(usage_of_models))
    .values({name: usage_of_models.c[name] + bindparam(f"more_{name}") for name in _SUMS})
)
_ADD_ERRORS: Final = (
    update(errors_of_models)
    .where(*_this(errors_of_models), errors_of_models.c.code == bindparam("with_code"))
    .values(tasks=errors_of_models.c.tasks + bindparam("more"))
)


def add(connection: Connection, used: Mapping[UsageKey, Amounts]) -> None:
    """Add to what is recorded."""
    for key, amounts in sorted(used.items(), key=lambda item: item[0]):  # servers lock rows in one order
        this = {"of": key.account, "on": key.day, "by": key.model}
        row = {"account_id": key.account, "day": key.day, "model": key.model}
        sums = {name: getattr(amounts, name) for name in _SUMS}
        more = {f"more_{name}": amount for name, amount in sums.items()}
        if connection.execute(_ADD, this | more).rowcount == 0:
            connection.execute(insert(usage_of_models), row | sums)
        for code, count in sorted(amounts.errors.items()):
            if connection.execute(_ADD_ERRORS, this | {"with_code": code, "more": count}).rowcount == 0:
                connection.execute(insert(errors_of_models), row | {"code": code, "tasks": count})


def find_usage(
    connection: Connection,
    first: int,
    last: int,
    account: AccountId | None = None,
    *,
    by_day: bool = False,
) -> list[Usage]:
    """What was used from one day to another, both included, by name of account, model and day.

    Args:
        connection: of `Database.snapshot`, or in a transaction.
        first: the first day, as `day_of` counts them.
        last: the last day.
        account: only of this one.
        by_day: whether each day is reported by itself.
    """
    found: dict[tuple[str, str | None, int | None], Amounts] = {}

    def amounts_of(name: str, model: str | None, day: int) -> Amounts:
        return found.setdefault((name, model, day if by_day else None), Amounts())

    for row in connection.execute(_of_days(usage_of_models, first, last, account)):
        amounts_of(row.name, row.model, row.day).add(Amounts(**{name: getattr(row, name) for name in _SUMS}))
    for row in connection.execute(_of_days(errors_of_models, first, last, account)):
        errors = amounts_of(row.name, row.model, row.day).errors
        errors[row.code] = errors.get(row.code, 0) + row.tasks
    _add_charges_without_model(connection, found, first, last, account, by_day=by_day)
    order = sorted(
        found.items(), key=lambda item: (item[0][0], item[0][1] is None, item[0][1] or "", item[0][2] or 0)
    )
    return [Usage(name, model, day, amounts) for (name, model, day), amounts in order]


def _of_days(table: Table, first: int, last: int, account: AccountId | None) -> Select[Any]:
    query = select(accounts.c.name, table).join(accounts, accounts.c.id == table.c.account_id)
    return _between(query, table, first, last, account)


def _between(
    query: Select[Any], table: Table, first: int, last: int, account: AccountId | None
) -> Select[Any]:
    query = query.where(table.c.day >= first, table.c.day <= last)
    return query if account is None else query.where(table.c.account_id == account)


def _add_charges_without_model(
    connection: Connection,
    found: dict[tuple[str, str | None, int | None], Amounts],
    first: int,
    last: int,
    account: AccountId | None,
    *,
    by_day: bool,
) -> None:
    """Add what the ledger has beside the sums, so that the totals are what was charged."""
    left: dict[tuple[str, int | None], int] = {}
    for row in connection.execute(_of_days(usage, first, last, account)):
        key = row.name, row.day if by_day else None
        left[key] = left.get(key, 0) + row.charged
    for (name, _, day), amounts in found.items():
        left[name, day] = left.get((name, day), 0) - amounts.charged
    found |= {(name, None, day): Amounts(charged=charged) for (name, day), charged in left.items() if charged}
