"""How whoever has the server's data gets into its page without typing: a link with a token of a day.

The token is in the link's fragment, which browsers send to no server; so it is in no log. A browser is not
started with the link, which all users of the machine could see among its arguments, but with a file that
leads there and that only this user can read.
"""

import os
import sys
import webbrowser
from html import escape
from typing import Final

from platformdirs import user_state_path
from sqlalchemy import Connection

from server.private import private_directory, private_file
from server.state.accounts import digest_of, find_account, newest_digest
from server.state.grants import Terms
from server.state.tokens import create_token

__all__ = ["day_token", "local_page", "open_in_browser", "sign_in_link"]

_DAY: Final = 86_400
_ANY: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what a browser opens instead
_FILE: Final = "open.html"


def day_token(connection: Connection, account: str, now: float, configured: str | None = None) -> str | None:
    """A token for the page that is valid for a day; None if the account has no valid key.

    Args:
        connection: in a transaction.
        account: its name.
        now: the time in seconds since the epoch.
        configured: the key of the settings, which opens the default account.
    """
    found = find_account(connection, account)
    digest = None if found is None else newest_digest(connection, found, now)
    if digest is None and configured is not None:
        digest = digest_of(configured)
    if digest is None:
        return None
    token = create_token(connection, digest, Terms(), now, _DAY, configured=configured)
    return None if token is None else token.secret


def local_page(url: str) -> str:
    """The page of a server on this machine, with a slash at the end, by what the server listens on."""
    for host, own in _ANY.items():
        url = url.replace(f"://{host}:", f"://{own}:")
    return f"{url}/"


def sign_in_link(page: str, token: str) -> str:
    """The link that signs in; who is signed in already stays so."""
    return f"{page}#key={token}&stay"


def open_in_browser(link: str) -> bool:
    """Open a link in the user's browser; False if there is none here, as on a machine without a screen."""
    if not _has_screen():
        return False
    try:
        file = private_file(private_directory(user_state_path("tilewire", appauthor=False)) / _FILE)
        file.write_text(_leading_to(link), "utf-8")
        return webbrowser.open(file.as_uri())
    except (OSError, webbrowser.Error):
        return False


def _has_screen() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


def _leading_to(link: str) -> str:
    target = escape(link)
    return (
        f'<!doctype html><meta charset="utf-8"><title>Tilewire</title>'
        f'<meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url={target}">'
        f'<a href="{target}">Tilewire</a>\n'
    )
