"""What each account used of each model on each day, and with which errors its tasks failed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def _of_day() -> list[sa.Column[object]]:
    return [
        sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model", sa.String(200), primary_key=True),
    ]


def upgrade() -> None:
    counts = (sa.Column(name, sa.Integer, nullable=False) for name in ("tasks", "failed", "cancelled"))
    sums = (
        sa.Column(name, sa.BigInteger, nullable=False) for name in ("pixels", "device", "elapsed", "charged")
    )
    op.create_table("usage_of_models", *_of_day(), *counts, *sums)
    code = sa.Column("code", sa.String(100), primary_key=True)
    op.create_table("errors_of_models", *_of_day(), code, sa.Column("tasks", sa.Integer, nullable=False))
