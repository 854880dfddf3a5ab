"""Files of the image store that no image names are known, so that a crash leaves none behind."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Take this step."""
    op.create_table(
        "loose_files",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("since", sa.Float, nullable=False),
        sa.Index("loose_files_by_time", "since"),
    )
