"""A copy of the whole database from one moment, while servers go on writing, and the way back.

SQLite: its online backup (sqlite.org/backup.html). PostgreSQL: `pg_dump` and `pg_restore`.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, make_url, text

from server.private import private_file

__all__ = ["CopyError", "copy_database", "restore_database"]

_JOURNALS: Final = ("", "-wal", "-shm", "-journal")
"""What the names of a SQLite database's files end with."""


class CopyError(Exception):
    """A database cannot be copied or restored; the message says why, in one line."""


def copy_database(connection: Connection, target: Path) -> None:
    """Copy the database to a file, as the connection sees it.

    Args:
        connection: of `Database.snapshot`, and something has been read in it: that is the copy's moment.
        target: the file; what is there is overwritten.

    Raises:
        CopyError: if that fails.
    """
    target.unlink(missing_ok=True)
    private_file(target)
    if connection.dialect.name == "sqlite":
        _copy_sqlite(connection, target)
        return
    # The dump sees what this transaction sees (www.postgresql.org/docs/current/app-pgdump.html).
    snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
    _run_tool(
        "pg_dump", connection.engine.url, "--format=custom", f"--snapshot={snapshot}", f"--file={target}"
    )


def restore_database(source: Path, url: str) -> None:
    """Make the database at a URL of a copy. SQLite: there is no file. PostgreSQL: the database is empty.

    A restore that fails leaves nothing behind.

    Raises:
        CopyError: if that fails.
        OSError: if the file cannot be written.
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
        _run_tool("pg_restore", address, *options, str(source))
        return
    database = Path(address.database or "")
    for end in _JOURNALS:
        if (file := database.with_name(database.name + end)).exists():
            raise CopyError(f"{file} is there already: move it away first, or restore to another place")
    partial = private_file(database.with_name(f".{database.name}.partial"))
    shutil.copyfile(source, partial)
    _check_sqlite(partial)
    with partial.open("rb+") as whole:
        os.fsync(whole.fileno())
    partial.replace(database)


def _copy_sqlite(connection: Connection, target: Path) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    try:
        with closing(sqlite3.connect(target)) as copy:
            driver.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise CopyError(f"the database cannot be copied: {error}") from error
    _check_sqlite(target)


def _check_sqlite(file: Path) -> None:
    try:
        with closing(sqlite3.connect(file)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise CopyError(f"the copy {file} cannot be read: {error}") from error
    if found != "ok":
        raise CopyError(f"the copy {file} is damaged: {found}")


def _run_tool(name: str, url: URL, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on a database.

    Raises:
        CopyError: if it is not installed, or fails.
    """
    import psycopg.conninfo  # noqa: PLC0415 - needs the extra

    program = shutil.which(name)
    if program is None:
        raise CopyError(f"{name} is not in PATH: install PostgreSQL's client programs")
    address: dict[str, Any] = {**url.translate_connect_args(username="user", database="dbname"), **url.query}
    secret: Mapping[str, str] = {"PGPASSWORD": str(address.pop("password"))} if "password" in address else {}
    target = psycopg.conninfo.make_conninfo(**address)
    command = [program, f"--dbname={target}", *arguments]
    done = subprocess.run(  # noqa: S603 - PostgreSQL's program, with an operator's arguments
        command,
        env={**os.environ, **secret},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise CopyError(f"{name} failed: {said[0]}")
