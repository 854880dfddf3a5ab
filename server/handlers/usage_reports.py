"""`accountManagement`: what was done with the account, by day, model and key.

What was charged and is not known to be for a model is in the usage of `getDetails` alone.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import UNSET
from sqlalchemy import Connection

from onnx_models import Catalogue, UnknownModelError
from server.handlers.context import Context
from server.money import to_usd
from server.protocol.error_codes import error_status
from server.protocol.errors import invalid, missing
from server.protocol.replies import UsageBreakdown, UsageReport, UsageRow, UsageTotals
from server.protocol.requests import AccountManagement
from server.state.accounts import AccountId, list_keys
from server.state.usage import CANCELLED, OutcomeSum, find_outcomes, quarter_of, seconds_of

__all__ = ["REPORTS", "report"]

_MOST_DAYS: Final = 31
_PROJECTED: Final = 30
_EARLIEST: Final = date(1970, 1, 2)
_LATEST: Final = date(9999, 12, 30)
"""The last of the days that begin and end in seconds since the epoch, whatever the time zone."""
_SERVER_ERROR: Final = 500

Sums = Sequence[OutcomeSum]
Fields = Mapping[str, Any]


async def report(task: AccountManagement, context: Context) -> UsageReport:
    """What was done with the account that asks.

    Raises:
        ParameterError: naming the one that is missing or wrong.
    """
    services, catalogue = context.services, context.services.catalogue
    days = _days_of(task)
    models = None if task.models is None else {_name(model, catalogue) for model in task.models}
    await services.telemetry.usage.record(services.database)  # what has just ended counts
    labels, sums = await services.database.read(
        _look, context.account, days.quarters(), task.api_keys, models
    )
    measure, groups = REPORTS[task.operation], task.group_by or ["date", "model"]
    meta = UsageTotals(**measure(sums), **_totals(task.operation, sums, days.begun(services.clock())))

    def rows(of: Callable[[OutcomeSum], str], named: Callable[[str], Fields]) -> UsageBreakdown:
        grouped = _grouped(sums, of, by_day="date" in groups)
        return UsageBreakdown(
            [
                UsageRow(date=UNSET if day is None else days.date(day), **named(name), **measure(some))
                for (day, name), some in grouped
            ],
            meta,
        )

    usage: dict[str, UsageBreakdown] = {}
    if "date" in groups:
        by_day = ([one for one in sums if one.day == day] for day in range(days.length))
        each = [UsageRow(date=days.date(day), **measure(some)) for day, some in enumerate(by_day)]
        usage["timeseries"] = UsageBreakdown(each, meta)
    if "model" in groups:
        usage["model"] = rows(lambda one: one.model, lambda name: _described(name, catalogue))
    if "apiKey" in groups:
        usage["apiKey"] = rows(lambda one: labels.get(one.key, ""), lambda label: {"api_key": label or None})
    return UsageReport(
        task_uuid=task.task_uuid,
        operation=task.operation,
        start_date=days.first,
        end_date=days.date(days.length - 1),
        timezone=task.timezone or "UTC",
        usage=usage,
    )


class _Days(NamedTuple):
    """Which days are asked for, and of which time zone."""

    first: date
    length: int
    zone: tzinfo

    def date(self, day: int) -> date:
        """Of the day of this number, counted from the first."""
        return self.first + timedelta(day)

    def quarters(self) -> list[int]:
        """The quarters with which the days begin, and with which the last one ends."""
        midnights = (datetime.combine(self.date(day), time(), self.zone) for day in range(self.length + 1))
        return [quarter_of(midnight.timestamp()) for midnight in midnights]

    def begun(self, now: float) -> int:
        """How many of them have begun."""
        today = datetime.fromtimestamp(now, self.zone).date()
        return min(max((today - self.first).days + 1, 0), self.length)


def _days_of(task: AccountManagement) -> _Days:
    first, last = task.start_date, task.end_date
    if first is None or last is None:
        raise missing("startDate" if first is None else "endDate")
    for name, day in (("startDate", first), ("endDate", last)):
        if not _EARLIEST <= day <= _LATEST:
            raise invalid(name, f"{name} must be from {_EARLIEST} to {_LATEST}")
    count = (last - first).days + 1
    if not 1 <= count <= _MOST_DAYS:
        raise invalid("endDate", f"endDate must be from 0 to {_MOST_DAYS - 1} days after startDate")
    return _Days(first, count, _zone(task.timezone))


def _zone(name: str | None) -> tzinfo:
    if name in (None, "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise invalid(
            "timezone", f"timezone: {name!r} is not known; give a name such as 'Europe/Berlin'"
        ) from error


def _look(
    connection: Connection,
    account: AccountId,
    quarters: Sequence[int],
    wanted: Sequence[str] | None,
    models: set[str] | None,
) -> tuple[dict[str, str], list[OutcomeSum]]:
    """The names of the account's keys by their ids, and how its tasks ended."""
    keys = list_keys(connection, account)
    chosen: set[str] | None = None if wanted is None else set()
    for name in wanted or ():
        found = {key.id for key in keys if name in (key.label, key.hint, f"{key.hint}…", key.id)}
        if not found:
            raise invalid("apiKeys", f"apiKeys: the account has no key {name!r}; see getDetails")
        assert chosen is not None
        chosen |= found
    names = {key.id: key.label or f"{key.hint}…" for key in keys}
    return names, find_outcomes(connection, account, quarters, chosen, models)


def _name(model: str, catalogue: Catalogue) -> str:
    """What a model is recorded as; it need not be installed any more."""
    try:
        return catalogue.get(model).name
    except UnknownModelError:
        return model


def _described(name: str, catalogue: Catalogue) -> Fields:
    try:
        model = catalogue.get(name)
    except UnknownModelError:
        return {"model": name, "model_name": name}
    return {"model": model.air, "model_name": model.title}


def _grouped(
    sums: Sums, of: Callable[[OutcomeSum], str], *, by_day: bool
) -> list[tuple[tuple[int | None, str], list[OutcomeSum]]]:
    grouped: defaultdict[tuple[int | None, str], list[OutcomeSum]] = defaultdict(list)
    for one in sums:
        grouped[one.day if by_day else None, of(one)].append(one)
    return sorted(grouped.items(), key=lambda item: (item[0][0] or 0, item[0][1]))


def _totals(operation: str, sums: Sums, days: int) -> Fields:
    requests = sum(one.tasks for one in sums)
    charged = sum(one.charged for one in sums)
    totals = {
        "total_requests": requests,
        "total_results": sum(one.tasks for one in sums if not one.code),
        "total_spend": to_usd(charged),
    }
    if operation == "getUsageActivity":
        totals["avg_daily_spend"] = to_usd(charged // max(days, 1))
        totals["projected_spend"] = to_usd(_PROJECTED * charged // max(days, 1))
    if operation == "getUsageErrors":
        failed = sum(one.tasks for one in sums if _failed(one))
        totals["total_errors"] = failed
        totals["error_rate"] = round(100 * failed / max(requests, 1), 4)
    return totals


def _activity(sums: Sums) -> Fields:
    return {
        "count": sum(one.tasks for one in sums),
        "spend": to_usd(sum(one.charged for one in sums)),
    }


def _performance(sums: Sums) -> Fields:
    timed = sorted((one for one in sums if one.bucket), key=lambda one: one.bucket)
    count = sum(one.tasks for one in timed)
    if not count:
        return dict.fromkeys([f"{name}_inference_time" for name in ("avg", "p50", "p90", "p99")])

    def within(share: float) -> float:
        left = math.ceil(share * count)
        for one in timed:
            left -= one.tasks
            if left <= 0:
                break
        return round(seconds_of(one.bucket), 3)

    return {
        "avg_inference_time": round(sum(one.inference for one in timed) / count / 1000, 3),
        "p50_inference_time": within(0.5),
        "p90_inference_time": within(0.9),
        "p99_inference_time": within(0.99),
    }


def _errors(sums: Sums) -> Fields:
    codes: Counter[str] = Counter()
    for one in sums:
        if _failed(one):
            codes[one.code] += one.tasks
    by_server = sum(count for code, count in codes.items() if error_status(code) >= _SERVER_ERROR)
    return {
        "client_errors": codes.total() - by_server,
        "server_errors": by_server,
        "codes": dict(sorted(codes.items())),
    }


def _failed(one: OutcomeSum) -> bool:
    return bool(one.code) and one.code not in CANCELLED


REPORTS: Final[Mapping[str, Callable[[Sums], Fields]]] = {
    "getUsageActivity": _activity,
    "getUsagePerformance": _performance,
    "getUsageErrors": _errors,
}
"""What each operation measures, as fields of a row."""
