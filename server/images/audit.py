"""Compares the images that are recorded with the objects that are there, and mends what differs.

It may run while servers do: what comes and goes meanwhile is no mistake.
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from server.images.bucket import Bucket
from server.images.store import MEDIA_TYPES
from server.state.database import Database
from server.state.images import expire_lost, images_there, known_files, note_unknown

__all__ = ["ImageAudit", "audit_images", "mend_images"]

_OURS: Final = re.compile(rf"[A-Za-z0-9_-]{{22}}\.({'|'.join(MEDIA_TYPES)})")
"""What `new_name` gives."""


class ImageAudit(NamedTuple):
    """What is recorded and what is there.

    Attributes:
        images: how many are recorded.
        lost: names of the images whose objects are not there, and when each was to expire.
        unknown: names of objects that no record names.
        foreign: how many objects are not Tilewire's, by their names.
    """

    images: int
    lost: dict[str, float]
    unknown: set[str]
    foreign: int

    @property
    def is_right(self) -> bool:
        """Whether each image has its object, and each object its image."""
        return not self.lost and not self.unknown

    @property
    def nothing_fits(self) -> bool:
        """Whether there are images and none of them is there: as in another store than theirs."""
        return self.images > 0 and len(self.lost) == self.images


async def audit_images(
    bucket: Bucket, database: Database, clock: Callable[[], float] = time.time
) -> ImageAudit:
    """Compare records and objects.

    A file is recorded before it is written, and deleted after its record: so what was recorded before the
    objects were listed and still is afterwards has to be there, and what was listed is recorded afterwards.

    Raises:
        UnavailableError: if the database or the store cannot be used.
    """
    before = await database.run(images_there, clock())
    listed = await bucket.names()
    after = await database.run(images_there, clock())
    recorded = await database.run(known_files)
    missing = [name for name in before if name in after and name not in listed]
    gone = await asyncio.gather(*(_is_gone(bucket, name) for name in missing))
    ours = {name for name in listed if _OURS.fullmatch(name)}
    return ImageAudit(
        images=len(after),
        lost={name: after[name] for name, is_gone in zip(missing, gone, strict=True) if is_gone},
        unknown=ours - recorded,
        foreign=len(listed) - len(ours),
    )


async def mend_images(found: ImageAudit, database: Database, clock: Callable[[], float] = time.time) -> None:
    """End the images that are lost, and have unknown objects deleted, by the server and after a day."""
    await database.run(expire_lost, found.lost, clock())
    await database.run(note_unknown, found.unknown, clock())


async def _is_gone(bucket: Bucket, name: str) -> bool:
    try:
        await bucket.look(name)
    except FileNotFoundError:
        return True
    return False
