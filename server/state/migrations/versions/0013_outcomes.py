"""How tasks ended by key, quarter of an hour and time on a device, in place of sums by day."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_SUCCEEDED = """
    INSERT INTO outcomes (
        account_id, quarter, key_id, model, code, bucket,
        tasks, pixels, device, inference, elapsed, charged
    )
    SELECT account_id, day * 96, '', model, '', 0,
        tasks - failed - cancelled, pixels, device, 0, elapsed, charged FROM usage_of_models
"""
_CANCELLED = """
    INSERT INTO outcomes (
        account_id, quarter, key_id, model, code, bucket,
        tasks, pixels, device, inference, elapsed, charged
    )
    SELECT account_id, day * 96, '', model, 'taskCancelled', 0,
        cancelled, 0, 0, 0, 0, 0 FROM usage_of_models WHERE cancelled > 0
"""
_FAILED = """
    INSERT INTO outcomes (
        account_id, quarter, key_id, model, code, bucket,
        tasks, pixels, device, inference, elapsed, charged
    )
    SELECT account_id, day * 96, '', model, code, 0, tasks, 0, 0, 0, 0, 0 FROM errors_of_models
"""


def upgrade() -> None:
    """Take this step. What was counted by day is of its first quarter of an hour."""
    op.create_table(
        "outcomes",
        sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("quarter", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String(36), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("code", sa.String(100), primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("tasks", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("pixels", "device", "inference", "elapsed", "charged")
        ),
    )
    for statement in (_SUCCEEDED, _CANCELLED, _FAILED):
        op.execute(statement)
    op.drop_table("errors_of_models")
    op.drop_table("usage_of_models")
