"""Tasks and the outbox, on a real database file."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from server.protocol.errors import ErrorItem
from server.state import ledger, outbox, tasks
from server.state.accounts import AccountId, account_named
from server.state.audit import audit
from server.state.claims import ServerLock
from server.state.database import Database
from server.state.records import Status, StoredResult
from server.state.tasks import LostTaskError
from tests.server.support.harness import new_uuid
from tests.server.support.postgresql import PostgreSQL

NOW = 1_000_000.0
SESSION = "a-session"
RESULT = StoredResult(image_uuid="image", image_name="name.png", input_image_uuid="input")
FAILURE = ErrorItem(code="downloadFailed", message="there is nothing at this address")


class UnexpectedError(Exception):
    pass


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", NOW, balance=1_000)


def accept(
    database: Database, account: AccountId, task: str, request: bytes = b"{}", session: str | None = SESSION
) -> tasks.TaskRecord | None:
    return database.run_sync(tasks.accept, account, task, request, session, NOW)


def waiting(database: Database, account: AccountId, session: str = SESSION) -> list[str | None]:
    return [entry.task_uuid for entry in database.run_sync(outbox.undelivered, account, session)]


def test_a_new_task_is_recorded_as_accepted(database: Database, account: AccountId) -> None:
    task = new_uuid()
    assert accept(database, account, task, b'{"a":1}') is None
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert (record.status, record.encoded_request, record.session) == (Status.ACCEPTED, b'{"a":1}', SESSION)
    assert (record.result, record.error) == (None, None)


def test_a_uuid_that_was_used_gives_the_first_record(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task, b"first")
    for request in (b"first", b"second"):
        previous = accept(database, account, task, request, "another-session")
        assert previous is not None
        assert (previous.encoded_request, previous.session) == (b"first", SESSION)
    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    finished = accept(database, account, task, b"first")
    assert finished is not None
    assert finished.result == RESULT


def test_accounts_have_their_own_tasks(database: Database, account: AccountId) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    task = new_uuid()
    accept(database, account, task)
    assert database.run_sync(tasks.find, other, task) is None
    assert accept(database, other, task) is None
    database.run_sync(tasks.succeed, other, task, RESULT, NOW)
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert record.status is Status.ACCEPTED


def test_a_failed_task_may_be_sent_again_but_not_changed(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task, b"first")
    database.run_sync(tasks.fail, account, task, FAILURE, NOW)
    conflicting = accept(database, account, task, b"second")
    assert conflicting is not None
    assert conflicting.error == FAILURE
    assert accept(database, account, task, b"first") is None
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert (record.status, record.error) == (Status.ACCEPTED, None)


def test_a_task_that_is_sent_again_is_not_answered_with_its_old_failure(
    database: Database, account: AccountId
) -> None:
    task, other = new_uuid(), new_uuid()
    for uuid in (task, other):
        accept(database, account, uuid)
        database.run_sync(tasks.fail, account, uuid, FAILURE, NOW)
    assert waiting(database, account) == [task, other]
    accept(database, account, task)
    assert waiting(database, account) == [other]
    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    assert waiting(database, account) == [other, task]


def test_success_records_result_charge_and_reply(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(ledger.reserve, account, task, 300, NOW)
    record = database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    assert record.status is Status.SUCCEEDED
    assert record.result is not None
    assert record.result.cost == 300
    assert database.run_sync(tasks.find, account, task) == record
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert waiting(database, account) == [task]


def test_failure_records_error_and_reply_and_charges_nothing(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(ledger.reserve, account, task, 300, NOW)
    record = database.run_sync(tasks.fail, account, task, FAILURE, NOW)
    assert (record.status, record.error) == (Status.FAILED, FAILURE)
    assert database.run_sync(ledger.statement, account).available == 1_000
    assert database.run_sync(ledger.spent, account) == (0, 0)
    assert waiting(database, account) == [task]


def test_a_task_of_no_session_has_no_reply_waiting(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task, session=None)
    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    assert waiting(database, account) == []


def test_a_task_has_one_outcome(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(ledger.reserve, account, task, 300, NOW)
    first = database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    again = RESULT.__class__(image_uuid="x", image_name="x.png", input_image_uuid="x")
    assert database.run_sync(tasks.succeed, account, task, again, NOW) == first
    assert database.run_sync(tasks.fail, account, task, FAILURE, NOW) == first
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert waiting(database, account) == [task]


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_what_raises_in_a_transaction_leaves_nothing_of_it(
    database: Database, account: AccountId, outcome: str
) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(ledger.reserve, account, task, 300, NOW)

    def interrupted(connection: Connection) -> None:
        if outcome == "success":
            tasks.succeed(connection, account, task, RESULT, NOW)
        else:
            tasks.fail(connection, account, task, FAILURE, NOW)
        raise UnexpectedError

    with pytest.raises(UnexpectedError):
        database.run_sync(interrupted)
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert (record.status, record.result, record.error) == (Status.ACCEPTED, None, None)
    assert database.run_sync(ledger.spent, account) == (0, 0)
    assert database.run_sync(ledger.statement, account).available == 700, "still reserved"
    assert waiting(database, account) == []
    assert database.run_sync(tasks.unfinished) == [record]


async def test_what_raises_beside_the_event_loop_is_rolled_back_too(
    database: Database, account: AccountId
) -> None:
    def interrupted(connection: Connection, task: str) -> None:
        tasks.accept(connection, account, task, b"{}", SESSION, NOW)
        raise UnexpectedError

    task = new_uuid()
    with pytest.raises(UnexpectedError):
        await database.run(interrupted, task)
    assert await database.run(tasks.find, account, task) is None


def test_replies_wait_in_the_order_of_their_outcomes(database: Database, account: AccountId) -> None:
    first, second, third = new_uuid(), new_uuid(), new_uuid()
    for task in (first, second, third):
        accept(database, account, task)
    database.run_sync(tasks.succeed, account, third, RESULT, NOW)
    database.run_sync(outbox.keep_undelivered, account, SESSION, NOW, b'{"data":[]}')
    database.run_sync(tasks.fail, account, first, FAILURE, NOW - 5)
    database.run_sync(tasks.succeed, account, second, RESULT, NOW)
    entries = database.run_sync(outbox.undelivered, account, SESSION)
    assert [entry.task_uuid for entry in entries] == [third, None, first, second]
    assert entries[1].frame == b'{"data":[]}'
    database.run_sync(outbox.delivered, entries[0].id)
    assert database.run_sync(outbox.undelivered, account, SESSION) == entries[1:]


def test_each_session_of_each_account_has_its_own_replies(database: Database, account: AccountId) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    mine, elsewhere, others = new_uuid(), new_uuid(), new_uuid()
    accept(database, account, mine)
    accept(database, account, elsewhere, session="another-session")
    accept(database, other, others)
    for owner, task in ((account, mine), (account, elsewhere), (other, others)):
        database.run_sync(tasks.succeed, owner, task, RESULT, NOW)
    assert waiting(database, account) == [mine]
    assert waiting(database, account, "another-session") == [elsewhere]
    assert waiting(database, other) == [others]


def test_a_task_under_way_can_be_watched_by_another_session(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    assert database.run_sync(tasks.watch, account, task, "another-session")
    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    assert waiting(database, account) == []
    assert waiting(database, account, "another-session") == [task]


def test_a_finished_task_can_no_longer_be_watched(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(tasks.succeed, account, task, RESULT, NOW)
    assert not database.run_sync(tasks.watch, account, task, "another-session")
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert record.session == SESSION


def test_replies_that_nobody_came_for_are_dropped(database: Database, account: AccountId) -> None:
    old, new = new_uuid(), new_uuid()
    for task, when in ((old, NOW), (new, NOW + 10)):
        accept(database, account, task)
        database.run_sync(tasks.succeed, account, task, RESULT, when)
    assert database.run_sync(outbox.purge_undelivered, NOW + 5) == 1
    assert waiting(database, account) == [new]
    assert database.run_sync(tasks.find, account, old) is not None, "getResponse still knows it"


def test_unfinished_tasks_are_found_oldest_first_after_a_restart(
    database: Database, account: AccountId
) -> None:
    uuids = [new_uuid() for _ in range(4)]
    for task, age in zip(uuids, (3, 1, 2, 4), strict=True):
        database.run_sync(tasks.accept, account, task, b"{}", SESSION, NOW - age)
    database.run_sync(tasks.succeed, account, uuids[0], RESULT, NOW)
    url = str(database._engine.url)
    database.close()
    again = Database(url)
    try:
        assert [record.task_uuid for record in again.run_sync(tasks.unfinished)] == [
            uuids[3],
            uuids[2],
            uuids[1],
        ]
    finally:
        again.close()


@pytest.fixture
def locks(database: Database) -> Iterator[tuple[ServerLock, ServerLock]]:
    """Two servers that run."""
    first, second = database.server_lock(), database.server_lock()
    assert first.hold()
    assert second.hold()
    yield first, second
    first.close()
    second.close()


def test_the_tasks_of_a_server_that_runs_are_its_own(
    database: Database, account: AccountId, locks: tuple[ServerLock, ServerLock]
) -> None:
    first, second = locks
    database.run_sync(tasks.accept, account, new_uuid(), b"{}", SESSION, NOW, first.server)
    assert database.run_sync(tasks.take_over, second, NOW) == []
    assert database.run_sync(tasks.take_over, first, NOW) == []


def test_the_tasks_of_a_server_that_is_gone_go_to_the_first_that_looks(
    database: Database, account: AccountId, locks: tuple[ServerLock, ServerLock]
) -> None:
    first, second = locks
    task = new_uuid()
    database.run_sync(tasks.accept, account, task, b"{}", SESSION, NOW, first.server)
    database.run_sync(tasks.reserve, account, task, 300, NOW, first.server)
    first.close()
    (taken,) = database.run_sync(tasks.take_over, second, NOW)
    assert (taken.task_uuid, taken.owner) == (task, second.server)
    assert database.run_sync(ledger.statement, account).available == 1_000, "it will be reserved again"
    third = database.server_lock()
    assert third.hold()
    assert database.run_sync(tasks.take_over, third, NOW) == []
    third.close()


def test_a_server_that_lost_a_task_can_neither_reserve_nor_record_anything_for_it(
    database: Database, account: AccountId, locks: tuple[ServerLock, ServerLock]
) -> None:
    first, second = locks
    task = new_uuid()
    database.run_sync(tasks.accept, account, task, b"{}", SESSION, NOW, first.server)
    first.close()
    database.run_sync(tasks.take_over, second, NOW)
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.reserve, account, task, 300, NOW, first.server)
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.succeed, account, task, RESULT, NOW, first.server)
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.fail, account, task, FAILURE, NOW, first.server)
    record = database.run_sync(tasks.succeed, account, task, RESULT, NOW, second.server)
    assert database.run_sync(tasks.succeed, account, task, RESULT, NOW, first.server) == record
    assert database.run_sync(audit).mistakes == []


def test_servers_that_look_together_take_each_task_once(database: Database, account: AccountId) -> None:
    uuids = [new_uuid() for _ in range(20)]
    gone = database.server_lock()
    for task in uuids:
        database.run_sync(tasks.accept, account, task, b"{}", SESSION, NOW, gone.server)
    servers = [database.server_lock() for _ in range(4)]
    assert all(lock.hold() for lock in servers)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda lock: database.run_sync(tasks.take_over, lock, NOW), servers))
    assert sorted(record.task_uuid for records in found for record in records) == sorted(uuids)
    for lock in servers:
        lock.close()


def test_of_servers_that_finish_a_task_together_one_records_and_charges_it(
    database: Database, account: AccountId
) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(ledger.reserve, account, task, 300, NOW)
    results = [StoredResult(image_uuid=str(n), image_name="i", input_image_uuid="j") for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        records = set(
            threads.map(lambda result: database.run_sync(tasks.succeed, account, task, result, NOW), results)
        )
    assert len(records) == 1
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert waiting(database, account) == [task]


def test_a_task_that_comes_several_times_at_once_is_accepted_once(
    database: Database, account: AccountId
) -> None:
    task = new_uuid()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: accept(database, account, task), range(8)))
    assert answers.count(None) == 1


def test_the_lock_files_of_killed_servers_are_deleted_by_the_next(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    folder = tmp_path / "state.db-servers"
    alive = database.server_lock()
    assert alive.hold()
    (folder / "killed").touch()
    started = database.server_lock()
    assert started.hold()
    assert {file.name for file in folder.iterdir()} == {alive.server, started.server}
    alive.close()
    started.close()
    assert list(folder.iterdir()) == []
    database.close()


def test_a_lock_whose_connection_is_lost_is_taken_again(postgresql: PostgreSQL) -> None:
    database = Database(postgresql.new_database())
    mine, other = database.server_lock(), database.server_lock()
    assert mine.hold()
    assert other.hold()
    postgresql.disconnect_all()
    with pytest.raises(OperationalError):
        mine.hold()
    assert mine.hold()
    assert not database.run_sync(other.is_dead, mine.server)
    mine.close()
    assert database.run_sync(other.is_dead, mine.server)
    other.close()
    database.close()
