"""Which images there are, whose they are and how long they stay. Their bytes are in `server.images.store`.

A file that no image names is *loose*: it is being written, or is to be deleted. It is recorded as such first,
so that a crash in between leaves no file behind that nobody knows.
"""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from server.state.accounts import AccountId
from server.state.tables import images, loose_files

__all__ = [
    "ImageRecord",
    "expired",
    "extend",
    "find_image",
    "forget",
    "forget_loose",
    "image_named",
    "note_loose",
    "record_image",
    "stale_loose",
]


class ImageRecord(NamedTuple):
    """An image: `size` in bytes, `width` and `height` in pixels. `name` is the unguessable end of its URL."""

    uuid: str
    account: AccountId
    name: str
    size: int
    width: int
    height: int
    expires: float


_COLUMNS = (
    images.c.uuid,
    images.c.account_id,
    images.c.name,
    images.c.size,
    images.c.width,
    images.c.height,
    images.c.expires,
)


def record_image(connection: Connection, image: ImageRecord, now: float) -> tuple[ImageRecord, str | None]:
    """Record an image under its UUID, in place of one that has expired; its file is loose no more.

    Returns:
        The image that the UUID stands for now: one that is there and has not expired stays, for as long as
        either should; and the name of the file that no image names any more, which is loose now.
    """
    same = images.c.uuid == image.uuid
    present = _first(connection, same)
    if present is not None and present.expires > now:
        kept = extend(connection, image.account, image.uuid, image.expires, now)
        assert kept is not None
        return kept, image.name
    if present is not None:
        connection.execute(delete(images).where(same))
        note_loose(connection, present.name, now)
    forget_loose(connection, [image.name])
    connection.execute(
        insert(images).values(
            uuid=image.uuid,
            account_id=image.account,
            name=image.name,
            size=image.size,
            width=image.width,
            height=image.height,
            expires=image.expires,
        )
    )
    return image, None if present is None else present.name


def extend(
    connection: Connection, account: AccountId, uuid: str, expires: float, now: float
) -> ImageRecord | None:
    """Keep an account's image at least until `expires`; None if there is none, or no more."""
    image = find_image(connection, account, uuid, now)
    if image is None or image.expires >= expires:
        return image
    connection.execute(update(images).where(images.c.uuid == uuid).values(expires=expires))
    return image._replace(expires=expires)


def find_image(connection: Connection, account: AccountId, uuid: str, now: float) -> ImageRecord | None:
    """An account's image that has not expired."""
    return _first(connection, images.c.uuid == uuid, images.c.account_id == account, images.c.expires > now)


def image_named(connection: Connection, name: str, now: float) -> ImageRecord | None:
    """Any account's image that has not expired: who knows the name may see it."""
    return _first(connection, images.c.name == name, images.c.expires > now)


def expired(connection: Connection, now: float, limit: int) -> list[ImageRecord]:
    """Some of the images whose time has passed."""
    query = select(*_COLUMNS).where(images.c.expires <= now).limit(limit)
    return [ImageRecord(*row) for row in connection.execute(query)]


def forget(connection: Connection, names: list[str]) -> None:
    """Delete the records of images. By name: a UUID may have been given to a new upload meanwhile."""
    connection.execute(delete(images).where(images.c.name.in_(names)))


def note_loose(connection: Connection, name: str, now: float) -> None:
    """Record a file that no image names, before it is written."""
    connection.execute(insert(loose_files).values(name=name, since=now))


def stale_loose(connection: Connection, before: float, limit: int) -> list[str]:
    """Some of the files that have been loose since before a time: whoever was at them is gone."""
    query = select(loose_files.c.name).where(loose_files.c.since < before).limit(limit)
    return list(connection.scalars(query))


def forget_loose(connection: Connection, names: list[str]) -> None:
    """Delete the records of loose files, once they are deleted or have an image."""
    connection.execute(delete(loose_files).where(loose_files.c.name.in_(names)))


def _first(connection: Connection, *conditions: object) -> ImageRecord | None:
    row = connection.execute(select(*_COLUMNS).where(*conditions)).first()  # type: ignore[arg-type]
    return None if row is None else ImageRecord(*row)
