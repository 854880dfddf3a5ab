"""In whose shape a task came, so that a service's tasks can be listed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_OF_SERVICES = sa.text("service IS NOT NULL")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("service", sa.String(10)))
    op.create_index(
        "tasks_by_service",
        "tasks",
        ["account_id", "service", "created"],
        sqlite_where=_OF_SERVICES,
        postgresql_where=_OF_SERVICES,
    )
