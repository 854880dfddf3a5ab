"""`tilewire keys`: who may use the server."""

import time
from typing import Annotated, Final

import typer
from rich.table import Table

from server.commands.accounts import amount_of, deposit_or_give_up
from server.commands.database import open_database
from server.commands.terminal import ConfigFile, Data, console, day, give_up
from server.protocol.text import find_control_character
from server.state.accounts import (
    DEFAULT_ACCOUNT,
    MAX_NAME,
    AmbiguousKeyError,
    account_named,
    create_key,
    find_account,
    list_keys,
    revoke_key,
)

__all__ = ["commands"]

commands = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

_UNLIMITED: Final = "unlimited"


@commands.command("create")
def create(
    label: Annotated[str, typer.Option(metavar="TEXT", help="What the key is for.")] = "",
    account: Annotated[
        str, typer.Option(metavar="NAME", help="Whose key it is; the account is made if there is none yet.")
    ] = DEFAULT_ACCOUNT,
    credit: Annotated[
        str | None,
        typer.Option(
            metavar="USD",
            help="Added to the account's balance; a new account needs it: 0 or more, or 'unlimited'.",
        ),
    ] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it; it is shown this once only."""
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
    print(database.run_sync(create_key, owner, label, now))  # noqa: T201 - for scripts, without any styling


@commands.command("list")
def show_keys(data: Data = None, config: ConfigFile = None) -> None:
    """List the keys, without their secrets."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "key", "account", "label", "created", "last used", ""):
        table.add_column(heading, no_wrap=heading not in ("account", "label"), overflow="fold")
    for key in open_database(config, data).run_sync(list_keys):
        table.add_row(
            key.id[:8],
            f"{key.hint}…",
            key.account,
            key.label,
            day(key.created),
            day(key.last_used),
            "revoked" if key.revoked else "",
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
