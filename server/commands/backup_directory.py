"""A directory with a back-up: a copy of the database, the images it names, the models that were added.

Once there is a back-up in it, there is one at every moment: what a new one needs is added, the new copy of
the database then takes the place of the old one at once, and what only that one needed is deleted last.
"""

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sqlalchemy.exc import SQLAlchemyError

from onnx_models import one_line
from server.commands.terminal import console, give_up
from server.images.bucket import Bucket, StoreError, open_store
from server.images.copies import copy_images
from server.private import private_directory, private_file
from server.protocol.errors import DatabaseUnavailableError, UnavailableError
from server.settings import Settings
from server.state.copies import CopyError
from server.state.migrations import UnusableDatabaseError
from server.state.words import database_problem

__all__ = [
    "BackupDirectory",
    "Contents",
    "bucket_of",
    "copy_models",
    "copy_with_bar",
    "delete_others",
    "failures_in_words",
    "names_in",
]

_CONTENTS: Final = "backup.json"


class Contents(Struct, frozen=True):
    """What a back-up is of.

    Attributes:
        version: of Tilewire.
        created: when its database was copied.
        database: sqlite or postgresql.
        images: how many it has.
    """

    version: str
    created: datetime
    database: str
    images: int


class BackupDirectory:
    """Where a back-up is, or is to be.

    Attributes:
        database: the file with the copy of the database.
        fresh_database: where a new copy is until all else is there.
        models: the folder of the models that were added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.database = path / "database"
        self.fresh_database = path / ".database.partial"
        self.models = path / "models"
        self._images = path / "images"

    def bucket(self) -> Bucket:
        """The images."""
        return Bucket(open_store(None, self._images))

    def contents(self) -> Contents | None:
        """What is in it; None if it holds no back-up.

        Raises:
            CopyError: if that cannot be read.
        """
        try:
            return msgspec.json.decode((self._path / _CONTENTS).read_bytes(), type=Contents)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError as error:
            raise CopyError(f"{self._path / _CONTENTS} is damaged: {error}") from error

    def prepare(self) -> None:
        """Have the directory there, closed to others.

        Raises:
            CopyError: if it holds something else than a back-up.
        """
        ours = {self._images, self.models, self.database, self.fresh_database, self._path / _CONTENTS}
        if self._path.is_dir() and self.contents() is None and set(self._path.iterdir()) - ours:
            raise CopyError(f"{self._path} is neither empty nor a back-up")
        private_directory(self._path)

    def finish(self, contents: Contents) -> None:
        """Put the new copy of the database in its place: from now on it is the back-up."""
        self.fresh_database.replace(self.database)
        fresh = private_file(self._path / f".{_CONTENTS}.partial")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(contents)) + b"\n")
        fresh.replace(self._path / _CONTENTS)


@contextmanager
def failures_in_words(settings: Settings) -> Iterator[None]:
    """End the command with one line for whatever goes wrong with databases, stores and files."""
    try:
        yield
    except (CopyError, StoreError, UnusableDatabaseError, OSError) as error:
        give_up(one_line(error), status=1)
    except (DatabaseUnavailableError, UnavailableError) as error:
        give_up(f"{error}: {one_line(error.__cause__)}" if error.__cause__ else str(error), status=1)
    except (SQLAlchemyError, ImportError) as error:
        give_up(database_problem(error, settings.effective_database_url), status=1)


def bucket_of(settings: Settings) -> Bucket:
    """The images of a server."""
    return Bucket(open_store(settings.storage_url, settings.data / "images"), settings.store_timeout)


def copy_with_bar(source: Bucket, target: Bucket, images: Mapping[str, float], now: float) -> int:
    """Copy images, as `copy_images` does, and close the buckets."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()
    with (
        closing(source),
        closing(target),
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars,
    ):
        bar = bars.add_task("images", total=len(images))
        return asyncio.run(copy_images(source, target, images, now, lambda: bars.advance(bar)))


def copy_models(source: Path, target: Path) -> None:
    """Have the added models in another folder as they are here; what is there already is not copied."""
    found = (file.relative_to(source) for file in source.rglob("*") if file.is_file())
    files = {file for file in found if not any(part.startswith(".") for part in file.parts)}
    for name in sorted(files, key=lambda file: file.suffix == ".json"):  # a model's entry comes last
        _copy_file(source / name, target / name)
    for old in sorted(target.rglob("*"), reverse=True):
        if old.is_file() and old.relative_to(target) not in files:
            old.unlink()
        elif old.is_dir() and not any(old.iterdir()):
            old.rmdir()


def _copy_file(source: Path, target: Path) -> None:
    there, here = target.stat() if target.exists() else None, source.stat()
    if there is not None and (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copy2(source, partial)
    partial.replace(target)


def names_in(bucket: Bucket) -> set[str]:
    """The names of a bucket's images; the bucket is closed."""
    with closing(bucket):
        return asyncio.run(bucket.names())


def delete_others(bucket: Bucket, names: set[str]) -> None:
    """Delete all images but those of some names, and close the bucket."""

    async def delete() -> None:
        await bucket.delete(sorted(await bucket.names() - names))

    with closing(bucket):
        asyncio.run(delete())
