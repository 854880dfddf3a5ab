"""`tilewire keys`: who may use the server."""

import time
from typing import Annotated

import typer
from rich.table import Table

from server.commands.accounts import amount_of, deposit_or_give_up
from server.commands.terminal import ConfigFile, Data, console, give_up, open_database
from server.protocol.text import find_control_character
from server.state.accounts import (
    DEFAULT_ACCOUNT,
    MAX_NAME,
    AmbiguousKeyError,
    account_named,
    create_key,
    list_keys,
    revoke_key,
)

__all__ = ["commands"]

commands = typer.Typer(help="The API keys.", no_args_is_help=True)


@commands.command("create")
def create(
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    account: Annotated[
        str, typer.Option(help="Whose key it is; made if there is none yet.")
    ] = DEFAULT_ACCOUNT,
    credit: Annotated[
        str | None, typer.Option(help="USD to add to the balance; without any an account has no limit.")
    ] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, this once."""
    amount = None if credit is None else amount_of("--credit", credit)
    for name, text in (("--label", label), ("--account", account)):
        if find_control_character(text) is not None or len(text) > MAX_NAME:
            give_up(f"{name}: give at most {MAX_NAME} characters, no control characters among them")
    database = open_database(config, data)
    now = time.time()
    owner = database.run_sync(account_named, account, now)
    if amount is not None:
        deposit_or_give_up(database, owner, amount)
    print(database.run_sync(create_key, owner, label, now))  # noqa: T201 - for scripts, without any styling


@commands.command("list")
def show_keys(data: Data = None, config: ConfigFile = None) -> None:
    """List the keys, as far as they are known."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "key", "account", "label", "created", "last used", ""):
        table.add_column(heading, no_wrap=heading not in ("account", "label"), overflow="fold")
    for key in open_database(config, data).run_sync(list_keys):
        table.add_row(
            key.id[:8],
            f"{key.hint}…",
            key.account,
            key.label,
            _day(key.created),
            "never" if key.last_used is None else _day(key.last_used),
            "revoked" if key.revoked else "",
        )
    console.print(table, soft_wrap=False)


@commands.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The key, or the beginning of its id.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Revoke a key."""
    try:
        revoked = open_database(config, data).run_sync(revoke_key, key)
    except AmbiguousKeyError as error:
        give_up(str(error))
    console.print(f"revoked {revoked.hint}… of {revoked.account}")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
