"""Tasks and the outbox, on a real database file."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from server.protocol.errors import ErrorItem, InsufficientCreditsError, QuotaError
from server.state import ledger, outbox, tasks
from server.state.accounts import AccountId, account_named
from server.state.audit import audit
from server.state.claims import ServerLock
from server.state.database import Database
from server.state.images import ImageRecord, Recorded, find_image
from server.state.loose_files import note_loose
from server.state.records import Attempt, Status, StoredResult, TaskRecord
from server.state.takeover import attempts_of, records_of, take_over
from server.state.tasks import LostTaskError
from tests.server.support.harness import new_uuid, until
from tests.server.support.postgresql import PostgreSQL
from tests.server.support.records import accepted, attempt_of, record_of

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
) -> TaskRecord | None:
    return database.run_sync(tasks.accept, Attempt.of(account, task), request, session, NOW)


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
    for request, session in ((b"second", SESSION), (b"first", "another-session")):
        previous = accept(database, account, task, request, "another-session")
        assert previous is not None
        assert (previous.encoded_request, previous.session) == (b"first", session)
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    finished = accept(database, account, task, b"first")
    assert finished is not None
    assert finished.result == RESULT


def test_accounts_have_their_own_tasks(database: Database, account: AccountId) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    task = new_uuid()
    accept(database, account, task)
    assert database.run_sync(tasks.find, other, task) is None
    assert accept(database, other, task) is None
    database.run_sync(tasks.succeed, attempt_of(database, other, task), RESULT, NOW)
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert record.status is Status.ACCEPTED


def test_a_failed_task_may_be_sent_again_but_not_changed(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task, b"first")
    database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW)
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
        database.run_sync(tasks.fail, attempt_of(database, account, uuid), FAILURE, NOW)
    assert waiting(database, account) == [task, other]
    accept(database, account, task)
    assert waiting(database, account) == [other]
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert waiting(database, account) == [other, task]


def test_success_records_result_charge_and_reply(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(tasks.reserve, attempt_of(database, account, task), 300, NOW)
    record = database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert record.status is Status.SUCCEEDED
    assert record.result is not None
    assert record.result.cost == 300
    assert database.run_sync(tasks.find, account, task) == record
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert waiting(database, account) == [task]


def test_failure_records_error_and_reply_and_charges_nothing(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(tasks.reserve, attempt_of(database, account, task), 300, NOW)
    record = database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW)
    assert (record.status, record.error) == (Status.FAILED, FAILURE)
    assert database.run_sync(ledger.statement, account).available == 1_000
    assert database.run_sync(ledger.spent, account) == (0, 0)
    assert waiting(database, account) == [task]


def test_a_task_of_no_session_has_no_reply_waiting(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task, session=None)
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert waiting(database, account) == []


def test_a_task_has_one_outcome(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(tasks.reserve, attempt_of(database, account, task), 300, NOW)
    first = database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    again = RESULT.__class__(image_uuid="x", image_name="x.png", input_image_uuid="x")
    assert database.run_sync(tasks.succeed, attempt_of(database, account, task), again, NOW) == first
    assert database.run_sync(tasks.fail, attempt_of(database, account, task), FAILURE, NOW) == first
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert waiting(database, account) == [task]


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_what_raises_in_a_transaction_leaves_nothing_of_it(
    database: Database, account: AccountId, outcome: str
) -> None:
    task = new_uuid()
    accept(database, account, task)
    database.run_sync(tasks.reserve, attempt_of(database, account, task), 300, NOW)

    attempt = attempt_of(database, account, task)

    def interrupted(connection: Connection) -> None:
        if outcome == "success":
            tasks.succeed(connection, attempt, RESULT, NOW)
        else:
            tasks.fail(connection, attempt, FAILURE, NOW)
        raise UnexpectedError

    with pytest.raises(UnexpectedError):
        database.run_sync(interrupted)
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    assert (record.status, record.result, record.error) == (Status.ACCEPTED, None, None)
    assert database.run_sync(ledger.spent, account) == (0, 0)
    assert database.run_sync(ledger.statement, account).available == 700, "still reserved"
    assert waiting(database, account) == []
    assert record.attempt == attempt


async def test_what_raises_beside_the_event_loop_is_rolled_back_too(
    database: Database, account: AccountId
) -> None:
    def interrupted(connection: Connection, task: str) -> None:
        tasks.accept(connection, Attempt.of(account, task), b"{}", SESSION, NOW)
        raise UnexpectedError

    task = new_uuid()
    with pytest.raises(UnexpectedError):
        await database.run(interrupted, task)
    assert await database.run(tasks.find, account, task) is None


def test_replies_wait_in_the_order_of_their_outcomes(database: Database, account: AccountId) -> None:
    first, second, third = new_uuid(), new_uuid(), new_uuid()
    for task in (first, second, third):
        accept(database, account, task)
    database.run_sync(tasks.succeed, attempt_of(database, account, third), RESULT, NOW)
    database.run_sync(outbox.keep_undelivered, account, SESSION, NOW, b'{"data":[]}')
    database.run_sync(tasks.fail, attempt_of(database, account, first), FAILURE, NOW - 5)
    database.run_sync(tasks.succeed, attempt_of(database, account, second), RESULT, NOW)
    entries = database.run_sync(outbox.undelivered, account, SESSION)
    assert [entry.task_uuid for entry in entries] == [third, None, first, second]
    assert entries[1].size == len(b'{"data":[]}')
    assert database.run_sync(outbox.kept_frame, entries[1].id) == b'{"data":[]}'
    database.run_sync(outbox.delivered, [entries[0].id])
    assert database.run_sync(outbox.undelivered, account, SESSION) == entries[1:]


def test_each_session_of_each_account_has_its_own_replies(database: Database, account: AccountId) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    mine, elsewhere, others = new_uuid(), new_uuid(), new_uuid()
    accept(database, account, mine)
    accept(database, account, elsewhere, session="another-session")
    accept(database, other, others)
    for owner, task in ((account, mine), (account, elsewhere), (other, others)):
        database.run_sync(tasks.succeed, attempt_of(database, owner, task), RESULT, NOW)
    assert waiting(database, account) == [mine]
    assert waiting(database, account, "another-session") == [elsewhere]
    assert waiting(database, other) == [others]


def test_the_outcome_of_a_task_goes_to_the_session_that_sent_it_last(
    database: Database, account: AccountId
) -> None:
    task = new_uuid()
    for session in (SESSION, "another-session", None):
        accept(database, account, task, session=session)
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert waiting(database, account) == []
    assert waiting(database, account, "another-session") == [task]


def test_a_finished_task_that_is_sent_again_stays_as_it_is(database: Database, account: AccountId) -> None:
    task = new_uuid()
    accept(database, account, task)
    finished = database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert accept(database, account, task, session="another-session") == finished
    assert waiting(database, account) == [task]


def test_replies_that_nobody_came_for_are_dropped(database: Database, account: AccountId) -> None:
    old, new = new_uuid(), new_uuid()
    for task, when in ((old, NOW), (new, NOW + 10)):
        accept(database, account, task)
        database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, when)
    assert database.run_sync(outbox.purge_undelivered, NOW + 5) == 1
    assert waiting(database, account) == [new]
    assert database.run_sync(tasks.find, account, old) is not None, "getResponse still knows it"


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
    attempt = accepted(database, account, NOW, owner=first.server)
    assert [database.run_sync(take_over, lock, NOW) for lock in locks] == [0, 0]
    assert database.run_sync(attempts_of, first.server) == {attempt.id}
    assert database.run_sync(attempts_of, second.server) == set()


def test_the_tasks_of_a_server_that_is_gone_go_to_the_first_that_looks(
    database: Database, account: AccountId, locks: tuple[ServerLock, ServerLock]
) -> None:
    first, second = locks
    old = [accepted(database, account, NOW - age, owner=first.server) for age in (1, 3, 2)]
    database.run_sync(tasks.reserve, old[0], 300, NOW)
    first.close()
    assert database.run_sync(take_over, second, NOW) == 3
    found = database.run_sync(records_of, second.server, database.run_sync(attempts_of, second.server))
    assert [record.task_uuid for record in found] == [old[number].task_uuid for number in (1, 2, 0)]
    assert not {record.attempt for record in found} & set(old), "they are begun anew"
    assert database.run_sync(ledger.statement, account).available == 1_000, "it will be reserved again"
    third = database.server_lock()
    assert third.hold()
    assert database.run_sync(take_over, third, NOW) == 0
    third.close()


def test_an_attempt_that_was_taken_over_can_neither_reserve_nor_record_anything(
    database: Database, account: AccountId, locks: tuple[ServerLock, ServerLock]
) -> None:
    first, second = locks
    old = accepted(database, account, NOW, owner=first.server)
    first.close()
    database.run_sync(take_over, second, NOW)
    for step in (
        (tasks.reserve, old, 300, NOW),
        (tasks.succeed, old, RESULT, NOW),
        (tasks.fail, old, FAILURE, NOW),
    ):
        with pytest.raises(LostTaskError):
            database.run_sync(*step)
    assert not database.run_sync(tasks.withdraw, Attempt.of(account, old.task_uuid), NOW)
    new = attempt_of(database, account, old.task_uuid)
    assert database.run_sync(tasks.succeed, new, RESULT, NOW).result == RESULT
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.succeed, old, RESULT, NOW)
    assert database.run_sync(audit).mistakes == []


def test_an_attempt_that_was_cancelled_can_neither_reserve_nor_succeed_once_its_task_is_sent_again(
    database: Database, account: AccountId
) -> None:
    old = accepted(database, account, NOW, session=SESSION)
    database.run_sync(tasks.reserve, old, 300, NOW)
    cancelled = database.run_sync(tasks.cancel, account, old.task_uuid, "http://us", NOW)
    assert cancelled is not None
    assert (cancelled.attempt, cancelled.status) == (old, Status.FAILED)
    assert database.run_sync(tasks.cancel, account, old.task_uuid, "http://us", NOW) is None
    assert database.run_sync(tasks.succeed, old, RESULT, NOW) == cancelled, "it came too late"
    new = accepted(database, account, NOW, task=old.task_uuid, session=SESSION)
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.reserve, old, 300, NOW)
    assert database.run_sync(tasks.reserve, new, 300, NOW)
    assert database.run_sync(tasks.reserve, new, 300, NOW), "its answer may be lost"
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.succeed, old, RESULT, NOW)
    database.run_sync(tasks.succeed, new, RESULT, NOW)
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert database.run_sync(audit).mistakes == []


def test_a_task_that_was_sent_once_can_be_withdrawn_whoever_runs_it(
    database: Database, account: AccountId, locks: tuple[ServerLock, ServerLock]
) -> None:
    first, second = locks
    attempt = accepted(database, account, NOW, owner=first.server)
    first.close()
    database.run_sync(take_over, second, NOW)
    new = attempt_of(database, account, attempt.task_uuid)
    database.run_sync(tasks.reserve, new, 300, NOW)
    assert not database.run_sync(tasks.withdraw, new, NOW)
    assert database.run_sync(tasks.withdraw, attempt, NOW)
    assert not database.run_sync(tasks.withdraw, attempt, NOW)
    assert database.run_sync(tasks.find, account, attempt.task_uuid) is None
    assert database.run_sync(ledger.statement, account).available == 1_000
    with pytest.raises(LostTaskError):
        database.run_sync(tasks.succeed, new, RESULT, NOW)
    assert database.run_sync(audit).mistakes == []


def test_a_task_that_was_sent_again_or_asked_for_or_has_an_outcome_cannot_be_withdrawn(
    database: Database, account: AccountId
) -> None:
    again, asked, done = (accepted(database, account, NOW) for _ in range(3))
    accept(database, account, again.task_uuid)
    told = database.run_sync(tasks.look, account, asked.task_uuid)
    assert told is not None
    assert told.status is Status.ACCEPTED
    database.run_sync(tasks.succeed, done, RESULT, NOW)
    for attempt in (again, asked, done):
        assert not database.run_sync(tasks.withdraw, attempt, NOW)


def test_a_task_is_admitted_only_if_it_is_new(database: Database, account: AccountId) -> None:
    def refuse() -> None:
        raise UnexpectedError

    done, failed = (accepted(database, account, NOW) for _ in range(2))
    database.run_sync(tasks.succeed, done, RESULT, NOW)
    database.run_sync(tasks.fail, failed, FAILURE, NOW)

    def send(task: str) -> TaskRecord | None:
        attempt = Attempt.of(account, task)
        return database.run_sync(tasks.accept, attempt, b"{}", None, NOW, admit=refuse)

    assert send(done.task_uuid) == record_of(database, account, done.task_uuid)
    for task in (failed.task_uuid, new_uuid()):
        with pytest.raises(UnexpectedError):
            send(task)
    assert record_of(database, account, failed.task_uuid).status is Status.FAILED


def test_servers_that_look_together_take_each_task_once(database: Database, account: AccountId) -> None:
    gone = database.server_lock()
    orphans = [accepted(database, account, NOW, owner=gone.server) for _ in range(20)]
    servers = [database.server_lock() for _ in range(4)]
    assert all(lock.hold() for lock in servers)
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda lock: database.run_sync(take_over, lock, NOW), servers))
    found = [database.run_sync(attempts_of, lock.server) for lock in servers]
    assert sum(taken) == sum(map(len, found)) == len(set().union(*found)) == len(orphans)
    for lock in servers:
        lock.close()


def test_of_servers_that_finish_a_task_together_one_records_and_charges_it(
    database: Database, account: AccountId
) -> None:
    attempt = accepted(database, account, NOW, session=SESSION)
    database.run_sync(tasks.reserve, attempt, 300, NOW)
    results = [StoredResult(image_uuid=str(n), image_name="i", input_image_uuid="j") for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        records = set(
            threads.map(lambda result: database.run_sync(tasks.succeed, attempt, result, NOW), results)
        )
    assert len(records) == 1
    assert database.run_sync(ledger.spent, account) == (300, 1)
    assert waiting(database, account) == [attempt.task_uuid]


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


async def test_a_lock_whose_connection_is_lost_is_taken_again(postgresql: PostgreSQL) -> None:
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
    await until(lambda: database.run_sync(other.is_dead, mine.server))  # once the server has noticed
    other.close()
    database.close()


def test_a_failed_task_that_is_sent_again_by_many_at_once_begins_once(
    database: Database, account: AccountId
) -> None:
    failed = accepted(database, account, NOW)
    database.run_sync(tasks.fail, failed, FAILURE, NOW)
    attempts = [Attempt.of(account, failed.task_uuid) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda attempt: database.run_sync(tasks.accept, attempt, b"{}", None, NOW), attempts)
        )
    assert answers.count(None) == 1
    assert attempt_of(database, account, failed.task_uuid) == attempts[answers.index(None)]


def test_servers_see_each_others_locks_by_whichever_link_they_reach_the_database(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    first = Database(f"sqlite:///{tmp_path / 'state.db'}")
    second = Database(f"sqlite:///{tmp_path / 'link' / 'state.db'}")
    mine, other = first.server_lock(), second.server_lock()
    assert mine.hold()
    assert other.hold()
    assert not second.run_sync(other.is_dead, mine.server)
    for lock, database in ((mine, first), (other, second)):
        lock.close()
        database.close()


def an_input(database: Database, account: AccountId) -> ImageRecord:
    """One whose file is written."""
    image = ImageRecord(new_uuid(), account, f"{new_uuid()}.png", 100, 20, 10, NOW + 60)
    database.run_sync(note_loose, image.name, NOW)
    return image


def accept_with_input(
    database: Database,
    task: str,
    image: ImageRecord,
    request: bytes = b"{}",
    price: int = 300,
    more: Sequence[ImageRecord] = (),
) -> tuple[TaskRecord | None, Recorded | None]:
    attempt = Attempt.of(image.account, task)

    def accept(connection: Connection, keep_inputs: Callable[[Connection], object]) -> TaskRecord | None:
        return tasks.accept(connection, attempt, request, SESSION, NOW, price=price, keep_inputs=keep_inputs)

    inputs = [(each, True) for each in (image, *more)]
    previous, recorded = database.run_sync(tasks.accept_with_inputs, inputs, accept, NOW, 1_000)
    return previous, recorded[0] if recorded else None


def test_a_task_its_inputs_and_its_price_are_recorded_together(
    database: Database, account: AccountId
) -> None:
    task, image, style = new_uuid(), an_input(database, account), an_input(database, account)
    assert accept_with_input(database, task, image, more=[style]) == (None, (image, None))
    assert record_of(database, account, task).price == 300
    for each in (image, style):
        assert database.run_sync(find_image, account, each.uuid, NOW) == each
    assert database.snapshot(audit).mistakes == []


def test_nothing_is_recorded_of_a_task_that_is_refused(database: Database, account: AccountId) -> None:
    dear, large = an_input(database, account), an_input(database, account)
    with pytest.raises(InsufficientCreditsError):
        accept_with_input(database, new_uuid(), dear, price=1_001)
    with pytest.raises(QuotaError):
        accept_with_input(database, new_uuid(), large._replace(size=1_001))
    style = an_input(database, account)
    with pytest.raises(QuotaError):
        accept_with_input(database, new_uuid(), style, more=[large._replace(size=1_001)])
    for image in (dear, large, style):
        assert database.run_sync(find_image, account, image.uuid, NOW) is None
    assert database.run_sync(ledger.statement, account).available == 1_000
    assert database.snapshot(audit).mistakes == []


def test_the_input_of_a_task_that_is_sent_again_is_kept_until_there_is_an_outcome(
    database: Database, account: AccountId
) -> None:
    task, image = new_uuid(), an_input(database, account)
    accept_with_input(database, task, image)
    again = an_input(database, account)._replace(uuid=image.uuid, expires=NOW + 90)
    previous, recorded = accept_with_input(database, task, again)
    assert previous is not None
    assert recorded == (image._replace(expires=NOW + 90), again.name)
    other = an_input(database, account)
    assert accept_with_input(database, task, other, b'{"other": 1}')[1] is None
    database.run_sync(tasks.succeed, attempt_of(database, account, task), RESULT, NOW)
    assert accept_with_input(database, task, other)[1] is None
    assert database.run_sync(find_image, account, other.uuid, NOW) is None
    assert database.run_sync(ledger.spent, account) == (300, 1)
