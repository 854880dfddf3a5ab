"""What a task owes for the part of its result that has left the server, and what it was charged in all.

An attempt may be charged for a part and get the rest back; a task that is tried again is charged the rest.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_ENDS = sa.text("source = 'reserved'")
_FAILED_FOR_FREE = sa.text("status = 'failed' AND charged = 0")


def upgrade() -> None:
    """Take this step."""
    for name in ("due", "charged"):
        op.add_column("tasks", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE tasks SET due = price, charged = price WHERE status = 'succeeded' AND price IS NOT NULL"
    )
    op.drop_index("tasks_failed", "tasks")
    op.create_index(
        "tasks_failed",
        "tasks",
        ["finished"],
        sqlite_where=_FAILED_FOR_FREE,
        postgresql_where=_FAILED_FOR_FREE,
    )
    op.drop_index("one_charge_per_task", "ledger")
    op.drop_index("one_end_per_attempt", "ledger")
    op.create_index(
        "one_end_per_attempt",
        "ledger",
        ["attempt", "destination"],
        unique=True,
        sqlite_where=_ENDS,
        postgresql_where=_ENDS,
    )
