"""`tilewire accounts usage`: who used what."""

import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final

import msgspec
import typer
from msgspec import Struct
from rich.table import Table

from server.commands.database import open_database
from server.commands.terminal import ConfigFile, Data, console, give_up, span_of
from server.money import to_usd
from server.state.accounts import find_account
from server.state.books import day_of
from server.state.usage import Usage, find_usage

__all__ = ["show_usage"]

_EPOCH: Final = date(1970, 1, 1)


class _Line(Struct, frozen=True, rename="camel"):
    """What `--json` prints of each account, model and perhaps day."""

    account: str
    model: str | None
    date: date | None
    tasks: int
    failed: int
    cancelled: int
    megapixels: float
    device_seconds: float
    task_seconds: float
    cost: Decimal
    errors: dict[str, int]


def show_usage(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this account.")] = None,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="The first day (UTC): a date, or how long ago, such as 7d.")
    ] = "30d",
    until: Annotated[str | None, typer.Option(metavar="DATE", help="The last day. [default: today]")] = None,
    by_day: Annotated[bool, typer.Option("--by-day", help="Report each day separately.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Show what accounts used of each model, and the errors.

    Charges that cannot be assigned to a model have a line without one, so the costs sum to what was charged.
    """
    today = day_of(time.time())
    first = _day("--since", since)
    last = today if until is None else _day("--until", until)
    with closing(open_database(config, data)) as database:
        account = None if name is None else database.snapshot(find_account, name)
        if name is not None and account is None:
            give_up(f"there is no account {name!r}; see: tilewire accounts list")
        used = database.snapshot(find_usage, first, last, account, by_day=by_day)
    if as_json:
        encoder = msgspec.json.Encoder(decimal_format="number")
        print(msgspec.json.format(encoder.encode([_line(one) for one in used])).decode())  # noqa: T201
    else:
        lines = [_line(one) for one in used]
        console.print(_table(lines, by_day=by_day), soft_wrap=False)
        for line in lines:
            day = f" {line.date}" if by_day else ""
            for code, count in sorted(line.errors.items()):
                console.print(f"{line.account} {line.model}{day}: {count} × {code}", style="dim")


def _line(used: Usage) -> _Line:
    amounts = used.amounts
    return _Line(
        account=used.account,
        model=used.model,
        date=None if used.day is None else _EPOCH + timedelta(used.day),
        tasks=amounts.tasks,
        failed=amounts.failed,
        cancelled=amounts.cancelled,
        megapixels=amounts.pixels / 1e6,
        device_seconds=amounts.device / 1e3,
        task_seconds=amounts.elapsed / 1e3,
        cost=to_usd(amounts.charged),
        errors=amounts.errors,
    )


def _table(lines: list[_Line], *, by_day: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("account", "model", *(["day"] if by_day else [])):
        table.add_column(heading, overflow="fold")
    for heading in ("tasks", "failed", "cancelled", "MP", "device s", "USD"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.account,
            line.model or "",
            *([str(line.date)] if by_day else []),
            *map(str, (line.tasks, line.failed, line.cancelled)),
            f"{line.megapixels:.2f}",
            f"{line.device_seconds:.1f}",
            f"{line.cost:f}",
        )
    return table


def _day(parameter: str, text: str) -> int:
    """A date, or how long ago, as `day_of` counts days."""
    try:
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        ago = datetime.now(UTC) - timedelta(seconds=span_of(parameter, text))
        return (ago.date() - _EPOCH).days
