"""`tilewire open`: the page of a running server, signed in."""

import time
from pathlib import Path
from typing import Annotated

import typer

from server.commands.database import open_data
from server.commands.running import running_servers
from server.commands.sign_in import day_token, local_page, open_in_browser, sign_in_link
from server.commands.terminal import ConfigFile, Data, console, give_up
from server.state.accounts import DEFAULT_ACCOUNT

__all__ = ["open"]


def open(  # noqa: A001 - the command's name
    account: Annotated[
        str, typer.Option(metavar="NAME", help="The account to sign in to.")
    ] = DEFAULT_ACCOUNT,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Open the page of the server that runs on this machine, with nothing to type.

    The link that does it is valid for a day. Without a browser, as over SSH, it is printed instead.
    """
    settings, database = open_data(config, data)
    urls = [each.url for each in running_servers() if Path(each.data) == settings.data.resolve()]
    if not urls:
        give_up("no server of this user runs on these data; start one: tilewire serve", status=1)
    url = urls[0]
    if not url.startswith("http"):
        give_up(f"the server is for programs only: it listens on {url}", status=1)
    token = database.run_sync(day_token, account, time.time(), settings.api_key)
    if token is None:
        give_up(f"the account {account!r} has no valid key: tilewire keys create --account NAME makes one")
    page = local_page(url)
    link = sign_in_link(page, token)
    if open_in_browser(link):
        console.print(f"opened {page} in the browser")
    else:
        print(link)  # noqa: T201 - to be copied, without any styling
