"""Webhooks wait in the database, and are signed with a secret of the account."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Take this step."""
    for column in (
        sa.Column("webhook_secret", sa.String(100)),
        sa.Column("old_webhook_secret", sa.String(100)),
        sa.Column("old_webhook_secret_until", sa.Float),
    ):
        op.add_column("accounts", column)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("task_uuid", sa.String(36), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("base_url", sa.Text, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt", sa.Float),
        sa.Column("last_error", sa.Text),
        sa.Index("webhooks_by_task", "account_id", "task_uuid", unique=True),
        sa.Index("webhooks_by_time", "next_attempt"),
    )
