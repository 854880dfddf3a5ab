"""Which files no image names: those that are being written, and those that are to be deleted.

A file is recorded as *loose* before it is written, so that a crash in between leaves no file behind that
nobody knows. Once an image names it, it is loose no more. A loose file that is to be deleted is *condemned*,
and stays so: files are deleted only then.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from server.state.prepared import Prepared
from server.state.tables import loose_files

__all__ = [
    "condemn",
    "condemn_stale",
    "condemned",
    "forget_loose",
    "note_all_loose",
    "note_condemned",
    "note_loose",
    "take_loose",
]

_CONDEMNED: Final = 0.0
"""Since when a condemned file is loose."""

_INSERT: Final = Prepared(insert(loose_files))
_TAKE: Final = Prepared(
    delete(loose_files).where(loose_files.c.name == bindparam("called"), loose_files.c.since > _CONDEMNED)
)


def note_loose(connection: Connection, name: str, now: float) -> None:
    """Record a file that no image names, before it is written."""
    note_all_loose(connection, [name], now)


def note_all_loose(connection: Connection, names: Iterable[str], now: float) -> None:
    """`note_loose` of several."""
    _INSERT.each(connection, [{"name": name, "since": now} for name in names])


def take_loose(connection: Connection, name: str) -> bool:
    """Give a file to an image; False if it is condemned, or deleted."""
    return _TAKE.count(connection, {"called": name}) > 0


def note_condemned(connection: Connection, name: str) -> None:
    """Have a file deleted that an image named until now."""
    note_loose(connection, name, _CONDEMNED)


def condemn(connection: Connection, name: str) -> None:
    """Have a loose file deleted."""
    connection.execute(update(loose_files).where(loose_files.c.name == name).values(since=_CONDEMNED))


def condemn_stale(connection: Connection, before: float) -> int:
    """Have the files deleted that have been loose since before a time: whoever was at them is gone."""
    stale = and_(loose_files.c.since < before, loose_files.c.since > _CONDEMNED)
    return connection.execute(update(loose_files).where(stale).values(since=_CONDEMNED)).rowcount


def condemned(connection: Connection, after: str, limit: int) -> list[str]:
    """Some of the files that are to be deleted: the next ones, by name, after a name."""
    query = (
        select(loose_files.c.name)
        .where(loose_files.c.since == _CONDEMNED, loose_files.c.name > after)
        .order_by(loose_files.c.name)
        .limit(limit)
    )
    return list(connection.scalars(query))


def forget_loose(connection: Connection, names: list[str]) -> None:
    """Delete the records of files that are deleted."""
    connection.execute(delete(loose_files).where(loose_files.c.name.in_(names)))
