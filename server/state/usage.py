"""Who used what: how tasks ended, pixels, time of devices and money, by account, key, model and time.

Each server adds up what ended and records the sums every few seconds (`add`). A server that is killed takes
those of the last seconds with it; what was charged is in the ledger all the same, and is reported without a
model, as are charges of before there were these sums.

Times are counted by quarters of an hour: the days of every time zone begin with one. How long tasks spent on
a device is counted in buckets whose bounds grow by a twentieth, so that percentiles are right to 2.5 %.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    bindparam,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)

from server.state.accounts import AccountId
from server.state.tables import accounts, outcomes, usage

__all__ = [
    "CANCELLED",
    "Amounts",
    "OutcomeSum",
    "Usage",
    "UsageKey",
    "add",
    "bucket_of",
    "find_outcomes",
    "find_usage",
    "quarter_of",
    "seconds_of",
]

CANCELLED: Final = frozenset({"taskCancelled", "frameDropped"})
"""The codes of tasks that did not fail, but were stopped."""

_QUARTER: Final = 900
_QUARTERS: Final = 96
"""Of a day."""
_GROWTH: Final = 1.05


def quarter_of(time: float) -> int:
    """The quarter of an hour that a time in seconds is of, counted from 1970."""
    return math.floor(time / _QUARTER)


def bucket_of(milliseconds: int) -> int:
    """The bucket that a time on a device is of; 0 is for none."""
    return 0 if milliseconds < 1 else 1 + math.floor(math.log(milliseconds, _GROWTH))


def seconds_of(bucket: int) -> float:
    """The time in the middle of a bucket."""
    return 0.0 if bucket < 1 else _GROWTH ** (bucket - 0.5) / 1000


class UsageKey(NamedTuple):
    """What amounts are of.

    Attributes:
        account: whose they are.
        quarter: when tasks ended, as `quarter_of` counts.
        key: the id of the API key that they came with; empty if it is not in the database.
        model: that they were for.
        code: of their error; empty if they succeeded.
        bucket: of the time that each spent on devices: see `bucket_of`.
    """

    account: AccountId
    quarter: int
    key: str
    model: str
    code: str = ""
    bucket: int = 0


@dataclass(slots=True)
class Amounts:
    """What was used.

    Attributes:
        tasks: that have an outcome.
        failed: of these; not those that were cancelled.
        cancelled: of these.
        pixels: of the results.
        device: milliseconds that devices worked.
        inference: milliseconds that tasks spent on devices, those of others in the same batch included.
        elapsed: milliseconds from the acceptance of the tasks to their outcomes, summed.
        charged: in nanodollars.
        errors: how many tasks failed with each code.
    """

    tasks: int = 0
    failed: int = 0
    cancelled: int = 0
    pixels: int = 0
    device: int = 0
    inference: int = 0
    elapsed: int = 0
    charged: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Amounts") -> None:
        """Add what was used beside it."""
        for name in (*_SUMS, "failed", "cancelled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count

    def ended(self, code: str) -> "Amounts":
        """The same, of tasks that all ended with one code; empty: they succeeded."""
        if code in CANCELLED:
            self.cancelled = self.tasks
        elif code:
            self.failed, self.errors = self.tasks, {code: self.tasks}
        return self


_SUMS: Final = ("tasks", "pixels", "device", "inference", "elapsed", "charged")


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


class OutcomeSum(NamedTuple):
    """How many tasks of an account ended alike on one day.

    Attributes:
        day: which one, counted from the first that was asked for.
        key, model, code, bucket: see `UsageKey`.
        tasks: how many.
        inference: milliseconds that they spent on devices.
        charged: for them, in nanodollars.
    """

    day: int
    key: str
    model: str
    code: str
    bucket: int
    tasks: int
    inference: int
    charged: int


_COLUMNS: Final = tuple(
    zip(UsageKey._fields, list(outcomes.primary_key.columns), strict=True)  # in the same order
)
_ADD: Final = (
    update(outcomes)
    .where(*(column == bindparam(f"of_{name}") for name, column in _COLUMNS))
    .values({name: outcomes.c[name] + bindparam(f"more_{name}") for name in _SUMS})
)


def add(connection: Connection, used: Mapping[UsageKey, Amounts]) -> None:
    """Add to what is recorded."""
    for key, amounts in sorted(used.items(), key=lambda item: item[0]):  # servers lock rows in one order
        sums = {name: getattr(amounts, name) for name in _SUMS}
        this = {f"of_{name}": value for name, value in key._asdict().items()}
        if connection.execute(_ADD, this | {f"more_{name}": sums[name] for name in _SUMS}).rowcount == 0:
            row = {column.name: value for (_, column), value in zip(_COLUMNS, key, strict=True)}
            connection.execute(insert(outcomes), row | sums)


def find_outcomes(
    connection: Connection,
    account: AccountId,
    days: Sequence[int],
    keys: Collection[str] | None = None,
    models: Collection[str] | None = None,
) -> list[OutcomeSum]:
    """How an account's tasks ended, day by day.

    Args:
        connection: of `Database.snapshot`, or in a transaction.
        account: whose tasks.
        days: the quarters with which the days begin, and with which the last one ends.
        keys: only of tasks that came with these, by id.
        models: only of tasks for these.
    """
    sums = (func.sum(outcomes.c[name]) for name in ("tasks", "inference", "charged"))
    by = outcomes.c.key_id, outcomes.c.model, outcomes.c.code, outcomes.c.bucket
    query = select(*by, *sums).where(outcomes.c.account_id == account).group_by(*by)
    if keys is not None:
        query = query.where(outcomes.c.key_id.in_(keys))
    if models is not None:
        query = query.where(outcomes.c.model.in_(models))
    return [
        OutcomeSum(day, *row[:4], *map(int, row[4:]))
        for day, (begin, end) in enumerate(pairwise(days))
        for row in connection.execute(query.where(outcomes.c.quarter >= begin, outcomes.c.quarter < end))
    ]


def find_usage(
    connection: Connection,
    first: int,
    last: int,
    account: AccountId | None = None,
    *,
    by_day: bool = False,
) -> list[Usage]:
    """What was used from one day of UTC to another, both included, by name of account, model and day.

    Args:
        connection: of `Database.snapshot`, or in a transaction.
        first: the first day, as `day_of` counts them.
        last: the last day.
        account: only of this one.
        by_day: whether each day is reported by itself.
    """
    found: dict[tuple[str, str | None, int | None], Amounts] = {}
    # Not bound: PostgreSQL would take the two places of a parameter for different expressions.
    quarters = literal_column(str(_QUARTERS), Integer)
    day = (outcomes.c.quarter // quarters if by_day else literal(None)).label("day")
    by = [accounts.c.name, outcomes.c.model, outcomes.c.code, *([day] if by_day else [])]
    sums = (func.sum(outcomes.c[name]).label(name) for name in _SUMS)
    query = (
        select(accounts.c.name, outcomes.c.model, outcomes.c.code, day, *sums)
        .join(accounts, accounts.c.id == outcomes.c.account_id)
        .where(outcomes.c.quarter >= first * _QUARTERS, outcomes.c.quarter < (last + 1) * _QUARTERS)
        .group_by(*by)
    )
    if account is not None:
        query = query.where(outcomes.c.account_id == account)
    for row in connection.execute(query):
        used: dict[str, Any] = {name: int(getattr(row, name)) for name in _SUMS}
        amounts = Amounts(**used).ended(row.code)
        found.setdefault((row.name, row.model, row.day), Amounts()).add(amounts)
    _add_charges_without_model(connection, found, first, last, account, by_day=by_day)
    order = sorted(
        found.items(), key=lambda item: (item[0][0], item[0][1] is None, item[0][1] or "", item[0][2] or 0)
    )
    return [Usage(name, model, day, amounts) for (name, model, day), amounts in order]


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
    for row in connection.execute(_charges(first, last, account)):
        key = row.name, row.day if by_day else None
        left[key] = left.get(key, 0) + row.charged
    for (name, _, day), amounts in found.items():
        left[name, day] = left.get((name, day), 0) - amounts.charged
    found |= {(name, None, day): Amounts(charged=charged) for (name, day), charged in left.items() if charged}


def _charges(first: int, last: int, account: AccountId | None) -> Select[Any]:
    query = (
        select(accounts.c.name, usage.c.day, usage.c.charged)
        .join(accounts, accounts.c.id == usage.c.account_id)
        .where(usage.c.day >= first, usage.c.day <= last)
    )
    return query if account is None else query.where(usage.c.account_id == account)
