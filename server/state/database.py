"""The tables, and the one way to run something in a transaction."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
)

__all__ = ["Database", "accounts", "api_keys", "images", "ledger", "metadata", "outbox", "tasks"]

P = ParamSpec("P")
T = TypeVar("T")

metadata = MetaData()

# Money is kept in whole nanodollars: exact on every database, and sums stay exact.
accounts = Table(
    "accounts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("balance", BigInteger),  # null: without a limit
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("created", Float, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("label", String(200), nullable=False),
    Column("hint", String(20), nullable=False),  # the first characters, to recognise the key by
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("created", Float, nullable=False),
    Column("last_used", Float),
    Column("revoked", Boolean, nullable=False, default=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("task_uuid", String(36), primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("session", String(36)),
    Column("status", String(10), nullable=False),  # accepted, succeeded, failed
    Column("result", LargeBinary),
    Column("error", LargeBinary),
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("finished", Float),
    Index("tasks_by_status", "status"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("task_uuid", String(36)),  # null: a deposit
    Column("amount", BigInteger, nullable=False),  # negative: a charge
    Column("created", Float, nullable=False),
    Index("ledger_by_account", "account_id", "created"),
)

images = Table(
    "images",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("name", String(64), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("expires", Float, nullable=False),
    Index("images_by_expiry", "expires"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("session", String(36), nullable=False),
    Column("task_uuid", String(36)),  # the outcome of this task, or
    Column("frame", LargeBinary),  # this JSON frame as it is
    Column("created", Float, nullable=False),
    Index("outbox_by_session", "account_id", "session", "id"),
)


class Database:
    """Runs functions over a connection, each in one transaction, in threads beside the event loop."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: SQLAlchemy's; a SQLite file's directory must exist. Tables are made where they are missing.
        """
        sqlite = url.startswith("sqlite")
        self._engine = create_engine(url, hide_parameters=True)  # they would be in the log
        if sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
        # SQLite has one writer at a time: with one thread nobody ever waits for its lock.
        self._threads = ThreadPoolExecutor(max_workers=1 if sqlite else 8, thread_name_prefix="database")
        metadata.create_all(self._engine)

    async def run(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of `function(connection, …)`, committed; rolled back if it raises.

        A transaction that has begun is finished even if the caller is cancelled.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.run_sync(function, *args, **kwargs))

    def run_sync(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run`, for callers without an event loop."""
        with self._engine.begin() as connection:
            return function(connection, *args, **kwargs)

    def close(self) -> None:
        """Finish what runs, close all connections."""
        self._threads.shutdown()
        self._engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers beside the writer, commits that survive a crash of the process, foreign keys that hold."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
