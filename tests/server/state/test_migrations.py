"""A database of any earlier version becomes one of this version, with everything that was in it."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from server.state import ledger
from server.state.accounts import AccountId
from server.state.audit import audit
from server.state.database import Database
from server.state.ledger import Statement
from server.state.migrations import NewerDatabaseError, upgrade
from server.state.tables import metadata
from server.state.usage import Amounts, Usage, find_usage
from tests.server.conftest import Tilewire
from tests.server.support.harness import new_uuid
from tests.server.support.process import REPOSITORY

ACCOUNT, OTHER = "account-with-a-limit", "account-without"

FIRST_ROWS: dict[str, list[dict[str, Any]]] = {
    "accounts": [
        {"id": ACCOUNT, "name": "ada", "balance": 700, "reserved": 50, "created": 1.0},
        {"id": OTHER, "name": "bob", "balance": None, "reserved": 0, "created": 2.0},
        {"id": "limited-later", "name": "eve", "balance": 90, "reserved": 0, "created": 2.0},
        {"id": "without-a-deposit", "name": "dan", "balance": 5, "reserved": 0, "created": 2.0},
        {"id": "in-debt", "name": "joe", "balance": -20, "reserved": 0, "created": 2.0},
    ],
    "api_keys": [
        {
            "id": "key",
            "account_id": ACCOUNT,
            "label": "laptop",
            "hint": "tw_abc",
            "digest": bytes(32),
            "created": 3.0,
            "last_used": None,
            "revoked": False,
        }
    ],
    "images": [
        {
            "uuid": new_uuid(),
            "account_id": OTHER,
            "name": "secret.png",
            "size": 10,
            "width": 2,
            "height": 3,
            "expires": 9.0,
        }
    ],
    "outbox": [
        {"account_id": ACCOUNT, "session": "s", "task_uuid": "done", "frame": None, "created": 5.0},
        {"account_id": ACCOUNT, "session": "s", "task_uuid": None, "frame": b"{}", "created": 6.0},
    ],
}


def task(uuid: str, account: str, status: str, reserved: int = 0) -> dict[str, Any]:
    return {
        "account_id": account,
        "task_uuid": uuid,
        "request": b"{}",
        "session": "s",
        "status": status,
        "reserved": reserved,
        "created": 4.0,
    }


FIRST_ROWS["tasks"] = [
    task("done", ACCOUNT, "succeeded"),
    task("waiting", ACCOUNT, "accepted", 50),
    task("done", OTHER, "succeeded"),
    task("before", "limited-later", "succeeded"),
    task("after", "limited-later", "succeeded"),
    task("dear", "in-debt", "succeeded"),
]
FIRST_ROWS["ledger"] = [
    {"account_id": ACCOUNT, "task_uuid": None, "amount": 1_000, "created": 1.5},
    {"account_id": ACCOUNT, "task_uuid": "done", "amount": -300, "created": 4.5},
    {"account_id": OTHER, "task_uuid": "done", "amount": -77, "created": 4.6},
    {"account_id": "limited-later", "task_uuid": "before", "amount": -30, "created": 5.0},
    {"account_id": "limited-later", "task_uuid": None, "amount": 100, "created": 6.0},
    {"account_id": "limited-later", "task_uuid": "after", "amount": -10, "created": 7.0},
    {"account_id": "in-debt", "task_uuid": None, "amount": 10, "created": 6.0},
    {"account_id": "in-debt", "task_uuid": "dear", "amount": -30, "created": 7.0},
]


def insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), row)  # noqa: S608


def fill(engine: Engine, revision: str, *, recorded: bool) -> None:
    """Make tables of a revision, with rows in them."""
    with engine.begin() as connection:
        upgrade(connection, revision)
        for table in ("accounts", "api_keys", "images", "outbox", "tasks", "ledger"):
            for row in FIRST_ROWS[table]:
                insert(connection, table, row)
        if not recorded:
            connection.execute(text("DROP TABLE alembic_version"))


def differences(url: str) -> list[Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = list(compare_metadata(context, metadata))
    engine.dispose()
    return found


def test_the_steps_make_the_tables_that_the_server_uses(empty_database: str) -> None:
    Database(empty_database).close()
    assert differences(empty_database) == []


def test_a_difference_between_the_steps_and_the_tables_would_be_seen(empty_database: str) -> None:
    Database(empty_database).close()
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX tasks_accepted"))
        connection.execute(text("ALTER TABLE accounts ADD COLUMN surplus INTEGER"))
    engine.dispose()
    assert len(differences(empty_database)) == 2


@pytest.mark.parametrize("recorded", [False, True])
def test_a_database_of_the_first_version_is_kept_with_everything_in_it(
    empty_database: str, recorded: bool
) -> None:
    engine = create_engine(empty_database)
    fill(engine, "0001", recorded=recorded)
    Database(empty_database).close()
    assert differences(empty_database) == []
    with engine.connect() as connection:
        for table in ("api_keys", "images", "outbox", "tasks"):
            for row in FIRST_ROWS[table]:
                kept = {
                    name: value for name, value in row.items() if value is not None and name != "reserved"
                }
                where = " AND ".join(f"{name} = :{name}" for name in kept)
                query = text(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608
                assert connection.scalar(query, kept) == 1, (table, row)
    engine.dispose()


def test_the_entries_of_the_first_version_become_movements_that_balance(empty_database: str) -> None:
    engine = create_engine(empty_database)
    fill(engine, "0001", recorded=False)
    engine.dispose()
    database = Database(empty_database)
    assert database.snapshot(audit).mistakes == []
    statements = {
        "ada": Statement("ada", 700),  # what was reserved is given back until its task runs again
        "bob": Statement("bob", None),
        "eve": Statement("eve", 90),
        "dan": Statement("dan", 5),
        "joe": Statement("joe", 0),
    }
    charged = {"ada": (300, 1), "bob": (77, 1), "eve": (40, 2), "dan": (0, 0), "joe": (30, 1)}
    for row in FIRST_ROWS["accounts"]:
        account, name = AccountId(row["id"]), row["name"]
        assert database.run_sync(ledger.statement, account) == statements[name]
        assert database.run_sync(ledger.spent, account) == charged[name]
    database.close()


def test_what_was_used_by_day_becomes_how_tasks_ended(empty_database: str) -> None:
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        upgrade(connection, "0012")
        row = FIRST_ROWS["accounts"][0] | {"charged": 0, "charges": 0}
        insert(connection, "accounts", row)
        day = {"account_id": ACCOUNT, "day": 20_000, "model": "m"}
        sums = {"pixels": 100, "device": 7, "elapsed": 9, "charged": 40}
        insert(connection, "usage_of_models", day | {"tasks": 6, "failed": 2, "cancelled": 1} | sums)
        insert(connection, "errors_of_models", day | {"code": "internalServerError", "tasks": 2})
    engine.dispose()
    database = Database(empty_database)
    (used, owed) = database.snapshot(find_usage, 20_000, 20_000)
    assert used == Usage("ada", "m", None, Amounts(6, 2, 1, **sums, errors={"internalServerError": 2}))
    assert owed.amounts == Amounts(charged=-40), "the ledger of this test has none of it"
    database.close()


def test_a_database_that_is_up_to_date_is_left_alone(empty_database: str) -> None:
    Database(empty_database).close()
    engine = create_engine(empty_database)
    before = set(inspect(engine).get_table_names())
    Database(empty_database).close()
    assert set(inspect(engine).get_table_names()) == before
    engine.dispose()


def test_servers_that_start_together_on_an_empty_database_all_start(empty_database: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        for database in threads.map(Database, [empty_database] * 6):
            database.close()
    assert differences(empty_database) == []


def test_a_database_of_a_newer_version_is_refused_and_untouched(empty_database: str) -> None:
    Database(empty_database).close()
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerDatabaseError, match=r"newer version of Tilewire: .* revision 9999"):
        Database(empty_database)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_commands_refuse_a_database_of_a_newer_version_in_one_sentence(
    tilewire: Tilewire, empty_database: str
) -> None:
    Database(empty_database).close()
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for command in (("keys", "list"), ("serve", "--port", "0")):
        result = tilewire(*command, TILEWIRE_DATABASE_URL=empty_database, TILEWIRE_MODELS="")
        assert result.exit_code == 1
        assert "newer version of Tilewire" in " ".join(result.stderr.split())


def test_migrating_says_nothing_and_leaves_logging_as_it_was(
    empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    Database(empty_database).close()
    assert capfd.readouterr() == ("", "")
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)


def test_a_start_on_a_database_that_is_up_to_date_does_not_import_alembic(empty_database: str) -> None:
    Database(empty_database).close()
    program = (
        "import sys; from server.state.database import Database; "
        "Database(sys.argv[1]).close(); print('alembic' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, empty_database],
        check=True,
        capture_output=True,
        encoding="utf-8",
        cwd=REPOSITORY,
    )
    assert told.stdout == "False\n"
