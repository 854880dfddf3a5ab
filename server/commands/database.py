"""The database that a command is about: the one that was named, of the server that runs, or the usual one."""

from pathlib import Path

import msgspec
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from onnx_models import one_line
from server.commands.output import problems
from server.commands.running import RunningServer, running_servers
from server.commands.terminal import effective_settings, give_up
from server.private import private_directory
from server.settings import Settings, Sourced
from server.state.database import Database
from server.state.migrations import UnusableDatabaseError
from server.state.words import database_problem

__all__ = ["is_there", "open_data", "open_database", "place_of"]


def open_database(file: Path | None, data: Path | None, *, make: bool = False) -> Database:
    """The database that a command is about; where there is none the command ends.

    Args:
        file: with settings.
        data: the data directory, if it was given.
        make: whether one is made where there is none, if its place was named: by a flag, in the file, or in
            the environment.
    """
    return open_data(file, data, make=make)[1]


def open_data(file: Path | None, data: Path | None, *, make: bool = False) -> tuple[Settings, Database]:
    """As `open_database`, with the settings that say where all the rest is."""
    settings, sourced = effective_settings(file, data=data)
    named = [each for each in sourced if each.name in ("data", "database_url") and each.source != "default"]
    settings = _as_running(settings) if named else _of_running_server(settings)
    try:
        if not is_there(settings.effective_database_url):
            if not (make and named):
                give_up(_where_it_is_not(settings, named))
            private_directory(settings.data)
        return settings, Database(settings.effective_database_url, synchronous=settings.sqlite_synchronous)
    except (OSError, UnusableDatabaseError) as error:
        give_up(one_line(error), status=1)
    except (SQLAlchemyError, ImportError) as error:
        give_up(database_problem(error, settings.effective_database_url), status=1)


def _of_running_server(settings: Settings) -> Settings:
    """The settings with the data of the server that runs, if there is one."""
    running = {server.data: server for server in running_servers()}
    if len(running) > 1:
        places = ", ".join(f"{server.data} ({server.url})" for server in running.values())
        give_up(f"several servers run; name the data of one by --data: {places}")
    for server in running.values():
        if Path(server.data) != settings.data.resolve():
            problems.print(f"using the data of the server at {server.url}: {server.data}", style="dim")
        return _with_places(msgspec.structs.replace(settings, data=Path(server.data)), server)
    return settings


def _as_running(settings: Settings) -> Settings:
    """The settings, completed by what a server that runs on their data directory has."""
    for server in running_servers():
        if Path(server.data) == settings.data.resolve():
            return _with_places(settings, server)
    return settings


def _with_places(settings: Settings, server: RunningServer) -> Settings:
    """The settings with a server's database, image store and added models where they name none."""
    added = Path(server.added_models) if server.added_models else None
    return msgspec.structs.replace(
        settings,
        database_url=settings.database_url or server.database_url,
        storage_url=settings.storage_url or server.storage_url,
        added_models=settings.added_models or added,
    )


def is_there(url: str) -> bool:
    """Whether there is a database of ours, of any version; nothing is made by asking.

    Raises:
        SQLAlchemyError: if it cannot be reached, or is no database.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
        return False
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = create_engine(address, hide_parameters=True)
    try:
        return inspect(engine).has_table("api_keys")
    finally:
        engine.dispose()


def place_of(settings: Settings) -> str:
    """Where the database is, or would be, without a password."""
    address = make_url(settings.effective_database_url)
    return str(address.database) if address.get_backend_name() == "sqlite" else address.render_as_string()


def _where_it_is_not(settings: Settings, named: list[Sourced]) -> str:
    place = place_of(settings)
    said = ", ".join(f"{each.name}: {each.source}" for each in named)
    where = f"there is no database of Tilewire at {place}"
    if said:
        return f"{where} ({said})"
    return f"{where}, and no server of this user runs; --data or --config can name another place"
