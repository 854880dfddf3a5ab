"""`tilewire backup`: all that a server keeps, into a directory, while it runs.

The database is copied first, as it is at one moment, and then the images that it names: an image is stored
before it is recorded, so all are there but for those that expire meanwhile.
"""

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from server.commands.backup_directory import (
    BackupDirectory,
    Contents,
    bucket_of,
    copy_models,
    copy_with_bar,
    delete_others,
    failures_in_words,
)
from server.commands.database import open_data
from server.commands.terminal import ConfigFile, Data, console, problems
from server.specs.version import VERSION
from server.state.copies import copy_database
from server.state.images import images_there

__all__ = ["backup"]


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The directory of the back-up.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Copy database, images and added models to a directory, even while the server runs.

    If the directory contains an earlier back-up, only new images are copied. The earlier back-up stays
    complete until the new one is.
    """
    settings, database = open_data(config, data)
    place, now = BackupDirectory(directory), time.time()

    def copy(connection: Connection) -> tuple[str, dict[str, float]]:
        images = images_there(connection, now)
        copy_database(connection, place.fresh_database)
        return connection.dialect.name, images

    with failures_in_words(settings), closing(database):
        place.prepare()
        kind, images = database.snapshot(copy)
        missing = copy_with_bar(bucket_of(settings), place.bucket(), images, now)
        copy_models(settings.effective_added_models, place.models)
        contents = Contents(VERSION, datetime.fromtimestamp(now, UTC), kind, len(images) - missing)
        place.finish(contents)
        delete_others(place.bucket(), set(images))
    console.print(
        f"{directory}: the data of {contents.created:%Y-%m-%d %H:%M:%S} UTC, images {contents.images}"
    )
    if missing:
        problems.print(f"{missing} images were gone: expired meanwhile, or lost before", style="yellow")
