"""What was done before: which files are results, and how each was made.

Beside that it keeps how fast models were on this machine.

The record is keyed by content: the digest of a result leads to the digests of how it was made, from which
picture, by which model, how large, in which format. So it holds wherever results and pictures are moved or
copied to, a result that was edited is recognised as somebody's own work, and neither names nor pictures are
kept.

It is a small database in the user's state directory. Inside the results it would have to survive each format
and the programs that copy metadata along when they edit a picture, and would tell everyone who gets the
picture how it was made; a file beside the results would lie in everyone's folders. Where the state directory
cannot be written there is no record: then files that exist are kept, unless `--overwrite` is given.
"""

import hashlib
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from platformdirs import user_state_path

__all__ = ["Record", "digest_of", "recipe_of"]

_DIGEST: Final = 20  # bytes; nobody gains by a collision
_WAIT: Final = 10.0  # seconds, for another process that writes
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS results (
    result BLOB NOT NULL, recipe BLOB NOT NULL, source BLOB NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (result, recipe)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_size ON results (size);
CREATE TABLE IF NOT EXISTS speeds (model TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
"""


def digest_of(data: bytes) -> bytes:
    """What a file's content is known by."""
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def recipe_of(source: bytes, how: object) -> bytes:
    """What a way to make a result is known by.

    Args:
        source: digest of the picture.
        how: all that decides what becomes of it, as plain values.
    """
    return digest_of(source + msgspec.json.encode(how, order="deterministic"))


class Record:
    """The results of all runs of this user. For one thread at a time, and any number of processes."""

    def __init__(self, file: Path | None = None) -> None:
        """Open the record, or make it.

        Args:
            file: the database; default: `results.db` in the user's state directory.
        """
        self._file = file or user_state_path("tilewire", appauthor=False) / "results.db"
        self._database: sqlite3.Connection | None = None
        try:
            self._database = self._open()
        except (OSError, sqlite3.OperationalError):  # it cannot be written here
            pass
        except sqlite3.DatabaseError:  # damaged, or no database at all
            with suppress(OSError, sqlite3.Error):
                self._file.unlink()
                self._database = self._open()

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()

    def origins(self, file: Path) -> dict[bytes, bytes]:
        """How a file was made: recipes, and the digest of the picture of each. Empty if it is no result.

        It is read only if a result of its size is known.
        """
        if self._database is None:
            return {}
        try:
            size = file.stat().st_size
            if not size or not self._rows("SELECT 1 FROM results WHERE size = ? LIMIT 1", size):
                return {}
            return dict(
                self._rows(
                    "SELECT recipe, source FROM results WHERE result = ?", digest_of(file.read_bytes())
                )
            )
        except (OSError, sqlite3.Error):
            return {}

    def add(self, result: bytes, recipe: bytes, source: bytes) -> None:
        """Keep how a result was made.

        Args:
            result: the content of its file.
            recipe: see `recipe_of`.
            source: digest of the picture.
        """
        if self._database is None:
            return
        with suppress(sqlite3.Error), self._database:  # such as a full disk: it will be made once more
            row = digest_of(result), recipe, source, len(result)
            self._database.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?)", row)

    def seconds(self, model: str) -> float | None:
        """How long a million pixels take a model on this machine; None if it was never used.

        Args:
            model: its AIR identifier.
        """
        if self._database is None:
            return None
        try:
            rows: list[tuple[float]] = self._rows("SELECT seconds FROM speeds WHERE model = ?", model)
        except sqlite3.Error:
            return None
        return rows[0][0] if rows else None

    def learn(self, model: str, seconds: float) -> None:
        """Keep how long a million pixels took; the last time counts half.

        Args:
            model: its AIR identifier.
            seconds: what it took.
        """
        if self._database is None:
            return
        before = self.seconds(model)
        mean = seconds if before is None else (before + seconds) / 2
        with suppress(sqlite3.Error), self._database:
            self._database.execute("INSERT OR REPLACE INTO speeds VALUES (?, ?)", (model, mean))

    def _rows(self, query: str, value: object) -> list[Any]:
        assert self._database is not None
        return self._database.execute(query, (value,)).fetchall()

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, timeout=_WAIT, check_same_thread=False)
        database.execute("PRAGMA synchronous = OFF")  # what is lost in a power cut is made once more
        database.executescript(_TABLES)
        return database
