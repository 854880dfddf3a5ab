"""What is recorded of a task: the request that it was accepted with, its attempt, and how it ended."""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple, NewType

import msgspec
from msgspec import Struct, structs

from server.protocol.errors import ErrorItem, ServerError
from server.protocol.raw_image import Channels
from server.state.accounts import AccountId
from server.state.claims import ServerId
from server.state.outbox import UndeliveredReply
from server.state.requests import Service, TaskGrant, UpscaleRequest
from server.state.tables import tasks

__all__ = [
    "COLUMNS",
    "Attempt",
    "AttemptId",
    "Safety",
    "Status",
    "StoredResult",
    "TaskRecord",
    "record_of",
    "unreadable",
]

log = logging.getLogger(__name__)

AttemptId = NewType("AttemptId", str)


class Status(StrEnum):
    """Where a task stands."""

    ACCEPTED = "accepted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Attempt(NamedTuple):
    """One try at a task. It begins anew, with another `id`, when it is sent again or taken over.

    Attributes:
        task_uuid: in lower case.
    """

    account: AccountId
    task_uuid: str
    id: AttemptId

    @classmethod
    def of(cls, account: AccountId, task_uuid: str) -> "Attempt":
        """A new attempt at a task."""
        return cls(account, task_uuid.lower(), AttemptId(uuid.uuid4().hex))


class Safety(Struct, frozen=True):
    """What was found of what is not safe for work: scores from 0 to 1, and whether one is too large."""

    input: float
    result: float
    flagged: bool


class StoredResult(Struct, frozen=True, omit_defaults=True):
    """What a finished upscale is rebuilt from: the image is in the store. `cost` in nanodollars.

    Of raw pixels that were not stored there is no UUID and no name. `channels`, of each pixel, is set where
    the client gets the pixels of the result. `size` is in bytes: of those pixels, or else of the file.
    """

    image_uuid: str = ""
    image_name: str = ""
    input_image_uuid: str = ""
    cost: int = 0
    channels: Channels | None = None
    size: int = 0
    safety: Safety | None = None


@dataclass(frozen=True)
class TaskRecord:
    """A task as recorded.

    Attributes:
        attempt: the one that is under way, or that gave the task its outcome.
        encoded_request: the request, in JSON.
        session: where the outcome is to be sent.
        result: if it succeeded. One that is about to be uploaded is there before the task has an outcome.
        error: if it failed; beside a result, why the result could not be uploaded.
        price: what the task costs, in nanodollars; None before that is known, and if it failed.
        due: what it owes of that, whatever becomes of it: that part of the result has left the server.
        charged: what it was charged by the attempts that have ended.
        spent: of that, by the one that has just ended; only whoever ended it knows.
        owner: the server that runs it.
        created: when it was accepted, in seconds since the epoch.
        finished: when it had its outcome.
        service: in whose shape it came.
        waiting: the entry of the outbox by which the outcome waits for its session, where it has just been
            recorded.
    """

    attempt: Attempt
    encoded_request: bytes
    session: str | None
    status: Status
    result: StoredResult | None = None
    error: ErrorItem | None = None
    price: int | None = None
    due: int = 0
    charged: int = 0
    spent: int = field(default=0, compare=False)
    owner: ServerId | None = None
    created: float = 0.0
    finished: float | None = None
    service: Service = "runware"
    waiting: UndeliveredReply | None = field(default=None, compare=False)

    @property
    def reserved(self) -> int:
        """What is set aside for the attempt, while it is under way."""
        return 0 if self.price is None else self.price - self.charged

    @property
    def owed(self) -> int:
        """What the attempt owes of that, should it end now."""
        return 0 if self.price is None else max(self.due - self.charged, 0)

    @property
    def account(self) -> AccountId:
        """Whose task it is."""
        return self.attempt.account

    @property
    def task_uuid(self) -> str:
        """The task's UUID in lower case; the request has it as the client spelt it."""
        return self.attempt.task_uuid

    @cached_property
    def request(self) -> UpscaleRequest:
        """What the client asked for; decoded once, when it is first needed.

        Raises:
            DecodeError: if another version of the server accepted it, and this one cannot read it.
        """
        return msgspec.json.decode(self.encoded_request, type=UpscaleRequest)

    @cached_property
    def readable_request(self) -> UpscaleRequest | None:
        """`request`; None if this version cannot read it."""
        try:
            return self.request
        except msgspec.DecodeError:
            return None

    @property
    def token(self) -> str | None:
        """The id of the token that the task came with, if that can be read."""
        return None if self.readable_request is None else self.readable_request.token

    def is_of(self, scope: str) -> bool:
        """Whether it came with a token of this scope."""
        return self.readable_request is not None and self.readable_request.scope == scope

    @property
    def traceparent(self) -> str | None:
        """The span that the task came from, if that can be read."""
        return None if self.readable_request is None else self.readable_request.traceparent

    def is_for(self, encoded_request: bytes) -> bool:
        """Whether the task was accepted with this request, however its UUID is spelt and it is traced.

        Of a token's task: within the scope of that token.
        """
        if encoded_request == self.encoded_request:
            return True
        try:
            return _comparable(self.request) == _comparable(
                msgspec.json.decode(encoded_request, type=UpscaleRequest)
            )
        except msgspec.DecodeError:
            return False


COLUMNS = (
    tasks.c.account_id,
    tasks.c.task_uuid,
    tasks.c.attempt,
    tasks.c.request,
    tasks.c.session,
    tasks.c.status,
    tasks.c.result,
    tasks.c.error,
    tasks.c.price,
    tasks.c.due,
    tasks.c.charged,
    tasks.c.owner,
    tasks.c.created,
    tasks.c.finished,
    tasks.c.service,
)
"""What `record_of` needs."""


def record_of(row: Sequence[Any]) -> TaskRecord:
    """The record that a row of `COLUMNS` holds."""
    account, task_uuid, attempt, request, session, status, result, error, *money, owner = row[:12]
    price, due, charged = money
    created, finished, service = row[12:]
    outcome, failure = _outcome_of(task_uuid, Status(status), result, error)
    return TaskRecord(
        attempt=Attempt(AccountId(account), task_uuid, AttemptId(attempt or "")),
        encoded_request=request,
        session=session,
        status=Status(status),
        result=outcome,
        error=failure,
        price=price,
        due=due,
        charged=charged,
        owner=None if owner is None else ServerId(owner),
        created=created,
        finished=finished,
        service=service or "runware",
    )


def _outcome_of(
    task_uuid: str, status: Status, result: bytes | None, error: bytes | None
) -> tuple[StoredResult | None, ErrorItem | None]:
    """How a task ended; one that cannot be read is an error, and stands in nobody's way."""
    try:
        return (
            None if result is None else msgspec.json.decode(result, type=StoredResult),
            None if error is None else msgspec.json.decode(error, type=ErrorItem),
        )
    except msgspec.DecodeError:
        log.exception("the outcome of task %s cannot be read", task_uuid)
        return None, None if status is Status.ACCEPTED else unreadable(task_uuid)


def unreadable(task_uuid: str) -> ErrorItem:
    """What a client gets of a task whose record cannot be read."""
    return ServerError("what is recorded of the task cannot be read").item(None, task_uuid, None)


def _comparable(request: UpscaleRequest) -> UpscaleRequest:
    """All that makes a request another one: its key or token may be a new one by now, its span another."""
    grant = None if request.grant is None else TaskGrant(request.grant.scope)
    return structs.replace(
        request, task_uuid=request.task_uuid.lower(), grant=grant, key=None, traceparent=None
    )
