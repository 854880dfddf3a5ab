"""How many bytes of images each account has in the store."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_SUM = """
    UPDATE accounts SET stored = coalesce((SELECT sum(size) FROM images WHERE account_id = accounts.id), 0)
"""


def upgrade() -> None:
    """Take this step."""
    op.add_column("accounts", sa.Column("stored", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(_SUM)
