"""Tokens: made with a key, short-lived, and counted against their own limits.

A token is valid as long as the key that it was made with. What its tasks use up of its limits is counted in
the transactions that accept, reserve and fail them: exact, whichever servers they come to.
"""

import secrets
import uuid
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from server.money import to_usd
from server.protocol.errors import InsufficientCreditsError, QuotaError
from server.state.accounts import digest_of
from server.state.grants import Terms
from server.state.logins import open_by_digest
from server.state.prepared import Prepared
from server.state.tables import tokens

__all__ = [
    "Token",
    "count_task",
    "create_token",
    "give_back",
    "spend",
    "uncount_task",
]

_PREFIX: Final = "twt_"

_THIS: Final = tokens.c.id == bindparam("this")
_COUNT: Final = Prepared(
    update(tokens)
    .where(_THIS, or_(tokens.c.max_tasks.is_(None), tokens.c.tasks < tokens.c.max_tasks))
    .values(tasks=tokens.c.tasks + 1)
)
_UNCOUNT: Final = Prepared(update(tokens).where(_THIS).values(tasks=tokens.c.tasks - 1))
_SPEND: Final = Prepared(
    update(tokens)
    .where(_THIS, or_(tokens.c.max_cost.is_(None), tokens.c.cost + bindparam("more") <= tokens.c.max_cost))
    .values(cost=tokens.c.cost + bindparam("more"))
)
_GIVE_BACK: Final = Prepared(update(tokens).where(_THIS).values(cost=tokens.c.cost - bindparam("less")))


class Token(NamedTuple):
    """A token that was made; this is the one time that it can be shown."""

    secret: str
    expires: float


def create_token(
    connection: Connection,
    key_digest: bytes,
    terms: Terms,
    now: float,
    seconds: float,
    *,
    configured: str | None = None,
) -> Token | None:
    """A new token of 256 random bits; None if the key is not valid. Only its hash is kept.

    Args:
        connection: within a transaction.
        key_digest: of the key that it is made with, and ends with.
        terms: what it is limited to.
        now: the time, in seconds since the epoch.
        seconds: how long it is valid.
        configured: the key of the settings.
    """
    opened = open_by_digest(connection, key_digest, now, configured=configured)
    if opened is None:
        return None
    secret, token = _PREFIX + secrets.token_urlsafe(32), str(uuid.uuid4())
    expires = now + seconds if opened.expires is None else min(opened.expires, now + seconds)
    connection.execute(
        insert(tokens).values(
            id=token,
            account_id=opened.login.account,
            key_digest=key_digest,
            digest=digest_of(secret),
            scope=token,
            terms=msgspec.json.encode(terms),
            max_tasks=terms.max_tasks,
            max_cost=terms.max_cost,
            tasks=0,
            cost=0,
            used=False,
            expires=expires,
        )
    )
    return Token(secret, expires)


def count_task(connection: Connection, token: str) -> None:
    """Count a task that is accepted.

    Raises:
        QuotaError: if the token has begun as many as it may.
    """
    if not _COUNT.count(connection, {"this": token}):
        most = connection.scalar(select(tokens.c.max_tasks).where(tokens.c.id == token))
        raise QuotaError("tokenQuotaExceeded", f"the token may begin {most} tasks, and has begun them")


def uncount_task(connection: Connection, token: str) -> None:
    """A task was accepted, but its client got an error."""
    _UNCOUNT.count(connection, {"this": token})


def spend(connection: Connection, token: str, amount: int) -> None:
    """Count what a task will cost, in nanodollars.

    Raises:
        InsufficientCreditsError: if the token may not spend as much.
    """
    if _SPEND.count(connection, {"this": token, "more": amount}):
        return
    row = connection.execute(select(tokens.c.max_cost, tokens.c.cost).where(tokens.c.id == token)).first()
    left = 0 if row is None else row.max_cost - row.cost
    raise InsufficientCreditsError(
        "tokenInsufficientCredits",
        f"the task costs {to_usd(amount)} USD; the token may spend {to_usd(left)} USD more",
    )


def give_back(connection: Connection, token: str, amount: int) -> None:
    """A task that `amount` was counted for costs nothing."""
    if amount:
        _GIVE_BACK.count(connection, {"this": token, "less": amount})
