"""`tilewire keys`: who may use the server."""

import time
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
import typer
from rich.table import Table

from onnx_models import CatalogueError, load_catalogue
from server.commands.accounts import amount_of, deposit_or_give_up
from server.commands.database import open_database
from server.commands.terminal import (
    ConfigFile,
    Data,
    console,
    day,
    effective_settings,
    give_up,
    problems,
    span_of,
)
from server.limits.terms import terms_of
from server.protocol.errors import ParameterError
from server.protocol.raw_task import as_parameter_error
from server.protocol.text import find_control_character
from server.protocol.tokens import LONGEST_TOKEN, NewToken
from server.state.accounts import (
    DEFAULT_ACCOUNT,
    MAX_NAME,
    AmbiguousKeyError,
    account_named,
    create_key,
    digest_named,
    digest_of,
    find_account,
    list_keys,
    revoke_key,
    rotate_key,
)
from server.state.tokens import create_token

__all__ = ["commands"]

commands = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)

_UNLIMITED: Final = "unlimited"


@commands.command("create")
def create(
    label: Annotated[str, typer.Option(metavar="TEXT", help="What the key is for.")] = "",
    account: Annotated[
        str, typer.Option(metavar="NAME", help="The key's account; it is created if there is none.")
    ] = DEFAULT_ACCOUNT,
    credit: Annotated[
        str | None,
        typer.Option(
            metavar="USD",
            help="Add to the account's balance; required for a new account: 0 or more, or 'unlimited'.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="When it expires: a date, or a time from now such as 12h or 90d."),
    ] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it; it is shown only this once."""
    until = None if expires is None else _moment("--expires", expires)
    amount = None if credit in (None, _UNLIMITED) else amount_of("--credit", credit, zero=True)
    for name, text in (("--label", label), ("--account", account)):
        if find_control_character(text) is not None or len(text) > MAX_NAME:
            give_up(f"{name}: give at most {MAX_NAME} characters, no control characters among them")
    database = open_database(config, data, make=True)
    now = time.time()
    owner = database.run_sync(find_account, account)
    if owner is None:
        if credit is None and account != DEFAULT_ACCOUNT:
            give_up(f"there is no account {account!r} yet: give it --credit USD, or --credit {_UNLIMITED}")
        owner = database.run_sync(account_named, account, now, balance=amount)
    elif credit == _UNLIMITED:
        give_up(f"the account {account!r} is there already; --credit {_UNLIMITED} is for new ones")
    elif amount:
        deposit_or_give_up(database, owner, amount)
    print(database.run_sync(create_key, owner, label, now, expires=until))  # noqa: T201 - for scripts, without any styling


@commands.command("list")
def show_keys(data: Data = None, config: ConfigFile = None) -> None:
    """List the keys, without their secrets."""
    table = Table(box=None, pad_edge=False)
    now = time.time()
    for heading in ("id", "key", "account", "label", "created", "last used", "expires", ""):
        table.add_column(heading, no_wrap=heading not in ("account", "label"), overflow="fold")
    for key in open_database(config, data).run_sync(list_keys):
        table.add_row(
            key.id[:8],
            f"{key.hint}…",
            key.account,
            key.label,
            day(key.created),
            day(key.last_used),
            day(key.expires),
            "revoked" if key.revoked else "" if key.is_valid(now) else "expired",
        )
    console.print(table, soft_wrap=False)


@commands.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key, or the beginning of its id.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Revoke a key."""
    try:
        revoked = open_database(config, data).run_sync(revoke_key, key)
    except AmbiguousKeyError as error:
        give_up(str(error))
    console.print(f"revoked {revoked.hint}… of {revoked.account}")


@commands.command("rotate")
def rotate(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key, or the beginning of its id.")],
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key stays valid, such as 30m, 12h or 7d.")
    ] = "1d",
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Replace a key by a new one, and print that.

    The old key stays valid for a while. The new one has the same account and label, and does not expire.
    """
    seconds = span_of("--overlap", overlap)
    try:
        old, secret = open_database(config, data).run_sync(rotate_key, key, time.time(), seconds)
    except AmbiguousKeyError as error:
        give_up(str(error))
    problems.print(f"{old.hint}… of {old.account} stays valid for {overlap}")
    print(secret)  # noqa: T201 - for scripts, without any styling


_TOKEN_OPTIONS: Final = {
    "allowedOrigins": "--origin",
    "models": "--model",
    "maxTasks": "--max-tasks",
    "maxCost": "--max-cost",
    "maxMegapixels": "--max-megapixels",
}
"""The options of `keys token`, by their names on the wire."""


@commands.command("token")
def token(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="The key to make it with, or the beginning of its id.")
    ],
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long it is valid, such as 10m or 1d; at most a day.")
    ] = "10m",
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin of pages that may use it; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A model that it may use; may be repeated.")
    ] = None,
    max_tasks: Annotated[
        int | None, typer.Option(metavar="N", help="The number of upscales that it may begin.")
    ] = None,
    max_cost: Annotated[
        str | None, typer.Option(metavar="USD", help="The most that its tasks may cost together.")
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(metavar="N", help="The most million pixels of each result.")
    ] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Make a token for a web page; it is shown only this once.

    As POST /v1/tokens does.
    """
    if (seconds := span_of("--expires", expires)) > LONGEST_TOKEN:
        give_up("--expires: a token is valid for a day at most")
    given = {
        "expiresIn": seconds,
        "allowedOrigins": origin,
        "models": model,
        "maxTasks": max_tasks,
        "maxCost": max_cost,
        "maxMegapixels": max_megapixels,
    }
    settings, _ = effective_settings(config, data=data)
    try:
        wanted = msgspec.convert(
            {name: value for name, value in given.items() if value is not None}, NewToken
        )
        terms = terms_of(wanted, load_catalogue(settings.effective_added_models))
    except msgspec.ValidationError as error:
        found = as_parameter_error(str(error))
        wrong = found.parameter or ""
        give_up(_TOKEN_OPTIONS[wrong] + found.message.removeprefix(wrong))
    except (ParameterError, CatalogueError) as error:
        give_up(str(error))
    database, now, configured = open_database(config, data), time.time(), settings.api_key
    try:
        digest = digest_of(key) if key == configured else database.run_sync(digest_named, key, now)
    except AmbiguousKeyError as error:
        give_up(str(error))
    made = database.run_sync(create_token, digest, terms, now, wanted.expires_in, configured=configured)
    if made is None:
        give_up("no valid key matches")
    print(made.secret)  # noqa: T201 - for scripts, without any styling


def _moment(parameter: str, text: str) -> float:
    """A date, whose day counts in full, or a time from now; in seconds since the epoch."""
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        return time.time() + span_of(parameter, text)
    moment = (end + timedelta(days=1) if len(text) <= len("2026-12-31") else end).timestamp()
    if moment <= time.time():
        give_up(f"{parameter}: {text} is over")
    return moment
