"""`tilewire keys`, and how commands find the database."""

import sqlite3
import time
from pathlib import Path

import pytest

from server.state import ledger
from server.state.accounts import account_named, revoked_keys
from server.state.database import Database
from server.state.logins import authenticate
from tests.server.conftest import Tilewire
from tests.server.support.process import serving


def test_keys_are_created_listed_and_revoked(tilewire: Tilewire, tmp_path: Path) -> None:
    created = tilewire("keys", "create", "--label", "[laptop] of ada", "--account", "ada", "--credit", "2.50")
    key = created.stdout.strip()
    assert created.stdout == f"{key}\n", "nothing else, so that scripts can take it"
    shown = tilewire("keys", "list").stdout
    for told in (key[:8], "ada", "[laptop] of ada", "never"):
        assert told in shown
    assert key not in shown
    assert "revoked" not in shown
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    account = database.run_sync(account_named, "ada", 0.0)
    assert database.run_sync(authenticate, key, 0.0).account == account
    assert database.run_sync(ledger.statement, account).available == 2_500_000_000
    identity = shown.splitlines()[1].split()[0]
    revoked = tilewire("keys", "revoke", identity)
    assert (revoked.exit_code, revoked.stdout) == (0, f"revoked {key[:8]}… of ada\n")
    assert database.run_sync(authenticate, key, 0.0) is None
    assert "revoked" in tilewire("keys", "list").stdout
    again = tilewire("keys", "revoke", identity)
    assert (again.exit_code, again.stderr) == (2, "no valid key matches\n")
    database.close()


def test_a_key_that_is_revoked_is_not_repeated_in_errors(tilewire: Tilewire) -> None:
    tilewire("keys", "create")
    result = tilewire("keys", "revoke", "tw_a-secret-that-is-not-a-key")
    assert result.exit_code == 2
    assert "secret" not in result.output


@pytest.mark.parametrize("credit", ["much", "-1", "nan", "inf", "0.00000000001", "1e400000"])
def test_a_wrong_credit_makes_no_key(tilewire: Tilewire, tmp_path: Path, credit: str) -> None:
    result = tilewire("keys", "create", f"--credit={credit}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert credit in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_new_account_is_given_a_limit_or_none_by_name(tilewire: Tilewire) -> None:
    asked = tilewire("keys", "create", "--account", "ada")
    assert (asked.exit_code, asked.stdout) == (2, "")
    assert "--credit unlimited" in asked.stderr
    for name, credit, told in (("ada", "0", "0"), ("bob", "unlimited", "no limit"), ("eve", "2.5", "2.5")):
        assert tilewire("keys", "create", "--account", name, "--credit", credit).exit_code == 0
        assert f"{name}      {told} " in tilewire("accounts", "list").stdout
    assert tilewire("keys", "create", "--account", "ada").exit_code == 0, "it has a limit"
    assert tilewire("keys", "create", "--account", "ada", "--credit", "unlimited").exit_code == 2


def test_a_key_expires(tilewire: Tilewire, tmp_path: Path) -> None:
    made = [
        tilewire("keys", "create", "--expires", when).stdout.strip() for when in ("2h", "90d", "2099-12-31")
    ]
    assert "2100-01-01" in tilewire("keys", "list").stdout, "the last day counts in full"
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    for hours, valid in ((1, 3), (3, 2), (24 * 91, 1)):
        then = time.time() + 3600 * hours
        assert sum(database.run_sync(authenticate, key, then) is not None for key in made) == valid
    logins = {database.run_sync(authenticate, key, time.time()).key for key in made}
    assert len(database.run_sync(revoked_keys, logins, time.time() + 3 * 3600)) == 1
    database.close()
    for wrong in ("soon", "0d", "2020-01-01", "-1d"):
        result = tilewire("keys", "create", f"--expires={wrong}")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--expires" in result.stderr


def test_a_key_is_rotated_with_an_overlap(tilewire: Tilewire, tmp_path: Path) -> None:
    old = tilewire("keys", "create", "--label", "laptop", "--account", "ada", "--credit", "1").stdout.strip()
    rotated = tilewire("keys", "rotate", old, "--overlap", "12h")
    new = rotated.stdout.strip()
    assert rotated.stderr == f"{old[:8]}… of ada stays valid for 12h\n"
    assert tilewire("keys", "list").stdout.count("laptop") == 2
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    for hours, valid in ((11, [True, True]), (13, [False, True])):
        then = time.time() + 3600 * hours
        assert [database.run_sync(authenticate, key, then) is not None for key in (old, new)] == valid
    database.close()
    assert tilewire("keys", "rotate", "nothing").exit_code == 2
    assert tilewire("keys", "rotate", new, "--overlap", "long").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        ("keys", "list"),
        ("keys", "revoke", "x"),
        ("accounts", "list"),
        ("accounts", "audit"),
        ("accounts", "credit", "ada", "1"),
        ("accounts", "webhook-secret", "ada"),
    ],
)
def test_no_command_makes_an_empty_database(
    tilewire: Tilewire, tmp_path: Path, command: tuple[str, ...]
) -> None:
    for env in ({}, {"TILEWIRE_DATABASE_URL": f"sqlite:///{tmp_path / 'data' / 'other.db'}"}):
        result = tilewire(*command, **env)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"there is no database of Tilewire at {tmp_path / 'data'}" in result.stderr
        assert "environment" in result.stderr
        assert not (tmp_path / "data").exists()


def test_keys_are_not_made_where_nobody_said_that_a_server_is(tilewire: Tilewire, tmp_path: Path) -> None:
    result = tilewire("keys", "create", TILEWIRE_DATA="", XDG_DATA_HOME=str(tmp_path / "home"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert str(tmp_path / "home" / "tilewire") in result.stderr
    assert not (tmp_path / "home").exists()


def test_the_data_of_the_server_that_runs_is_found(
    tilewire: Tilewire, tmp_path: Path, model_directory: Path
) -> None:
    state = str(tmp_path / "state")
    with serving(tmp_path / "own", model_directory, XDG_STATE_HOME=state) as server:
        created = tilewire("keys", "create", TILEWIRE_DATA="", XDG_STATE_HOME=state)
        assert created.exit_code == 0
        assert created.stderr == f"using the data of the server at {server.url}: {tmp_path / 'own'}\n"
        assert created.stdout[:8] in tilewire("keys", "list", TILEWIRE_DATA=str(tmp_path / "own")).stdout
        assert tilewire("top", "--once", XDG_STATE_HOME=state).stdout.startswith(server.url)
        server.process.kill()
        server.process.wait()
        gone = tilewire("keys", "list", TILEWIRE_DATA="", XDG_STATE_HOME=state, XDG_DATA_HOME=state)
        assert "no server of this user runs" in gone.stderr


def test_what_is_wrong_with_a_database_is_said_in_words(tilewire: Tilewire, tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"no database at all" * 100)
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE accounts (name TEXT)")
    for url, told in (
        (
            f"sqlite:///{tmp_path / 'junk.db'}",
            f"the database {tmp_path / 'junk.db'}: it is no SQLite database\n",
        ),
        (f"sqlite:///{tmp_path / 'foreign.db'}", "there is no database of Tilewire at"),
        ("mysql://me:secret@db/x", "database_url: mysql is not offered; it must be sqlite or postgresql\n"),
        ("postgresql://me:secret@127.0.0.1:9/x", "the database postgresql://me:***@127.0.0.1:9/x: "),
    ):
        result = tilewire("keys", "list", TILEWIRE_DATABASE_URL=url)
        assert result.exit_code != 0
        assert result.stderr.startswith(told)
        assert len(result.stderr.splitlines()) == 1
        assert "secret" not in result.stderr
