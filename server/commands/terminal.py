"""What all commands share: where they print, how they give up, the effective settings, the database."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from onnx_models import one_line
from server.commands.output import console, problems
from server.private import private_directory
from server.settings import Settings, SettingsError, Sourced, load_settings
from server.state.database import Database
from server.state.migrations import NewerDatabaseError

__all__ = ["ConfigFile", "Data", "console", "effective_settings", "give_up", "open_database", "problems"]

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings.")]
Data = Annotated[
    Path | None, typer.Option(help="Directory of the database, the images and the models that were added.")
]


def effective_settings(file: Path | None, **flags: Any) -> tuple[Settings, list[Sourced]]:
    """The settings, and where each comes from; a mistake ends the command."""
    try:
        return load_settings(file, flags=flags)
    except SettingsError as error:
        give_up(str(error))


def open_database(file: Path | None, data: Path | None) -> Database:
    """The database that the settings name; one that cannot be used ends the command."""
    settings, _ = effective_settings(file, data=data)
    try:
        private_directory(settings.data)
        return Database(settings.effective_database_url, synchronous=settings.sqlite_synchronous)
    except (OSError, SQLAlchemyError, ImportError, NewerDatabaseError) as error:
        give_up(one_line(error), status=1)


def give_up(message: str, *, status: int = 2) -> NoReturn:
    """End the command: 2 for what the user can put right in the command, 1 for what went wrong."""
    problems.print(message, style="red")
    raise typer.Exit(status)
