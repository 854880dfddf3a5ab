"""Tokens for web pages, and which of an account's images are a token's."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("scope", sa.String(36), nullable=False),
        sa.Column("terms", sa.LargeBinary, nullable=False),
        sa.Column("max_tasks", sa.BigInteger),
        sa.Column("max_cost", sa.BigInteger),
        sa.Column("tasks", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("used", sa.Boolean, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_index("tokens_by_expiry", "tokens", ["expires"])
    op.add_column("images", sa.Column("scope", sa.String(36)))
