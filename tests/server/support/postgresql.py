"""A PostgreSQL server of the tests' own, in a temporary directory, reached by a socket there."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from server.state.database import Database

_PATIENCE = 60.0
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}


def programs() -> Path | None:
    """Where `initdb` and `postgres` are; None if PostgreSQL is not installed."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    in_path = shutil.which("initdb")
    for folder in [*([Path(in_path).resolve().parent] if in_path else []), *packaged]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


class PostgreSQL:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._administration = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        self._wait()
        self.empty_database("template")
        Database(self._url("template")).close()

    def new_database(self) -> str:
        """The URL of a new database, with this version's tables."""
        return self.empty_database(template="template")

    def empty_database(self, name: str | None = None, template: str = "template0") -> str:
        """The URL of a new database without any tables."""
        name = name or f"test{next(self._numbers)}"
        with self._administration.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return self._url(name)

    def disconnect_all(self) -> None:
        """End all connections but this object's own, as a restart would."""
        with self._administration.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
            )

    def close(self) -> None:
        self._administration.dispose()

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://tests@/{name}?host={self._folder}"

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._administration.connect().close()
            except OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL did not start"
                time.sleep(0.02)
            else:
                return


@contextmanager
def running_postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """A new server, of the programs in `folder`; nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        user = _ordinary_user(home)
        initdb = [folder / "initdb", "-D", home / "data", "-U", "tests", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run([*initdb, "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd=home, **user)
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [folder / "postgres", "-D", home / "data", "-k", home, *options],
                stdout=log,
                stderr=log,
                cwd=home,
                **user,
            )
        try:
            server = PostgreSQL(home)
            yield server
            server.close()
        finally:
            process.send_signal(signal.SIGQUIT)  # its immediate shutdown: nothing is to be kept
            process.wait(_PATIENCE)


def _ordinary_user(home: Path) -> dict[str, Any]:
    """Who PostgreSQL is to run as: not root, which it refuses."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(home, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
