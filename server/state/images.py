"""Which images there are, whose they are and how long they stay. Their bytes are in `server.images.store`.

One transaction sees that an image has still expired, forgets it and condemns its file (see `loose_files`).
Whoever extends it comes before, and it stays, or after, and there is none.

How many bytes of images an account has is kept with it as they come and go, and bounded.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Float,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)

from server.protocol.errors import QuotaError
from server.state.accounts import AccountId
from server.state.loose_files import condemn, note_condemned, note_loose, take_loose
from server.state.prepared import Prepared
from server.state.tables import accounts, images, loose_files

__all__ = [
    "NO_LIMIT",
    "Check",
    "FileCondemnedError",
    "ImageRecord",
    "Recorded",
    "check_room",
    "condemn_expired",
    "expire",
    "expire_lost",
    "extend",
    "find_image",
    "image_named",
    "images_there",
    "known_files",
    "known_input",
    "note_unknown",
    "record_image",
    "record_input",
    "record_new",
]

NO_LIMIT: Final = 2**62

Check: TypeAlias = Callable[[Connection], None]


class FileCondemnedError(Exception):
    """The file of an image is to be deleted, or gone: it was loose for too long, or the image has expired."""


class ImageRecord(NamedTuple):
    """An image: `size` in bytes, `width` and `height` in pixels. `name` is the unguessable end of its URL.

    `scope` is that of the token that it belongs to, if it does.
    """

    uuid: str
    account: AccountId
    name: str
    size: int
    width: int
    height: int
    expires: float
    scope: str | None = None


class Recorded(NamedTuple):
    """What an image's UUID stands for now, and the name of a file that it stands for no more: condemned."""

    image: ImageRecord
    superfluous: str | None


_COLUMNS = (
    images.c.uuid,
    images.c.account_id,
    images.c.name,
    images.c.size,
    images.c.width,
    images.c.height,
    images.c.expires,
    images.c.scope,
)


_now: Final[BindParameter[float]] = bindparam("now", type_=Float)
_until: Final[BindParameter[float]] = bindparam("until", type_=Float)
_THIS: Final = (
    images.c.uuid == bindparam("this"),
    images.c.account_id == bindparam("of"),
    images.c.expires > _now,
)
_FIND: Final = Prepared(select(*_COLUMNS).where(*_THIS))
_FIND_NAMED: Final = Prepared(
    select(*_COLUMNS).where(images.c.name == bindparam("called"), images.c.expires > _now)
)
_EXTEND: Final = Prepared(
    update(images)
    .where(*_THIS)
    .values(expires=case((images.c.expires < _until, _until), else_=images.c.expires))
    .returning(*_COLUMNS)
)
_REPLACE: Final = Prepared(
    delete(images)
    .where(images.c.uuid == bindparam("this"), images.c.expires <= _now)
    .returning(images.c.name, images.c.size)
)
_more: Final[BindParameter[int]] = bindparam("more", type_=BigInteger)
_limit: Final[BindParameter[int]] = bindparam("limit", type_=BigInteger)
_COUNT: Final = Prepared(
    update(accounts)
    .where(accounts.c.id == bindparam("of"), accounts.c.stored + _more <= _limit)
    .values(stored=accounts.c.stored + _more)
)
_UNCOUNT: Final = Prepared(
    update(accounts)
    .where(accounts.c.id == bindparam("of"))
    .values(stored=accounts.c.stored - bindparam("less", type_=BigInteger))
)
_STORED: Final = Prepared(select(accounts.c.stored).where(accounts.c.id == bindparam("of")))
_INSERT: Final = Prepared(insert(images))


def record_image(connection: Connection, image: ImageRecord, now: float, limit: int = NO_LIMIT) -> Recorded:
    """Record an image under its UUID, in place of one that has expired; its file is loose no more.

    Args:
        connection: in a transaction.
        image: whose file is written.
        now: the time in seconds since the epoch.
        limit: bytes of images that its account may have.

    Returns:
        The image: one that is there and has not expired stays, for as long as either should.

    Raises:
        FileCondemnedError: if the image's own file is to be deleted, or gone.
        QuotaError: if the account would have too many bytes of images.
    """
    kept = extend(connection, image.account, image.uuid, image.expires, now)
    if kept is not None:
        condemn(connection, image.name)
        return Recorded(kept, image.name)
    row = _REPLACE.first(connection, {"this": image.uuid, "now": now})
    if row is not None:
        note_condemned(connection, row[0])
        _UNCOUNT.count(connection, {"of": image.account, "less": row[1]})
    record_new(connection, image, limit)
    return Recorded(image, None if row is None else row[0])


def record_new(connection: Connection, image: ImageRecord, limit: int = NO_LIMIT) -> None:
    """Record an image under a UUID that was made for it; its file is loose no more.

    Arguments and errors are as of `record_image`.
    """
    if not take_loose(connection, image.name):
        raise FileCondemnedError
    if _COUNT.count(connection, {"of": image.account, "more": image.size, "limit": limit}) == 0:
        check_room(connection, image.account, image.size, limit)
    values = image._asdict()
    values["account_id"] = values.pop("account")
    _INSERT.count(connection, values)


def check_room(connection: Connection, account: AccountId, size: int, limit: int) -> None:
    """See that an account may keep so many bytes more.

    Raises:
        QuotaError: if it may not.
    """
    row = _STORED.first(connection, {"of": account})
    stored = 0 if row is None else row[0]
    if stored + size > limit:
        raise QuotaError(
            "storageQuotaExceeded",
            f"the account keeps {stored} bytes of images, and may keep {limit} (max_stored_bytes); delete "
            "some by mediaStorage, or ask for a shorter ttl",
        )


def extend(
    connection: Connection, account: AccountId, uuid: str, expires: float, now: float
) -> ImageRecord | None:
    """Keep an account's image at least until `expires`; None if there is none, or no more."""
    which = {"this": uuid, "of": account, "until": expires, "now": now}
    row = _EXTEND.first(connection, which)
    return None if row is None else ImageRecord(*row)


def known_input(
    connection: Connection, image: ImageRecord, now: float, limit: int, check: Check | None = None
) -> ImageRecord | None:
    """What an input's UUID stands for already; if for nothing, its account has room for it.

    Args:
        connection: in a transaction.
        image: what is to be kept.
        now: the time in seconds since the epoch.
        limit: bytes of images that its account may have.
        check: called first; what it raises refuses the image.

    Raises:
        QuotaError: if the account would have too many bytes of images.
    """
    if check is not None:
        check(connection)
    known = find_image(connection, image.account, image.uuid, now)
    if known is None:
        check_room(connection, image.account, image.size, limit)
    return known


def record_input(
    connection: Connection, image: ImageRecord, now: float, limit: int, *, is_written: bool
) -> Recorded:
    """Record an input whose file is written, or keep for longer the one that there should be.

    Arguments and errors are as of `record_image`; FileCondemnedError also if it is not there any more.
    """
    if is_written:
        return record_image(connection, image, now, limit)
    kept = extend(connection, image.account, image.uuid, image.expires, now)
    if kept is None:
        raise FileCondemnedError
    return Recorded(kept, None)


def expire(connection: Connection, account: AccountId, uuid: str, now: float) -> bool:
    """Forget an account's image now, and condemn its file. False if there is none."""
    return bool(
        _forget(connection, images.c.uuid == uuid, images.c.account_id == account, images.c.expires > now)
    )


def find_image(connection: Connection, account: AccountId, uuid: str, now: float) -> ImageRecord | None:
    """An account's image that has not expired."""
    row = _FIND.first(connection, {"this": uuid, "of": account, "now": now})
    return None if row is None else ImageRecord(*row)


def image_named(connection: Connection, name: str, now: float) -> ImageRecord | None:
    """Any account's image that has not expired: who knows the name may see it."""
    row = _FIND_NAMED.first(connection, {"called": name, "now": now})
    return None if row is None else ImageRecord(*row)


def condemn_expired(connection: Connection, now: float, limit: int) -> list[str]:
    """Forget some of the images whose time has passed; returns the names of their files, condemned now."""
    some = select(images.c.uuid).where(images.c.expires <= now).limit(limit)
    # Again that it has expired: it may have been extended since.
    return _forget(connection, images.c.uuid.in_(some), images.c.expires <= now)


def _forget(connection: Connection, *which: ColumnElement[bool]) -> list[str]:
    """Forget images; returns the names of their files, condemned now."""
    gone = connection.execute(
        delete(images).where(*which).returning(images.c.name, images.c.account_id, images.c.size)
    ).all()
    sizes: Counter[str] = Counter()
    for name, account, size in gone:
        note_condemned(connection, name)
        sizes[account] += size
    for account, size in sorted(sizes.items()):  # servers lock rows in one order
        _UNCOUNT.count(connection, {"of": account, "less": size})
    return [name for name, _, _ in gone]


def images_there(connection: Connection, now: float) -> dict[str, float]:
    """The names of all images that have not expired, and when each does."""
    rows = connection.execute(select(images.c.name, images.c.expires).where(images.c.expires > now))
    return {row.name: row.expires for row in rows}


def known_files(connection: Connection) -> set[str]:
    """The names of all files that are an image's, or loose."""
    return {*connection.scalars(select(images.c.name)), *connection.scalars(select(loose_files.c.name))}


def expire_lost(connection: Connection, lost: dict[str, float], now: float) -> int:
    """End images whose files are lost, unless they were kept longer meanwhile: those have their bytes again.

    Args:
        connection: in a transaction.
        lost: their names, and when they were to expire.
        now: the time in seconds since the epoch.

    Returns:
        How many.
    """
    ended = 0
    for name, expires in lost.items():
        this = images.c.name == name, images.c.expires == expires
        ended += connection.execute(update(images).where(*this).values(expires=now)).rowcount
    return ended


def note_unknown(connection: Connection, names: set[str], now: float) -> None:
    """Record files as loose that are neither that nor an image's: they are deleted after a day."""
    for name in names - known_files(connection):
        note_loose(connection, name, now)
