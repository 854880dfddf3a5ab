"""`tilewire restore`: what `tilewire backup` saved, to an empty place.

The database comes last: until all is there no server finds it, and an interrupted restore is done again.
"""

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from server.commands.backup_directory import (
    BackupDirectory,
    bucket_of,
    copy_models,
    copy_with_bar,
    failures_in_words,
    names_in,
)
from server.commands.database import is_there, place_of
from server.commands.terminal import ConfigFile, Data, console, effective_settings, give_up, problems
from server.images.audit import ImageAudit, audit_images, mend_images
from server.private import private_directory
from server.settings import Settings
from server.state.audit import audit
from server.state.copies import restore_database
from server.state.database import Database

__all__ = ["restore"]


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The directory of the back-up.")],
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Restore a back-up to an empty place: a data directory, or an empty PostgreSQL database and a store.

    Start the server afterwards: it runs the tasks that were accepted and not finished.
    """
    settings, _ = effective_settings(config, data=data)
    place, url = BackupDirectory(directory), settings.effective_database_url
    with failures_in_words(settings):
        contents = place.contents()
        if contents is None:
            give_up(f"{directory} holds no back-up")
        if (kind := make_url(url).get_backend_name()) != contents.database:
            give_up(f"the back-up is of {contents.database}; database_url is of {kind}")
        if is_there(url):
            give_up(f"there is a database at {place_of(settings)}: move it away, or restore to another place")
        private_directory(settings.data)
        names = names_in(place.bucket())
        kept_for = time.time() + settings.image_ttl
        copy_with_bar(place.bucket(), bucket_of(settings), dict.fromkeys(names, kept_for), time.time())
        copy_models(place.models, settings.effective_added_models)
        restore_database(place.database, url)
        with closing(Database(url)) as database:
            lost = asyncio.run(_mend(settings, database))
            books = database.snapshot(audit)
    for mistake in books.mistakes:
        problems.print(mistake, style="red")
    if lost:
        problems.print(
            f"{lost} images are not in the back-up: they expired while it was made, or were lost",
            style="yellow",
        )
    console.print(
        f"restored the data of {contents.created:%Y-%m-%d %H:%M:%S} UTC: accounts {books.accounts}, "
        f"charges {books.charges}, images {len(names)}"
    )
    if books.mistakes:
        raise typer.Exit(1)


async def _mend(settings: Settings, database: Database) -> int:
    """End the images that came without their bytes, have what no record names deleted; how many were lost."""
    with closing(bucket_of(settings)) as bucket:
        found: ImageAudit = await audit_images(bucket, database)
    await mend_images(found, database)
    return len(found.lost)
