"""What all commands share: their options, the effective settings, how they give up."""

import re
import time
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from server.commands.output import console, problems
from server.settings import Settings, SettingsError, Sourced, load_settings

__all__ = ["ConfigFile", "Data", "console", "day", "effective_settings", "give_up", "problems", "span_of"]

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file with settings.")
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory of the database, the images and the added models."),
]


def effective_settings(file: Path | None, **flags: Any) -> tuple[Settings, list[Sourced]]:
    """The settings, and where each comes from; a mistake ends the command."""
    try:
        return load_settings(file, flags=flags)
    except SettingsError as error:
        give_up(str(error))


def give_up(message: str, *, status: int = 2) -> NoReturn:
    """End the command: 2 for what the user can put right in the command, 1 for what went wrong."""
    problems.print(message, style="red")
    raise typer.Exit(status)


def span_of(parameter: str, text: str) -> int:
    """A span of time such as 12h or 90d, in seconds; anything else ends the command.

    Args:
        parameter: its name, for the message.
        text: what was written.
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if found is None or not int(found[1]):
        give_up(f"{parameter}: {text!r} is not a time such as 30m, 12h or 90d")
    return int(found[1]) * _SECONDS[found[2]]


def day(seconds: float | None) -> str:
    """A moment, in seconds since the epoch, as a date here; "never" for none."""
    return "never" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))
