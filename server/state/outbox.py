"""Replies that wait until their session takes them, in order."""

import math
import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select, text

from server.state.accounts import AccountId
from server.state.prepared import Prepared
from server.state.tables import outbox

__all__ = [
    "OutboxId",
    "UndeliveredReply",
    "count_undelivered",
    "delivered",
    "forget_outcome",
    "keep_outcome",
    "keep_undelivered",
    "kept_frame",
    "purge_undelivered",
    "sessions_with_mail",
    "undelivered",
]


_INSERT: Final = Prepared(insert(outbox).returning(outbox.c.id))
_UNDELIVERED: Final = Prepared(
    select(outbox.c.id, outbox.c.created, func.length(outbox.c.frame), outbox.c.task_uuid)
    .where(outbox.c.account_id == bindparam("of"), outbox.c.session == bindparam("in"))
    .order_by(outbox.c.id)
)
_THIS: Final = outbox.c.id == bindparam("this"), outbox.c.created == bindparam("since")
_FRAME: Final = Prepared(select(outbox.c.frame).where(*_THIS))
_DELIVERED: Final = Prepared(delete(outbox).where(*_THIS))

_NAMED_AT_ONCE: Final = 500

# One look into the index for each session that is asked for, however many replies wait for others.
_WITH_MAIL: Final = {
    "sqlite": """
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:asked)
        WHERE EXISTS (
            SELECT 1 FROM outbox
            WHERE account_id = json_extract(value, '$[0]') AND session = json_extract(value, '$[1]')
        )
    """,
    "postgresql": """
        SELECT value ->> 0, value ->> 1 FROM json_array_elements(CAST(:asked AS json)) AS asked (value)
        WHERE EXISTS (SELECT 1 FROM outbox WHERE account_id = value ->> 0 AND session = value ->> 1)
    """,
}


class OutboxId(NamedTuple):
    """An entry of the outbox: SQLite gives the number of one that is gone to another."""

    number: int
    created: float


class UndeliveredReply(NamedTuple):
    """A reply in the outbox: the outcome of a task, or a MessagePack frame.

    Attributes:
        id: of its entry.
        size: bytes of the frame; None for an outcome.
        task_uuid: whose outcome it is; None for a frame.
        kept_at: by this server's monotonic clock, where it has just been kept; before others can see it.
    """

    id: OutboxId
    size: int | None
    task_uuid: str | None
    kept_at: float = -math.inf


def keep_undelivered(
    connection: Connection, account: AccountId, session: str, now: float, frame: bytes
) -> None:
    """Put a MessagePack frame into the outbox of a session."""
    connection.execute(insert(outbox).values(account_id=account, session=session, frame=frame, created=now))


def keep_outcome(
    connection: Connection, account: AccountId, session: str, now: float, task_uuid: str
) -> UndeliveredReply:
    """Put the outcome of a task into the outbox of a session."""
    outcome = {"account_id": account, "session": session, "task_uuid": task_uuid, "created": now}
    row = _INSERT.first(connection, outcome)
    assert row is not None
    return UndeliveredReply(OutboxId(row[0], now), None, task_uuid, time.monotonic())


def forget_outcome(connection: Connection, account: AccountId, task_uuid: str) -> None:
    """Take the outcome of a task out of the outbox, whoever it waits for."""
    connection.execute(delete(outbox).where(outbox.c.account_id == account, outbox.c.task_uuid == task_uuid))


def undelivered(connection: Connection, account: AccountId, session: str) -> list[UndeliveredReply]:
    """The outbox of a session, oldest first."""
    waiting = _UNDELIVERED.all(connection, {"of": account, "in": session})
    return [UndeliveredReply(OutboxId(number, created), *rest) for number, created, *rest in waiting]


def kept_frame(connection: Connection, outbox_id: OutboxId) -> bytes | None:
    """The frame of an entry; None if it is gone."""
    row = _FRAME.first(connection, _named(outbox_id))
    return None if row is None else row[0]


def sessions_with_mail(
    connection: Connection, sessions: Sequence[tuple[AccountId, str]]
) -> list[tuple[AccountId, str]]:
    """Those of the sessions whose outbox is not empty."""
    found: list[tuple[AccountId, str]] = []
    query = text(_WITH_MAIL[connection.dialect.name])
    for first in range(0, len(sessions), _NAMED_AT_ONCE):
        asked = msgspec.json.encode(sessions[first : first + _NAMED_AT_ONCE]).decode()
        found += [(AccountId(row[0]), row[1]) for row in connection.execute(query, {"asked": asked})]
    return found


def count_undelivered(connection: Connection) -> int:
    """How many replies wait in the outboxes of all sessions."""
    return connection.scalar(select(func.count()).select_from(outbox)) or 0


def delivered(connection: Connection, outbox_ids: Collection[OutboxId]) -> None:
    """Take replies out of the outbox."""
    _DELIVERED.each(connection, [_named(each) for each in outbox_ids])


def purge_undelivered(connection: Connection, before: float) -> int:
    """Drop replies that nobody came for; returns how many."""
    return connection.execute(delete(outbox).where(outbox.c.created < before)).rowcount


def _named(outbox_id: OutboxId) -> dict[str, object]:
    return {"this": outbox_id.number, "since": outbox_id.created}
