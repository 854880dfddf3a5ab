"""`tilewire accounts`: who has how much, whether the books are right, what signs the webhooks."""

import asyncio
import time
from contextlib import closing, suppress
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.table import Table

from server.commands.backup_directory import bucket_of, failures_in_words
from server.commands.database import open_data, open_database
from server.commands.terminal import ConfigFile, Data, console, day, give_up, problems
from server.commands.usage import show_usage
from server.images.audit import ImageAudit, audit_images, mend_images
from server.money import to_nanodollars, to_usd
from server.settings import Settings
from server.state.accounts import AccountId, find_account, list_accounts
from server.state.audit import audit
from server.state.database import Database
from server.state.ledger import MAX_BALANCE, BalanceTooLargeError, deposit, statement
from server.state.webhooks import rotate_secret, signing_secrets

__all__ = ["amount_of", "commands", "deposit_or_give_up"]

commands = typer.Typer(help="Show balances, add credit, audit the books.", no_args_is_help=True)

_LARGEST_CREDIT = to_usd(MAX_BALANCE)


@commands.command("list")
def show_accounts(data: Data = None, config: ConfigFile = None) -> None:
    """List the accounts; amounts are in USD."""
    table = Table(box=None, pad_edge=False)
    for heading in ("account", "balance", "reserved", "charged", "created"):
        table.add_column(heading, no_wrap=heading != "account", overflow="fold")
    for account in open_database(config, data).snapshot(list_accounts):
        table.add_row(
            account.name,
            "no limit" if account.balance is None else str(to_usd(account.balance)),
            str(to_usd(account.reserved)),
            str(to_usd(account.charged)),
            day(account.created),
        )
    console.print(table, soft_wrap=False)


@commands.command("credit")
def credit_account(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account.")],
    amount: Annotated[str, typer.Argument(metavar="USD", help="What to add to its balance.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Add to an account's balance.

    An account without a limit has one from then on.
    """
    nanodollars = amount_of("AMOUNT", amount)
    database = open_database(config, data)
    account = _account(database, name)
    deposit_or_give_up(database, account, nanodollars)
    available = database.run_sync(statement, account).available
    console.print(f"{name} has {to_usd(available or 0)} USD")


@commands.command("webhook-secret")
def show_webhook_secret(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new secret; the old one also signs, for a day.")
    ] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Print the secret that signs an account's webhooks."""
    database, now = open_database(config, data), time.time()
    account = _account(database, name)
    if rotate:
        secret = database.run_sync(rotate_secret, account, now)
    else:
        secret = database.run_sync(signing_secrets, account, now)[0]
    print(secret)  # noqa: T201 - for scripts, without any styling


@commands.command("audit")
def audit_books(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="End images whose files are lost, and delete files that belong to no image after a day.",
        ),
    ] = False,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Check the books, and that each image has its file.

    Compares balances, ledger and tasks, and the records of images with the files in the store. Prints what
    does not agree, and then exits with 1. It never changes the books; servers may keep running.
    """
    settings, database = open_data(config, data)
    with failures_in_words(settings), closing(database):
        found = database.snapshot(audit)
        for mistake in found.mistakes:
            problems.print(mistake, style="red")
        if not found.mistakes:
            console.print(
                f"the books are right: accounts {found.accounts}, ledger entries {found.entries}, "
                f"charges {found.charges}, each of one task that succeeded"
            )
        images = asyncio.run(_audit_images(settings, database, repair=repair))
    if found.mistakes or not (images.is_right or repair):
        raise typer.Exit(1)


async def _audit_images(settings: Settings, database: Database, *, repair: bool) -> ImageAudit:
    """Report, and mend if that is wanted, what is wrong with the images."""
    with closing(bucket_of(settings)) as bucket:
        found = await audit_images(bucket, database)
    for name in sorted(found.lost):
        problems.print(f"image {name}: its file is lost", style="red")
    for name in sorted(found.unknown):
        problems.print(f"file {name}: no image names it", style="red")
    if found.foreign:
        console.print(f"files in the image store that are not Tilewire's, and left alone: {found.foreign}")
    if found.is_right:
        console.print(f"the images are right: {found.images}, each with its file")
    elif repair:
        if found.nothing_fits:
            place = settings.storage_url or settings.data / "images"
            give_up(f"no image has its file in {place}: is that their store? Nothing was changed", status=1)
        await mend_images(found, database)
        console.print(
            f"ended {len(found.lost)} images: the same bytes can be sent again; "
            f"{len(found.unknown)} files will be deleted after a day"
        )
    return found


commands.command("usage")(show_usage)


def _account(database: Database, name: str) -> AccountId:
    account = database.run_sync(find_account, name)
    if account is None:
        give_up(f"there is no account {name!r}; see: tilewire accounts list")
    return account


def deposit_or_give_up(database: Database, account: AccountId, amount: int) -> None:
    """Add nanodollars to a balance; if it would become too large the command ends."""
    try:
        database.run_sync(deposit, account, amount, time.time())
    except BalanceTooLargeError:
        give_up(f"an account holds at most {to_usd(MAX_BALANCE):,} USD")


def amount_of(parameter: str, usd: str, *, zero: bool = False) -> int:
    """USD as written on the command line, in nanodollars; anything but a sensible amount ends the command.

    Args:
        parameter: its name, for the message.
        usd: what was written.
        zero: whether nothing is an amount too.
    """
    credit, amount = Decimal("NaN"), 0
    with suppress(InvalidOperation, ValueError):
        credit = Decimal(usd)
        amount = to_nanodollars(credit) if 0 < credit <= _LARGEST_CREDIT else 0
    if not amount and not (zero and credit == 0):
        give_up(f"{parameter}: {usd!r} is not an amount of USD, such as 5 or 0.25")
    return amount
