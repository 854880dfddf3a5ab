"""Who comes with a key, or with a token that was made with one."""

from typing import Final, NamedTuple
from uuid import UUID, uuid5

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from server.protocol.errors import expired_token, invalid
from server.state.accounts import DEFAULT_ACCOUNT, AccountId, KeyId, account_named, digest_of
from server.state.grants import Grant, Terms
from server.state.prepared import Prepared
from server.state.tables import api_keys, tokens

__all__ = ["Login", "Opened", "authenticate", "open_by_digest"]


class Login(NamedTuple):
    """What a key or a token opens.

    Attributes:
        key: None for the one of the settings, which is not in the database; of a token the key it was made
            with.
        grant: what a token allows; None for a key, which may do everything.
    """

    account: AccountId
    key: KeyId | None
    grant: Grant | None = None

    @property
    def scope(self) -> str | None:
        """What the tasks and images that it sees are marked with; None if it sees all of the account."""
        return None if self.grant is None else self.grant.scope

    @property
    def owner(self) -> str:
        """Whose what it begins is, to others of the account: that of the token, or of all its keys."""
        return self.scope or self.account

    def sees(self, scope: str | None) -> bool:
        """Whether it may see what is marked with `scope`."""
        return self.grant is None or self.grant.scope == scope

    def session(self, name: str) -> str:
        """The session that it knows by this name: each scope has names of its own."""
        return name if self.grant is None else str(uuid5(UUID(self.grant.scope), name))


class Opened(NamedTuple):
    """What a key opens, and until when."""

    login: Login
    expires: float | None


class _Token(NamedTuple):
    """The row of a token."""

    id: str
    account_id: str
    key_digest: bytes
    scope: str
    terms: bytes
    used: bool
    expires: float


class _Key(NamedTuple):
    """The row of a key."""

    id: str
    account_id: str
    last_used: float | None
    revoked: bool
    expires: float | None


_USE_NOTED_EVERY: Final = 60.0
"""Seconds: a client that polls would otherwise have the database write each time."""

_FIND_TOKEN: Final = Prepared(
    select(*(tokens.c[name] for name in _Token._fields))
    .where(tokens.c.digest == bindparam("known_by"))
    .with_for_update()
)
_FIND_KEY: Final = Prepared(
    select(*(api_keys.c[name] for name in _Key._fields)).where(api_keys.c.digest == bindparam("known_by"))
)


def authenticate(
    connection: Connection,
    secret: str,
    now: float,
    *,
    configured: str | None = None,
    previous: str | None = None,
) -> Login | None:
    """What a key or token opens; None for one that is wrong or revoked, and for a key that has expired.

    Args:
        connection: in a transaction.
        secret: the key, or the token.
        now: the time in seconds since the epoch.
        configured: the key of the settings, which opens the default account. As it is not kept, it is valid
            for as long as it is configured; but not once it was revoked as one that was made here.
        previous: a token, perhaps expired, whose place this one takes: it sees what that one began.

    Raises:
        AuthenticationError: for a token that has expired.
        ParameterError: if `previous` is no token whose place this one can take.
    """
    digest = digest_of(secret)
    row = _FIND_TOKEN.first(connection, {"known_by": digest})
    if row is not None:
        return _by_token(connection, _Token(*row), now, configured, previous)
    opened = open_by_digest(connection, digest, now, configured=configured)
    if opened is not None and previous is not None:
        raise invalid(
            "previousApiKey", "previousApiKey is for tokens: apiKey is a key, which sees everything"
        )
    return None if opened is None else opened.login


def open_by_digest(
    connection: Connection, digest: bytes, now: float, *, configured: str | None = None
) -> Opened | None:
    """What the key of this digest opens; see `authenticate`."""
    row = _FIND_KEY.first(connection, {"known_by": digest})
    if row is None:
        if configured is None or digest != digest_of(configured):
            return None
        return Opened(Login(account_named(connection, DEFAULT_ACCOUNT, now), None), None)
    key = _Key(*row)
    if key.revoked or (key.expires is not None and key.expires <= now):
        return None
    if key.last_used is None or not 0 <= now - key.last_used < _USE_NOTED_EVERY:
        connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(last_used=now))
    return Opened(Login(AccountId(key.account_id), KeyId(key.id)), key.expires)


def _by_token(
    connection: Connection, row: _Token, now: float, configured: str | None, previous: str | None
) -> Login | None:
    opened = open_by_digest(connection, row.key_digest, now, configured=configured)
    if opened is None:
        return None
    if row.expires <= now:
        raise expired_token()
    scope = row.scope if previous is None else _scope_of(connection, row, previous)
    if not row.used or scope != row.scope:
        connection.execute(update(tokens).where(tokens.c.id == row.id).values(used=True, scope=scope))
    terms = msgspec.json.decode(row.terms, type=Terms)
    grant = Grant(token=row.id, scope=scope, expires=row.expires, terms=terms)
    return Login(opened.login.account, opened.login.key, grant)


def _scope_of(connection: Connection, row: _Token, previous: str) -> str:
    """The scope of the token whose place another takes, as who has both asks."""
    scope: str | None = connection.scalar(
        select(tokens.c.scope).where(
            tokens.c.digest == digest_of(previous), tokens.c.account_id == row.account_id
        )
    )
    if scope is None:
        raise invalid(
            "previousApiKey", "previousApiKey is not a token of this account, or is forgotten by now"
        )
    if row.used and scope != row.scope:
        raise invalid("previousApiKey", "only a token that was not used before can take another's place")
    return scope
