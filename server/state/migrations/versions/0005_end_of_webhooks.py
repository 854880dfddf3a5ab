"""When a webhook was delivered or given up, so that what ended long ago can be forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Take this step."""
    op.add_column("webhooks", sa.Column("ended", sa.Float))
    op.execute("""
        UPDATE webhooks SET ended = (
            SELECT finished FROM tasks
            WHERE tasks.account_id = webhooks.account_id AND tasks.task_uuid = webhooks.task_uuid
        ) WHERE status <> 'pending'
    """)
    op.create_index("webhooks_by_end", "webhooks", ["ended"])
    op.drop_index("tasks_by_status", "tasks")
    op.create_index("tasks_by_status", "tasks", ["status", "finished"])
