"""The tables of the database. The migrations make them: see `server.state.migrations`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "accounts",
    "api_keys",
    "failed_for_free",
    "images",
    "is_pending",
    "ledger",
    "loose_files",
    "metadata",
    "of_services",
    "outbox",
    "outcomes",
    "tasks",
    "tokens",
    "unfinished",
    "usage",
    "webhooks",
]

metadata = MetaData()

# Money is kept in whole nanodollars: exact on every database, and sums stay exact.
accounts = Table(
    "accounts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("balance", BigInteger),  # what can be spent; null: without a limit
    Column("reserved", BigInteger, nullable=False, default=0),  # set aside for running tasks
    Column("charged", BigInteger, nullable=False, default=0),  # in all
    Column("charges", BigInteger, nullable=False, default=0),  # how many
    Column("stored", BigInteger, nullable=False, default=0),  # bytes of its images
    Column("created", Float, nullable=False),
    Column("webhook_secret", String(100)),  # null: none was needed yet
    Column("old_webhook_secret", String(100)),  # signs beside the new one
    Column("old_webhook_secret_until", Float),
    CheckConstraint("balance >= 0", name="balance_not_negative"),
    CheckConstraint("reserved >= 0", name="reserved_not_negative"),
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
    Column("expires", Float),  # null: never
    Index("api_keys_by_account", "account_id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_digest", LargeBinary(32), nullable=False),  # of the key it was made with: it ends with that
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("scope", String(36), nullable=False),  # what its tasks, images and sessions are marked with
    Column("terms", LargeBinary, nullable=False),
    Column("max_tasks", BigInteger),
    Column("max_cost", BigInteger),
    Column("tasks", BigInteger, nullable=False),  # that it has begun
    Column("cost", BigInteger, nullable=False),  # of those that did not fail
    Column("used", Boolean, nullable=False),
    Column("expires", Float, nullable=False),
    Index("tokens_by_expiry", "expires"),
)

# Conditions that are spelt out, without a parameter, so that the partial indexes serve them.
unfinished = text("status = 'accepted'")
of_services = text("service IS NOT NULL")
failed_for_free = text("status = 'failed' AND charged = 0")
is_pending = text("next_attempt IS NOT NULL")

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
    Column("price", BigInteger),  # set aside while it runs, but for what is charged; null: not yet known
    Column("due", BigInteger, nullable=False, default=0),  # of the price: for what has left the server
    Column("charged", BigInteger, nullable=False, default=0),  # in all, by the attempts that have ended
    Column("owner", String(36)),  # the server that runs it
    Column("service", String(10)),  # in whose shape it came; null: in Runware's
    Column("attempt", String(32)),  # changes each time that it begins anew
    Column("acceptance", String(32)),  # it was accepted as this attempt; null once sent again or asked for
    Column("created", Float, nullable=False),
    Column("finished", Float),
    # With the status, so that the index alone says which attempts a server has.
    Index(
        "tasks_accepted", "owner", "attempt", "status", sqlite_where=unfinished, postgresql_where=unfinished
    ),
    Index(
        "tasks_by_service",
        "account_id",
        "service",
        "created",
        sqlite_where=of_services,
        postgresql_where=of_services,
    ),
    Index("tasks_failed", "finished", sqlite_where=failed_for_free, postgresql_where=failed_for_free),
)

_reservations = text("destination = 'reserved'")
_ends = text("source = 'reserved'")

# Append-only: triggers, which the migrations make, refuse to change or delete rows.
ledger = Table(
    "ledger",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("task_uuid", String(36)),  # null: a deposit
    Column("attempt", String(32)),  # of the task
    Column("amount", BigInteger, nullable=False),
    Column("source", String(10), nullable=False),  # a Book
    Column("destination", String(10), nullable=False),
    Column("created", Float, nullable=False),
    CheckConstraint("amount > 0 OR (amount = 0 AND destination = 'revenue')", name="amount_moved"),
    CheckConstraint("source <> destination", name="books_differ"),
    Index(
        "one_reservation_per_attempt",
        "attempt",
        unique=True,
        sqlite_where=_reservations,
        postgresql_where=_reservations,
    ),
    # What it owes is charged, the rest is released.
    Index(
        "one_end_per_attempt",
        "attempt",
        "destination",
        unique=True,
        sqlite_where=_ends,
        postgresql_where=_ends,
    ),
)

# What each account was charged on each day (of UTC, counted from 1970): the ledger's sums, kept as it grows.
usage = Table(
    "usage",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("charged", BigInteger, nullable=False),
    Column("charges", Integer, nullable=False),
)

# How the tasks of each account ended, by key, model and quarter of an hour: statistics, which a crash may cut
# by some seconds. At most a row for each task.
outcomes = Table(
    "outcomes",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("quarter", Integer, primary_key=True, autoincrement=False),  # hours of UTC * 4, from 1970
    Column("key_id", String(36), primary_key=True),  # empty: that of the settings, or not known
    Column("model", String(200), primary_key=True),
    Column("code", String(100), primary_key=True),  # of the error; empty: they succeeded
    Column("bucket", Integer, primary_key=True, autoincrement=False),  # of the time on a device: see `usage`
    Column("tasks", Integer, nullable=False),
    Column("pixels", BigInteger, nullable=False),  # of the results
    Column("device", BigInteger, nullable=False),  # milliseconds that devices worked
    Column("inference", BigInteger, nullable=False),  # milliseconds that tasks spent on devices
    Column("elapsed", BigInteger, nullable=False),  # milliseconds from acceptance to outcome
    Column("charged", BigInteger, nullable=False),
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
    Column("scope", String(36)),  # of the token that it belongs to; null: none
    Index("images_by_expiry", "expires"),
)

loose_files = Table(
    "loose_files",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("since", Float, nullable=False),  # 0: it is to be deleted
    Index("loose_files_by_time", "since", "name"),
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
    Index("outbox_by_task", "account_id", "task_uuid"),
    Index("outbox_by_time", "created"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(36), primary_key=True),  # the receiver sees it: the same in all attempts
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("task_uuid", String(36), nullable=False),
    Column("url", Text, nullable=False),
    Column("host", String(255), nullable=False),
    Column("base_url", Text, nullable=False),
    Column("status", String(10), nullable=False),  # pending, delivered, failed
    Column("attempts", Integer, nullable=False),
    Column("next_attempt", Float),  # null: there will be none
    Column("last_error", Text),
    Column("ended", Float),  # null: it is pending
    Index("webhooks_by_task", "account_id", "task_uuid", unique=True),
    Index("webhooks_by_time", "next_attempt"),
    Index("webhooks_by_host", "host", "next_attempt", sqlite_where=is_pending, postgresql_where=is_pending),
    Index("webhooks_by_end", "ended"),
)
