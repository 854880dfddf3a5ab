"""Which images there are, whose they are and how long they stay. Their bytes are in `server.images`."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from server.state.accounts import AccountId
from server.state.database import images

__all__ = ["ImageRecord", "expired", "find_image", "forget", "image_named", "record_image"]


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


def record_image(connection: Connection, image: ImageRecord) -> None:
    """Record an image, or keep one that is there until the later of the two times."""
    extended = connection.execute(
        update(images)
        .where(images.c.uuid == image.uuid)
        .values(expires=func.max(images.c.expires, image.expires))
    )
    if extended.rowcount == 0:
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


def forget(connection: Connection, uuids: list[str]) -> None:
    """Delete the records of images."""
    connection.execute(delete(images).where(images.c.uuid.in_(uuids)))


def _first(connection: Connection, *conditions: object) -> ImageRecord | None:
    row = connection.execute(select(*_COLUMNS).where(*conditions)).first()  # type: ignore[arg-type]
    return None if row is None else ImageRecord(*row)
