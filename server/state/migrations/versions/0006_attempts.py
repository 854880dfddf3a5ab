"""Each attempt at a task has an id, and reserves and ends once; what accounts spend is summed as it is spent.

What was reserved is given back: the tasks concerned run again, and reserve it again, after the start.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_RESERVATIONS = sa.text("destination = 'reserved'")
_ENDS = sa.text("source = 'reserved'")
_ACCEPTED = sa.text("status = 'accepted'")
_FAILED = sa.text("status = 'failed'")
_PENDING = sa.text("next_attempt IS NOT NULL")

_LAST_SOURCE = """(
    SELECT source FROM ledger
    WHERE account_id = tasks.account_id AND task_uuid = tasks.task_uuid AND destination = 'reserved'
    ORDER BY id DESC LIMIT 1
)"""

# A task of the first versions may have no reservation in the ledger; its account had no limit then.
_GIVE_BACK = (
    f"""
    UPDATE accounts SET
        balance = balance + coalesce((
            SELECT sum(reserved) FROM tasks
            WHERE account_id = accounts.id AND reserved > 0 AND {_LAST_SOURCE} = 'balance'
        ), 0),
        reserved = 0
    WHERE reserved > 0
    """,  # noqa: S608 - no value comes from outside
    f"""
    INSERT INTO ledger (account_id, task_uuid, amount, source, destination, created)
    SELECT account_id, task_uuid, reserved, 'reserved', coalesce({_LAST_SOURCE}, 'unlimited'), created
    FROM tasks WHERE reserved > 0
    """,  # noqa: S608
)

_PRICE = """
    UPDATE tasks SET price = (
        SELECT amount FROM ledger
        WHERE account_id = tasks.account_id AND task_uuid = tasks.task_uuid AND destination = 'revenue'
    ) WHERE status = 'succeeded'
"""

_USAGE = """
    INSERT INTO usage (account_id, day, charged, charges)
    SELECT account_id, {day}, sum(amount), count(*)
    FROM ledger WHERE destination = 'revenue' GROUP BY 1, 2
"""

_DAY = {
    "sqlite": "CAST(created / 86400 AS INTEGER)",
    "postgresql": "CAST(floor(created / 86400) AS INTEGER)",
}

_TOTALS = """
    UPDATE accounts SET
        charged = coalesce((SELECT sum(charged) FROM usage WHERE account_id = accounts.id), 0),
        charges = coalesce((SELECT sum(charges) FROM usage WHERE account_id = accounts.id), 0)
"""


def upgrade() -> None:
    """Take this step."""
    for statement in _GIVE_BACK:
        op.execute(statement)
    op.add_column("tasks", sa.Column("attempt", sa.String(32)))
    op.add_column("tasks", sa.Column("acceptance", sa.String(32)))
    op.add_column("tasks", sa.Column("price", sa.BigInteger))
    op.execute(_PRICE)
    op.drop_column("tasks", "reserved")
    op.drop_index("tasks_by_status", "tasks")
    _make_index("tasks_accepted", "tasks", ["owner", "attempt", "status"], _ACCEPTED)
    _make_index("tasks_failed", "tasks", ["finished"], _FAILED)
    op.add_column("ledger", sa.Column("attempt", sa.String(32)))
    op.drop_index("ledger_by_account", "ledger")
    op.drop_index("ledger_by_task", "ledger")
    _make_index("one_reservation_per_attempt", "ledger", ["attempt"], _RESERVATIONS, unique=True)
    _make_index("one_end_per_attempt", "ledger", ["attempt"], _ENDS, unique=True)
    _make_usage()
    op.create_index("outbox_by_task", "outbox", ["account_id", "task_uuid"])
    op.create_index("outbox_by_time", "outbox", ["created"])
    _make_index("webhooks_by_host", "webhooks", ["host", "next_attempt"], _PENDING)
    op.drop_index("loose_files_by_time", "loose_files")
    op.create_index("loose_files_by_time", "loose_files", ["since", "name"])
    op.create_index("api_keys_by_account", "api_keys", ["account_id"])


def _make_index(
    name: str, table: str, columns: list[str], where: sa.TextClause, *, unique: bool = False
) -> None:
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _make_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sa.Column("charges", sa.Integer, nullable=False),
    )
    op.execute(_USAGE.format(day=_DAY[op.get_context().dialect.name]))
    for name in ("charged", "charges"):
        op.add_column("accounts", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.execute(_TOTALS)
