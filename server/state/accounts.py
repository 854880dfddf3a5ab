"""Accounts and their API keys."""

import hashlib
import secrets
import uuid
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final, NewType

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, bindparam, insert, or_, select, update

from server.state.books import Book, move
from server.state.prepared import Prepared
from server.state.tables import accounts, api_keys

__all__ = [
    "DEFAULT_ACCOUNT",
    "MAX_NAME",
    "Account",
    "AccountId",
    "AmbiguousKeyError",
    "Key",
    "KeyId",
    "account_named",
    "create_key",
    "created",
    "digest_named",
    "digest_of",
    "find_account",
    "has_keys",
    "list_accounts",
    "list_keys",
    "names_of",
    "newest_digest",
    "revoke_key",
    "revoked_keys",
    "rotate_key",
]

AccountId = NewType("AccountId", str)
KeyId = NewType("KeyId", str)

DEFAULT_ACCOUNT = "default"

MAX_NAME: Final = 200
"""Characters of an account's name, and of a key's label, at most."""

_NAMED_AT_ONCE: Final = 500

_FIND_NAMED: Final = Prepared(select(accounts.c.id).where(accounts.c.name == bindparam("called")))


class AmbiguousKeyError(Exception):
    """No key, or more than one, begins with the given characters."""


class Account(Struct, frozen=True):
    """An account as it may be shown; amounts in nanodollars, the balance None for no limit."""

    id: str
    name: str
    balance: int | None
    reserved: int
    charged: int
    created: float


class Key(Struct, frozen=True):
    """An API key as it may be shown."""

    id: str
    account: str
    label: str
    hint: str
    created: float
    last_used: float | None
    revoked: bool
    expires: float | None

    def is_valid(self, now: float) -> bool:
        """Whether it opens its account: it was neither revoked nor has it expired."""
        return not self.revoked and (self.expires is None or now < self.expires)


def account_named(connection: Connection, name: str, now: float, *, balance: int | None = None) -> AccountId:
    """The account of this name, made if there is none yet.

    Args:
        connection: in a transaction.
        name: of the account.
        now: the time in seconds since the epoch.
        balance: what a new account is given, in nanodollars; None for no limit.
    """
    found = find_account(connection, name)
    if found is not None:
        return found
    account = AccountId(str(uuid.uuid4()))
    limit = None if balance is None else 0
    kept = {"balance": limit, "reserved": 0, "charged": 0, "charges": 0}
    connection.execute(insert(accounts).values(id=account, name=name, created=now, **kept))
    move(connection, account, balance or 0, Book.ISSUED, Book.BALANCE, now)
    return account


def list_accounts(connection: Connection) -> list[Account]:
    """All accounts, by name."""
    columns = (getattr(accounts.c, field) for field in Account.__struct_fields__)
    return [Account(*row) for row in connection.execute(select(*columns).order_by(accounts.c.name))]


def names_of(connection: Connection, ids: Collection[AccountId]) -> dict[AccountId, str]:
    """The names of accounts."""
    query = select(accounts.c.id, accounts.c.name).where(accounts.c.id.in_(ids))
    return {AccountId(row.id): row.name for row in connection.execute(query)}


def find_account(connection: Connection, name: str) -> AccountId | None:
    """The account of this name."""
    row = _FIND_NAMED.first(connection, {"called": name})
    return None if row is None else AccountId(row[0])


def created(connection: Connection, account: AccountId) -> float:
    """When the account was made, in seconds since the epoch."""
    query = select(accounts.c.created).where(accounts.c.id == account)
    return float(connection.execute(query).scalar_one())


def create_key(
    connection: Connection, account: AccountId, label: str, now: float, *, expires: float | None = None
) -> str:
    """A new key of 256 random bits. Only its hash is kept: this is the one time it can be shown.

    Args:
        connection: within a transaction.
        account: whose key it is.
        label: what it is for.
        now: the time, in seconds since the epoch.
        expires: when it stops being valid; None for never.
    """
    secret = f"tw_{secrets.token_urlsafe(32)}"
    connection.execute(
        insert(api_keys).values(
            id=str(uuid.uuid4()),
            account_id=account,
            label=label,
            hint=secret[:8],
            digest=digest_of(secret),
            created=now,
            revoked=False,
            expires=expires,
        )
    )
    return secret


def rotate_key(connection: Connection, beginning: str, now: float, overlap: float) -> tuple[Key, str]:
    """Make a key that takes the place of another, which stays valid for a while.

    Args:
        connection: within a transaction.
        beginning: see `revoke_key`.
        now: the time, in seconds since the epoch.
        overlap: seconds that the old key stays valid, if it does not expire before.

    Returns:
        The old key, and the new one's secret; it has the same account and label, and does not expire.

    Raises:
        AmbiguousKeyError: if it is not exactly one valid key.
    """
    old = _one_valid(connection, beginning, now)
    ends = now + overlap if old.expires is None else min(old.expires, now + overlap)
    connection.execute(update(api_keys).where(api_keys.c.id == old.id).values(expires=ends))
    account = find_account(connection, old.account)
    assert account is not None
    return old, create_key(connection, account, old.label, now)


def digest_of(secret: str) -> bytes:
    """What is kept of a key, and of a token: its SHA-256.

    They have too many random bits to be guessed from a fast hash, and looking a digest up reveals nothing
    about how much of a wrong key was right.
    """
    return hashlib.sha256(secret.encode()).digest()


def digest_named(connection: Connection, beginning: str, now: float) -> bytes:
    """The digest of the key that is named as `revoke_key` has it.

    Raises:
        AmbiguousKeyError: if it is not exactly one valid key.
    """
    found = _one_valid(connection, beginning, now)
    digest: bytes = connection.execute(
        select(api_keys.c.digest).where(api_keys.c.id == found.id)
    ).scalar_one()
    return digest


def newest_digest(connection: Connection, account: AccountId, now: float) -> bytes | None:
    """The digest of the account's newest key that is valid; None if it has none."""
    query = select(api_keys.c.digest).where(
        api_keys.c.account_id == account, api_keys.c.revoked.is_(False), _unexpired(now)
    )
    found: bytes | None = connection.scalar(query.order_by(api_keys.c.created.desc()).limit(1))
    return found


def revoked_keys(connection: Connection, keys: Collection[KeyId], now: float = 0) -> set[KeyId]:
    """Which of these keys are valid no more: revoked, or expired by now."""
    valid: set[KeyId] = set()
    for some in _in_parts(keys):
        found = select(api_keys.c.id).where(
            api_keys.c.id.in_(some), api_keys.c.revoked.is_(False), _unexpired(now)
        )
        valid.update(map(KeyId, connection.scalars(found)))
    return set(keys) - valid


def has_keys(connection: Connection) -> bool:
    """Whether any key was ever made."""
    return connection.scalar(select(api_keys.c.id).limit(1)) is not None


def list_keys(connection: Connection, account: AccountId | None = None) -> list[Key]:
    """The keys of an account, or of all, oldest first."""
    query = (
        select(
            api_keys.c.id,
            accounts.c.name,
            api_keys.c.label,
            api_keys.c.hint,
            api_keys.c.created,
            api_keys.c.last_used,
            api_keys.c.revoked,
            api_keys.c.expires,
        )
        .join(accounts)
        .order_by(api_keys.c.created)
    )
    if account is not None:
        query = query.where(api_keys.c.account_id == account)
    return [Key(*row) for row in connection.execute(query)]


def revoke_key(connection: Connection, beginning: str) -> Key:
    """Revoke a key, named by itself, by its hint, or by the beginning of its id.

    Raises:
        AmbiguousKeyError: if that is not exactly one valid key.
    """
    found = _one_valid(connection, beginning, 0)  # one that has expired may be revoked, too
    connection.execute(update(api_keys).where(api_keys.c.id == found.id).values(revoked=True))
    return found


def _one_valid(connection: Connection, beginning: str, now: float) -> Key:
    named = beginning.rstrip("…")
    whole = connection.scalar(select(api_keys.c.id).where(api_keys.c.digest == digest_of(named)))
    found = [
        key
        for key in list_keys(connection)
        if key.is_valid(now)
        and (key.id == whole or (whole is None and named and (key.hint == named or key.id.startswith(named))))
    ]
    if len(found) != 1:
        raise AmbiguousKeyError(
            f"{len(found)} keys match; give more of the id" if found else "no valid key matches"
        )
    return found[0]


def _unexpired(now: float) -> ColumnElement[bool]:
    return or_(api_keys.c.expires.is_(None), api_keys.c.expires > now)


def _in_parts(keys: Collection[KeyId]) -> Iterator[list[KeyId]]:
    """As many at once as a statement may name on every database."""
    rest = iter(keys)
    while part := list(islice(rest, _NAMED_AT_ONCE)):
        yield part
