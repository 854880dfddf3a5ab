"""Brings a database to this version's tables, whichever version made it.

Each file of `versions` is a step: named by its revision, four digits, and in their order. To change the
tables: change them in `server.state.tables`, and add a file that changes those that are there.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

__all__ = ["ForeignDatabaseError", "NewerDatabaseError", "UnusableDatabaseError", "upgrade"]

_FIRST = "0001"
_DIRECTORY = Path(__file__).parent
_OURS = frozenset({"accounts", "api_keys", "tasks"})  # in every version
_NAMED = 3
_LOCK = 0x74696C65  # "tile"


class UnusableDatabaseError(Exception):
    """The tables in the database are not ones that this version can use; the message says why."""


class NewerDatabaseError(UnusableDatabaseError):
    """The database was made by a newer version, whose tables this one does not know."""


class ForeignDatabaseError(UnusableDatabaseError):
    """The database holds tables of another program."""


def upgrade(connection: Connection, to: str = "head") -> bool:
    """Make the tables, or change them, up to a revision, in the transaction that has begun; whether it did.

    Servers that start at the same time on one database do it one after the other.

    Raises:
        NewerDatabaseError: if the database was made by a newer version.
        ForeignDatabaseError: if it is another program's.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    known = sorted(file.name[:4] for file in (_DIRECTORY / "versions").glob("[0-9]*.py"))
    current = _current(connection)
    if current is not None and current not in known:
        raise NewerDatabaseError(
            f"the database was made by a newer version of Tilewire: its tables are of revision {current}, "
            f"this version knows them up to {known[-1]}"
        )
    tables = set(inspect(connection).get_table_names())
    # A file of SQLite belongs to one program; in PostgreSQL others may have tables of other names.
    mixed = tables if connection.dialect.name == "sqlite" else tables & _OURS
    if current is None and mixed and not tables >= _OURS:
        raise ForeignDatabaseError(
            f"the database holds tables of another program: {', '.join(sorted(tables)[:_NAMED])}"
        )
    if current == (known[-1] if to == "head" else to):
        return False
    _run(connection, to)
    return True


def _current(connection: Connection) -> str | None:
    """The revision that the tables are of."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _run(connection: Connection, to: str) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and most starts do not need it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    config.attributes["connection"] = connection
    if _current(connection) is None and inspect(connection).has_table("accounts"):
        command.stamp(config, _FIRST)  # made before revisions were recorded
    command.upgrade(config, to)
