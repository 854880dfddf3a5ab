"""A ledger of movements between books, that is only added to; and which server runs a task.

What was reserved is given back: the tasks concerned run again, and reserve it again, after the start.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_CHARGES = sa.text("destination = 'revenue'")

# An account has a limit from its first deposit on; what it used before was not taken from its balance.
_CARRY_OVER = """
    INSERT INTO ledger (account_id, task_uuid, amount, source, destination, created)
    SELECT account_id, task_uuid, amount, source, destination, created FROM (
        SELECT id, 1 AS step, account_id, task_uuid, amount,
            'issued' AS source, 'balance' AS destination, created
        FROM old_ledger WHERE task_uuid IS NULL AND amount > 0
        UNION ALL
        SELECT old.id, 1, old.account_id, old.task_uuid, -old.amount,
            CASE WHEN accounts.balance IS NULL OR old.id < first.id THEN 'unlimited' ELSE 'balance' END,
            'reserved', old.created
        FROM old_ledger AS old
        JOIN accounts ON accounts.id = old.account_id
        LEFT JOIN (
            SELECT account_id, min(id) AS id FROM old_ledger WHERE task_uuid IS NULL GROUP BY account_id
        ) AS first ON first.account_id = old.account_id
        WHERE old.task_uuid IS NOT NULL AND old.amount < 0
        UNION ALL
        SELECT id, 2, account_id, task_uuid, -amount, 'reserved', 'revenue', created
        FROM old_ledger WHERE task_uuid IS NOT NULL
    ) AS movements
    ORDER BY id, step
"""

# What a balance had without a deposit, or was short of.
_SETTLE = """
    INSERT INTO ledger (account_id, amount, source, destination, created)
    SELECT id, abs(difference),
        CASE WHEN difference > 0 THEN 'issued' ELSE 'balance' END,
        CASE WHEN difference > 0 THEN 'balance' ELSE 'issued' END,
        created
    FROM (
        SELECT accounts.id, accounts.created, accounts.balance - coalesce((
            SELECT sum(CASE WHEN destination = 'balance' THEN amount ELSE -amount END)
            FROM ledger
            WHERE account_id = accounts.id AND (source = 'balance' OR destination = 'balance')
        ), 0) AS difference
        FROM accounts
        WHERE balance IS NOT NULL
    ) AS balances
    WHERE difference <> 0
"""


def upgrade() -> None:
    """Take this step."""
    op.add_column("tasks", sa.Column("owner", sa.String(36)))
    op.execute("UPDATE tasks SET reserved = 0 WHERE reserved <> 0")
    op.execute("UPDATE accounts SET reserved = 0 WHERE reserved <> 0")
    op.execute("UPDATE accounts SET balance = 0 WHERE balance < 0")
    with op.batch_alter_table("accounts", copy_from=_accounts()) as accounts:
        accounts.create_check_constraint("balance_not_negative", "balance >= 0")
        accounts.create_check_constraint("reserved_not_negative", "reserved >= 0")
    op.execute("CREATE TABLE old_ledger AS SELECT * FROM ledger")
    op.drop_table("ledger")
    _make_ledger()
    op.execute(_CARRY_OVER)
    op.execute(_SETTLE)
    op.drop_table("old_ledger")
    for statement in _TRIGGERS[op.get_context().dialect.name]:
        op.execute(statement)


def _accounts() -> sa.Table:
    """The table as it is: SQLite cannot add a constraint to one, and copies it."""
    return sa.Table(
        "accounts",
        sa.MetaData(),
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("balance", sa.BigInteger),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )


def _make_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("account_id", sa.String(36), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("task_uuid", sa.String(36)),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("source", sa.String(10), nullable=False),
        sa.Column("destination", sa.String(10), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.CheckConstraint("amount > 0 OR (amount = 0 AND destination = 'revenue')", name="amount_moved"),
        sa.CheckConstraint("source <> destination", name="books_differ"),
        sa.Index("ledger_by_account", "account_id", "created"),
        sa.Index("ledger_by_task", "account_id", "task_uuid"),
        sa.Index(
            "one_charge_per_task",
            "account_id",
            "task_uuid",
            unique=True,
            sqlite_where=_CHARGES,
            postgresql_where=_CHARGES,
        ),
    )


_TRIGGERS = {
    "sqlite": [
        f"""
        CREATE TRIGGER ledger_no_{action} BEFORE {action} ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END
        """
        for action in ("update", "delete")
    ],
    "postgresql": [
        """
        CREATE FUNCTION refuse_to_change_the_ledger() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$
        """,
        """
        CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_ledger()
        """,
    ],
}
