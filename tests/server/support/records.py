"""Tasks and images in a database, without a server that runs them."""

from server.images.store import ImageFile, ImageStore, written_first
from server.state import tasks
from server.state.accounts import AccountId
from server.state.claims import ServerId
from server.state.database import Database
from server.state.images import ImageRecord, record_new
from server.state.records import Attempt, TaskRecord
from tests.server.support.harness import new_uuid

__all__ = ["accepted", "attempt_of", "keep_result", "record_of"]


def accepted(
    database: Database,
    account: AccountId,
    now: float,
    *,
    task: str | None = None,
    request: bytes = b"{}",
    session: str | None = None,
    owner: ServerId | None = None,
) -> Attempt:
    """A task that was accepted just now."""
    attempt = Attempt.of(account, task or new_uuid())
    assert database.run_sync(tasks.accept, attempt, request, session, now, owner) is None
    return attempt


def record_of(database: Database, account: AccountId, task: str) -> TaskRecord:
    """What is recorded of a task."""
    record = database.run_sync(tasks.find, account, task)
    assert record is not None
    return record


def attempt_of(database: Database, account: AccountId, task: str) -> Attempt:
    """The present attempt at a task."""
    return record_of(database, account, task).attempt


async def keep_result(store: ImageStore, account: AccountId, file: ImageFile, ttl: float) -> ImageRecord:
    """Keep an image as results are kept."""
    draft = await store.draft(account, file, ttl)
    await store._database.run(written_first([draft], record_new), draft.image, store.limit)
    return draft.image
