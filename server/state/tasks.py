"""Tasks from acceptance to outcome.

A task is recorded before anything is said about it. Its outcome, its charge and the reply to its session are
one transaction, with its webhook, so that none of them is there without the others.

Each time that a task begins it is a new attempt, whose id is in its row. To reserve, to succeed and to fail
is up to that attempt alone, whatever older ones are still at: a task that was cancelled, sent again or taken
over meanwhile is theirs no more. An attempt reserves once and ends once; the ledger's constraints see to it.

What leaves the server before the task has an outcome is noted before: parts of the result that are sent while
it is made, and a result that is to be uploaded. The task owes that from then on, whatever becomes of it. What
it was charged counts when it is tried again: in all it is charged its price at most.

Every transaction locks the task first, then images, then the account, then the token that the task came with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from server.money import to_usd
from server.protocol.errors import ErrorItem, InsufficientCreditsError, TaskCancelledError, UnavailableError
from server.state import ledger
from server.state.accounts import AccountId
from server.state.claims import ServerId
from server.state.images import NO_LIMIT, ImageRecord, Recorded, record_input, record_new
from server.state.outbox import UndeliveredReply, forget_outcome, keep_outcome
from server.state.prepared import Prepared
from server.state.records import COLUMNS, Attempt, Status, StoredResult, TaskRecord, record_of
from server.state.requests import Destination, Service
from server.state.tables import of_services, tasks, unfinished
from server.state.tokens import count_task, give_back, spend, uncount_task
from server.state.webhooks import forget_webhook, record_webhook

__all__ = [
    "LostTaskError",
    "accept",
    "accept_with_inputs",
    "cancel",
    "check_payable",
    "fail",
    "find",
    "keep",
    "latest",
    "look",
    "note_sent",
    "reserve",
    "settle",
    "succeed",
    "too_dear",
    "withdraw",
]


class LostTaskError(Exception):
    """The attempt is not the task's present one, or has ended; what it did does not count."""


_ROUNDED_TO: Final = 1000
"""Nanodollars: amounts are whole microdollars."""

_THIS: Final = tasks.c.account_id == bindparam("of"), tasks.c.task_uuid == bindparam("uuid")
_QUERY: Final = select(*COLUMNS).where(*_THIS)
_FIND: Final = Prepared(_QUERY)
_FIND_LOCKED: Final = Prepared(_QUERY.with_for_update())
_FIND_ACCEPTED_AS: Final = Prepared(
    _QUERY.where(unfinished, tasks.c.acceptance == bindparam("id")).with_for_update()
)
_HOLD: Final = Prepared(
    update(tasks).where(*_THIS, unfinished, tasks.c.acceptance.is_not(None)).values(acceptance=None)
)
_INSERT: Final = Prepared(insert(tasks))
_UPDATE: Final = Prepared(update(tasks).where(*_THIS))
_DELETE: Final = Prepared(delete(tasks).where(*_THIS))


def accept(
    connection: Connection,
    attempt: Attempt,
    request: bytes,
    session: str | None,
    now: float,
    owner: ServerId | None = None,
    admit: Callable[[], None] | None = None,
    service: Service = "runware",
    token: str | None = None,
    price: int | None = None,
    keep_inputs: Callable[[Connection], object] | None = None,
) -> TaskRecord | None:
    """Record a new task; if the account used the UUID before, return that record.

    A task that is sent again stays as it is, but that its outcome goes to the session that asked last. A
    failed task is an exception: the same request may be sent again, and is then a new one.

    Args:
        connection: of the transaction.
        attempt: what the task is to be known by.
        request: the request, in JSON.
        session: where the outcome is to be sent.
        now: the time in seconds since the epoch.
        owner: the server that runs it.
        admit: called if the task is a new one, perhaps more than once; what it raises refuses the task.
        service: in whose shape it came.
        token: the id of the token that it came with, whose limit a new task counts for.
        price: what is reserved for it, in nanodollars; None if that is not known yet.
        keep_inputs: records the images that it came with, in the same transaction. Not called if there is an
            outcome, or another request.

    Raises:
        QuotaError: if the token has begun as many tasks as it may.
        InsufficientCreditsError: if the account, or the token, cannot pay the price. Nothing is kept then.
    """
    previous = find(connection, attempt.account, attempt.task_uuid, locked=True)
    if previous is not None and not previous.is_for(request):
        return previous
    if previous is not None and previous.status is Status.ACCEPTED:
        again = replace(previous, session=session or previous.session)
        _change(connection, attempt, acceptance=None, session=again.session)
        if keep_inputs is not None:
            keep_inputs(connection)
        return again
    if previous is not None and previous.status is Status.SUCCEEDED:
        return previous
    if admit is not None:
        admit()
    charged = 0 if previous is None else previous.charged
    price = None if price is None else max(price, charged)
    values = {
        "attempt": attempt.id,
        "acceptance": attempt.id,
        "request": request,
        "session": session,
        "status": Status.ACCEPTED,
        "error": None,
        "owner": owner,
        "service": None if service == "runware" else service,
        "created": now,
        "finished": None,
        "price": price,
    }
    if previous is None:
        key: dict[str, object] = {"account_id": attempt.account, "task_uuid": attempt.task_uuid}
        key |= {"due": 0, "charged": 0}
        _INSERT.count(connection, key | values)
    else:
        # An answer that still waits for its session, or for a webhook, would now be about the new attempt.
        forget_webhook(connection, attempt.account, attempt.task_uuid)
        forget_outcome(connection, attempt.account, attempt.task_uuid)
        _change(connection, attempt, **values)
    if keep_inputs is not None:
        keep_inputs(connection)
    if price is not None and not _set_aside(connection, attempt, price - charged, now, token):
        raise too_dear(connection, attempt.account, price, token)
    if token is not None:
        count_task(connection, token)
    return None


def accept_with_inputs(
    connection: Connection,
    inputs: Sequence[tuple[ImageRecord, bool]],
    accept: Callable[[Connection, Callable[[Connection], object]], TaskRecord | None],
    now: float,
    limit: int,
) -> tuple[TaskRecord | None, list[Recorded] | None]:
    """`accept`, and `record_input` of all its images, in the same transaction.

    Args:
        connection: of the transaction.
        inputs: the images, and whether the file of each is a new one, as of `record_input`.
        accept: is `accept` with all that it needs beside `keep_inputs`.
        now: as of `record_input`.
        limit: as there.

    Returns:
        What `accept` gives, and what has become of the images; None if they were not needed.

    Raises:
        FileCondemnedError, QuotaError: as there; and as `accept`.
    """
    recorded: list[Recorded] | None = None

    def keep_inputs(connection: Connection) -> None:
        nonlocal recorded
        recorded = [
            record_input(connection, image, now, limit, is_written=is_written) for image, is_written in inputs
        ]

    return accept(connection, keep_inputs), recorded


def check_payable(
    connection: Connection, account: AccountId, task_uuid: str, price: int, token: str | None = None
) -> None:
    """See that the account could pay for a task, unless it is known and need not be paid.

    Raises:
        InsufficientCreditsError: if it could not.
    """
    known = find(connection, account, task_uuid.lower())
    if known is None or known.status is Status.FAILED:
        available = ledger.statement(connection, account).available
        if available is not None and available < price - (0 if known is None else known.charged):
            raise too_dear(connection, account, price, token)


def too_dear(
    connection: Connection, account: AccountId, price: int, token: str | None = None
) -> InsufficientCreditsError:
    """The error that an account cannot pay a price."""
    if token is not None:  # what the account has is not for pages to know
        return InsufficientCreditsError(
            "insufficientCredits", "the account that the token belongs to cannot pay for the task"
        )
    available = ledger.statement(connection, account).available
    return InsufficientCreditsError(
        "insufficientCredits",
        f"the task costs {to_usd(price)} USD; the account has {to_usd(available or 0)} USD",
    )


def withdraw(connection: Connection, attempt: Attempt, now: float) -> bool:
    """Forget a task without an outcome, whoever runs it by now; False if it was not accepted as this attempt.

    It stays, too, if it was sent again or asked for since: then somebody waits for it. One that was charged,
    or has to be, is not forgotten: it fails.
    """
    this = {"of": attempt.account, "uuid": attempt.task_uuid}
    row = _FIND_ACCEPTED_AS.first(connection, this | {"id": attempt.id})
    if row is None:
        return False
    record = record_of(row)
    if record.charged or record.due:
        error = UnavailableError("the task was given up; send it again")
        _end(connection, record, error.item(None, record.task_uuid, None), now)
        return True
    settle(connection, record, now)
    if record.token is not None:
        uncount_task(connection, record.token)
    _DELETE.count(connection, this)
    return True


def find(
    connection: Connection, account: AccountId, task_uuid: str, *, locked: bool = False
) -> TaskRecord | None:
    """The record of a task; `locked` to the end of the transaction if nobody else is to change it."""
    query = _FIND_LOCKED if locked else _FIND
    row = query.first(connection, {"of": account, "uuid": task_uuid})
    return None if row is None else record_of(row)


def look(connection: Connection, account: AccountId, task_uuid: str) -> TaskRecord | None:
    """`find`, for a client: of what it learns that it is accepted, it is not withdrawn any more."""
    record = find(connection, account, task_uuid)
    if record is not None and record.status is Status.ACCEPTED:
        _HOLD.count(connection, {"of": account, "uuid": task_uuid})
        record = find(connection, account, task_uuid)  # it may just have been withdrawn
    return record


def latest(
    connection: Connection, account: AccountId, service: Service, limit: int, before: float = math.inf
) -> list[TaskRecord]:
    """An account's tasks in the shape of another service than Runware, the newest first.

    Args:
        connection: of the transaction.
        account: whose tasks.
        service: in whose shape they came.
        limit: how many at most.
        before: only those created earlier, in seconds since the epoch.
    """
    query = (
        select(*COLUMNS)
        .where(
            of_services, tasks.c.account_id == account, tasks.c.service == service, tasks.c.created < before
        )
        .order_by(tasks.c.created.desc())
        .limit(limit)
    )
    return [record_of(row) for row in connection.execute(query)]


def reserve(
    connection: Connection,
    attempt: Attempt,
    amount: int,
    now: float,
    token: str | None = None,
) -> bool:
    """Set aside what an attempt will cost, once; False if the account cannot pay it.

    Args:
        connection: of the transaction.
        attempt: whom it is set aside for.
        amount: in nanodollars.
        now: the time in seconds since the epoch.
        token: the id of the token that the task came with, which may have a limit of its own.

    Raises:
        InsufficientCreditsError: if the token may not spend as much.
        LostTaskError: if the task has another attempt, or an outcome.
    """
    record = _present(connection, attempt)
    if record is None or record.status is not Status.ACCEPTED:
        raise LostTaskError
    if record.price is None:  # else it was done, as it was accepted
        price = max(amount, record.charged)
        if not _set_aside(connection, attempt, price - record.charged, now, token):
            return False
        _change(connection, attempt, price=price)
    return True


def _set_aside(connection: Connection, attempt: Attempt, amount: int, now: float, token: str | None) -> bool:
    """Reserve an amount, by the account and the token; False if the account cannot pay it."""
    if not ledger.reserve(connection, attempt, amount, now):
        return False
    if token is not None:
        spend(connection, token, amount)
    return True


def note_sent(connection: Connection, attempt: Attempt, sent: int, total: int) -> bool:
    """Note that a part of the result is about to leave: the task owes as much of its price, rounded up.

    Args:
        connection: in a transaction.
        attempt: that makes the result; its price is reserved.
        sent: pixels of the result that the attempt has sent then.
        total: pixels that it has.

    Returns:
        False if nothing may be sent, as the task has another attempt, or an outcome.
    """
    record = _present(connection, attempt)
    if record is None or record.status is not Status.ACCEPTED or record.price is None:
        return False
    part = -(-record.price * sent // (total * _ROUNDED_TO)) * _ROUNDED_TO
    due = min(record.charged + part, record.price)
    if due > record.due:
        _change(connection, attempt, due=due)
    return True


def keep(
    connection: Connection,
    attempt: Attempt,
    result: StoredResult,
    image: ImageRecord,
    limit: int = NO_LIMIT,
) -> None:
    """Record a result that is about to be uploaded: the task owes its price, and never fails without it.

    Arguments and errors are as of `succeed`.

    Raises:
        LostTaskError: if the task has another attempt, or an outcome.
    """
    record = _present(connection, attempt)
    if record is None or record.status is not Status.ACCEPTED:
        raise LostTaskError
    if record.result is not None:  # it was done, and the answer lost
        return
    record_new(connection, image, limit)
    price = record.price or 0
    stored = msgspec.structs.replace(result, cost=price)
    _change(connection, attempt, result=msgspec.json.encode(stored), due=price)


def succeed(
    connection: Connection,
    attempt: Attempt,
    result: StoredResult,
    now: float,
    webhook: Destination | None = None,
    image: ImageRecord | None = None,
    limit: int = NO_LIMIT,
) -> TaskRecord:
    """Record the result, charge its price, put the reply into the outbox, and the webhook beside it.

    An attempt has one outcome: if it was recorded before, that one stays and nothing is charged again.

    Args:
        connection: of the transaction.
        attempt: whose result it is.
        result: what the reply is made of.
        now: the time in seconds since the epoch.
        webhook: where the outcome is to be sent besides the session.
        image: the result's, whose file is written and which is recorded with it.
        limit: bytes of images that the account may have.

    Raises:
        LostTaskError: if the task has another attempt.
        FileCondemnedError: if the image's file is to be deleted, as it took more than a day.
        QuotaError: if the account has too many bytes of images.
    """
    record = _present(connection, attempt)
    if record is None:
        raise LostTaskError
    if record.status is not Status.ACCEPTED:
        return record
    if image is not None:
        record_new(connection, image, limit)
    price = record.charged if record.price is None else record.price
    stored = msgspec.structs.replace(result, cost=price)
    ended = replace(record, status=Status.SUCCEEDED, result=stored, error=None, price=price, charged=price)
    waiting = _announce(connection, record, now, webhook)
    return replace(_settle(connection, record, ended, now), waiting=waiting)


def fail(
    connection: Connection,
    attempt: Attempt,
    error: ErrorItem,
    now: float,
    webhook: Destination | None = None,
) -> TaskRecord:
    """Record the error, charge what is owed, release the rest, announce it as `succeed` does; once, too.

    If there is a result, it stays, and the task counts as one that succeeded: only its upload failed.

    Raises:
        LostTaskError: if the task has another attempt.
    """
    record = _present(connection, attempt)
    if record is None:
        raise LostTaskError
    if record.status is not Status.ACCEPTED:
        return record
    return _fail(connection, record, error, now, webhook)


def cancel(
    connection: Connection,
    account: AccountId,
    task_uuid: str,
    base_url: str,
    now: float,
    scope: str | None = None,
) -> TaskRecord | None:
    """Have a task end as cancelled, whichever server it belongs to; None if there is none, or it has ended.

    What it owes by then is charged: see `fail`.

    Args:
        connection: in a transaction.
        account: whose task it is.
        task_uuid: that it is recorded under.
        base_url: what the client reaches this server as.
        now: the time in seconds since the epoch.
        scope: of the token that asks, which sees no tasks but its own.
    """
    record = find(connection, account, task_uuid, locked=True)
    if record is None or record.status is not Status.ACCEPTED:
        return None
    if scope is not None and not record.is_of(scope):
        return None
    error, request = TaskCancelledError(), record.readable_request
    item = error.item(None, record.task_uuid, None) if request is None else request.failure(error, base_url)
    webhook = None if request is None else request.webhook(base_url)
    return _fail(connection, record, item, now, webhook)


def _present(connection: Connection, attempt: Attempt) -> TaskRecord | None:
    """The record of an attempt's task, locked; None if the task has another attempt, or is not there."""
    record = find(connection, attempt.account, attempt.task_uuid, locked=True)
    return record if record is not None and record.attempt == attempt else None


def _fail(
    connection: Connection, record: TaskRecord, error: ErrorItem, now: float, webhook: Destination | None
) -> TaskRecord:
    ended = _end(connection, record, error, now)
    return replace(ended, waiting=_announce(connection, record, now, webhook))


def _end(connection: Connection, record: TaskRecord, error: ErrorItem, now: float) -> TaskRecord:
    """End a task by an error, that says what it costs all the same."""
    cost = record.charged + record.owed
    why = f"the result is kept and costs {to_usd(cost):f} USD: getResponse has it" if record.result else ""
    if not why and cost:
        why = f"{to_usd(cost):f} USD is charged for the part of the result that was sent"
    if why:
        error = msgspec.structs.replace(error, message=f"{error.message}; {why}", cost=to_usd(cost))
    status, price = (Status.SUCCEEDED, cost) if record.result else (Status.FAILED, None)
    ended = replace(record, status=status, error=error, price=price, charged=cost)
    return _settle(connection, record, ended, now)


def _settle(connection: Connection, record: TaskRecord, ended: TaskRecord, now: float) -> TaskRecord:
    """Record how a task has ended, and move its money: each that succeeds has a charge."""
    owed = ended.charged - record.charged
    if ended.status is Status.SUCCEEDED and not ended.charged:
        ledger.charge(connection, record.attempt, 0, now)
    settle(connection, record, now, owed)
    _change(
        connection,
        record.attempt,
        status=ended.status,
        result=ended.result and msgspec.json.encode(ended.result),
        error=ended.error and msgspec.json.encode(ended.error),
        price=ended.price,
        due=ended.charged,
        charged=ended.charged,
        finished=now,
    )
    return replace(ended, due=ended.charged, spent=owed, finished=now)


def settle(connection: Connection, record: TaskRecord, now: float, owed: int | None = None) -> None:
    """End an attempt: charge what it owes, give the rest of what it has reserved back to account and token.

    Args:
        connection: in a transaction.
        record: of the task, with that attempt.
        now: the time in seconds since the epoch.
        owed: in nanodollars; by default for what of the result has left the server.
    """
    owed = record.owed if owed is None else owed
    ledger.settle(connection, record.attempt, record.reserved, owed, now)
    if record.token is not None:
        give_back(connection, record.token, record.reserved - owed)


def _announce(
    connection: Connection, record: TaskRecord, now: float, webhook: Destination | None
) -> UndeliveredReply | None:
    """Have an outcome sent to whoever wants it; gives its entry in the outbox, if it has a session."""
    entry = None
    if record.session is not None:
        entry = keep_outcome(connection, record.account, record.session, now, record.task_uuid)
    if webhook is not None:
        record_webhook(connection, record.account, record.task_uuid, webhook, now)
    return entry


def _change(connection: Connection, attempt: Attempt, /, **values: object) -> None:
    _UPDATE.count(connection, {"of": attempt.account, "uuid": attempt.task_uuid, **values})
