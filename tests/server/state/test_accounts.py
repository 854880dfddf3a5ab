"""Keys and accounts, on a real database file."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Table, select

from server.state.accounts import (
    DEFAULT_ACCOUNT,
    AccountId,
    AmbiguousKeyError,
    KeyId,
    account_named,
    create_key,
    has_keys,
    list_keys,
    revoke_key,
    revoked_keys,
)
from server.state.audit import audit
from server.state.database import Database
from server.state.logins import Login, authenticate
from server.state.tables import metadata

NOW = 1_000_000.0


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", NOW)


def test_a_key_opens_its_account_and_no_other(database: Database, account: AccountId) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    first = database.run_sync(create_key, account, "laptop", NOW)
    second = database.run_sync(create_key, other, "laptop", NOW)
    assert database.run_sync(authenticate, first, NOW).account == account
    assert database.run_sync(authenticate, second, NOW).account == other


@pytest.mark.parametrize("wrong", ["", "tw_", "nonsense", "tw_" + "A" * 43, "ключ"])
def test_a_wrong_key_opens_nothing(database: Database, account: AccountId, wrong: str) -> None:
    database.run_sync(create_key, account, "laptop", NOW)
    assert database.run_sync(authenticate, wrong, NOW) is None


def test_neither_the_start_nor_more_than_a_key_opens_anything(database: Database, account: AccountId) -> None:
    key = database.run_sync(create_key, account, "laptop", NOW)
    for wrong in (key[:-1], f"{key}x", key.swapcase(), f" {key}"):
        assert database.run_sync(authenticate, wrong, NOW) is None


def test_keys_are_stored_only_as_hashes(database: Database, account: AccountId) -> None:
    key = database.run_sync(create_key, account, "laptop", NOW)
    database.run_sync(authenticate, "from-the-settings-file", NOW, configured="from-the-settings-file")
    stored = repr([database.run_sync(_all_rows, table) for table in metadata.sorted_tables])
    assert "laptop" in stored
    assert key not in stored
    assert key[8:] not in stored
    assert "from-the-settings-file" not in stored


def _all_rows(connection: Connection, table: Table) -> list[Any]:
    return list(connection.execute(select(table)).all())


def test_keys_are_long_and_all_different(database: Database, account: AccountId) -> None:
    made = {database.run_sync(create_key, account, "", NOW) for _ in range(20)}
    assert len(made) == 20
    assert all(len(key) >= 3 + 43 for key in made), "256 bits in base64"


def test_a_list_shows_what_keys_are_for_and_when_they_were_used(
    database: Database, account: AccountId
) -> None:
    first = database.run_sync(create_key, account, "laptop", NOW)
    database.run_sync(create_key, account, "phone", NOW + 1)
    database.run_sync(authenticate, first, NOW + 2)
    laptop, phone = database.run_sync(list_keys, account)
    assert (laptop.label, laptop.account, laptop.created, laptop.last_used) == ("laptop", "ada", NOW, NOW + 2)
    assert first.startswith(laptop.hint)
    assert (phone.label, phone.last_used, phone.revoked) == ("phone", None, False)
    for later, shown in (
        (61, NOW + 2),
        (62, NOW + 62),
    ):  # one that is used all the time is noted once a minute
        database.run_sync(authenticate, first, NOW + later)
        assert database.run_sync(list_keys, account)[0].last_used == shown


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(database: Database, account: AccountId) -> None:
    key = database.run_sync(create_key, account, "lost", NOW)
    kept = database.run_sync(create_key, account, "kept", NOW)
    assert database.run_sync(revoke_key, key).label == "lost"
    assert database.run_sync(authenticate, key, NOW) is None
    assert database.run_sync(authenticate, kept, NOW).account == account
    assert [shown.revoked for shown in database.run_sync(list_keys)] == [True, False]
    assert database.run_sync(has_keys)


def test_a_key_is_named_by_itself_its_hint_or_the_start_of_its_id(
    database: Database, account: AccountId
) -> None:
    for name in ("{secret}", "{shown.hint}", "{shown.hint}…", "{shown.id}", "{shown.id:.12}"):
        secret = database.run_sync(create_key, account, "", NOW)
        shown = database.run_sync(list_keys)[-1]
        database.run_sync(revoke_key, name.format(secret=secret, shown=shown))
        assert database.run_sync(authenticate, secret, NOW) is None


def test_a_wrong_key_with_a_right_beginning_revokes_nothing(database: Database, account: AccountId) -> None:
    key = database.run_sync(create_key, account, "", NOW)
    with pytest.raises(AmbiguousKeyError):
        database.run_sync(revoke_key, f"{key[:20]}{'x' * 20}")
    assert database.run_sync(authenticate, key, NOW).account == account


@pytest.mark.parametrize("name", ["", "…", "nonsense"])
def test_what_names_no_key_revokes_none(database: Database, account: AccountId, name: str) -> None:
    key = database.run_sync(create_key, account, "", NOW)
    with pytest.raises(AmbiguousKeyError, match="no valid key"):
        database.run_sync(revoke_key, name)
    assert database.run_sync(authenticate, key, NOW).account == account


def test_what_names_two_keys_revokes_neither(database: Database, account: AccountId) -> None:
    for _ in range(17):
        database.run_sync(create_key, account, "", NOW)
    starts = Counter(key.id[0] for key in database.run_sync(list_keys))
    ((start, count),) = starts.most_common(1)
    with pytest.raises(AmbiguousKeyError, match=f"{count} keys"):
        database.run_sync(revoke_key, start)
    assert not any(key.revoked for key in database.run_sync(list_keys))


def test_accounts_that_are_made_together_are_made_once(database: Database) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = set(threads.map(lambda _: database.run_sync(account_named, "ada", NOW, balance=5), range(8)))
    assert len(made) == 1
    assert database.run_sync(audit).mistakes == []


def test_an_account_is_made_once(database: Database, account: AccountId) -> None:
    assert database.run_sync(account_named, "ada", NOW, balance=5) == account


def test_a_configured_key_is_valid_only_while_it_is_configured(database: Database) -> None:
    login = database.run_sync(authenticate, "from-the-settings", NOW, configured="from-the-settings")
    assert login == Login(database.run_sync(account_named, DEFAULT_ACCOUNT, NOW), None)
    assert database.run_sync(authenticate, "from-the-settings", NOW) is None
    assert database.run_sync(authenticate, "from-the-settings", NOW, configured="another") is None


def test_a_key_that_was_revoked_is_not_made_valid_by_configuring_it(
    database: Database, account: AccountId
) -> None:
    key = database.run_sync(create_key, account, "", NOW)
    assert database.run_sync(authenticate, key, NOW, configured=key).account == account
    database.run_sync(revoke_key, key)
    assert database.run_sync(authenticate, key, NOW, configured=key) is None


def test_of_many_keys_those_are_found_that_are_valid_no_more(database: Database, account: AccountId) -> None:
    secrets = [database.run_sync(create_key, account, "", NOW) for _ in range(1200)]
    ids = [database.run_sync(authenticate, secret, NOW).key for secret in (secrets[3], secrets[1100])]
    for key in ids:
        database.run_sync(revoke_key, key)
    connected = {KeyId(key.id) for key in database.run_sync(list_keys)} | {KeyId("deleted")}
    assert database.run_sync(revoked_keys, connected) == {*ids, "deleted"}
    assert database.run_sync(revoked_keys, []) == set()
