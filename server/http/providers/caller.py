"""Who sent a request in another service's shape, and the tasks that are done for them."""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from engines import OutputFormat, Picture, encode
from server.delivery.results import ClientResults
from server.handlers import Context, dispatch
from server.handlers.permissions import permit
from server.handlers.preparation import Prepared, prepare
from server.handlers.upscale import finish
from server.images.store import ImageFile
from server.money import to_usd
from server.protocol.codec import MESSAGEPACK
from server.protocol.error_codes import error_status
from server.protocol.errors import ErrorItem, ForbiddenError, NotFoundError, ParameterError
from server.protocol.fields import is_uuid
from server.protocol.replies import ImageUploadResult, Progress, UpscaleResult
from server.protocol.requests import Upscale
from server.protocol.sources import read_source
from server.services import Services
from server.state import ledger, tasks
from server.state.accounts import AccountId
from server.state.images import ImageRecord
from server.state.logins import Login
from server.state.records import Status, TaskRecord
from server.state.requests import Service

__all__ = ["Caller", "FailedError", "not_offered", "status_of", "wrong"]

T = TypeVar("T", bound=Struct)
_LINGER: Final = 2.0
"""Seconds: far less than clients wait for an answer, and enough for most results."""
_NEAR: Final = 8
"""The place in line up to which a task's turn is near: who asks for a hundred must not wait for each."""


class FailedError(Exception):
    """A task failed; `item` is the error as the task server words it."""

    def __init__(self, item: ErrorItem) -> None:
        super().__init__(item.message)
        self.item = item


@dataclass(frozen=True, slots=True)
class Caller:
    """The account that sent a request, and what the server does for it."""

    services: Services
    login: Login
    base_url: str
    service: Service
    results: ClientResults
    traceparent: str | None = None

    @property
    def account(self) -> AccountId:
        """Whose key, or token, it is."""
        return self.login.account

    @property
    def owner(self) -> str:
        """What whoever made a task or an image is called: with a token nobody learns the account."""
        return self.login.owner

    def check_account(self) -> None:
        """See that the account may be seen.

        Raises:
            ForbiddenError: if a token asks.
        """
        if self.login.grant is not None:
            raise ForbiddenError("tokenScopeApiKey", "a token does not see the account: use a key")

    async def upscale(self, **task: Any) -> UpscaleResult:
        """The result of an upscale task, once it is done.

        Args:
            task: the parameters of an `upscale` task, as on the wire.

        Raises:
            TaskError, FailedError: if it is refused or fails.
        """
        return await self.result(await self.prepare(**task))

    async def accept(self, *, look_now: bool = False, **task: Any) -> str:
        """The UUID of an upscale task that is accepted, and done whatever happens to this connection.

        Raises:
            TaskError: if it is refused.
        """
        prepared = await self.prepare(look_now=look_now, deliveryMethod="async", **task)
        await finish(prepared)
        return prepared.request.task_uuid

    async def prepare(self, *, look_now: bool = False, is_wanted: bool = True, **task: Any) -> Prepared:
        """An upscale task that is checked, but not begun; see `server.handlers.preparation.prepare`.

        Raises:
            TaskError: if it would be refused, other than for want of credit.
        """
        context = self._context({**task, "taskType": "upscale", "taskUUID": str(uuid.uuid4())})
        self.services.edge.take_request(self.account)
        parsed = context.raw.parse()
        permit(parsed, self.login, self.services.clock())
        assert isinstance(parsed, Upscale)
        return await prepare(parsed, context, look_now=look_now, is_wanted=is_wanted)

    async def prepare_whole(self, **task: Any) -> tuple[Prepared, int, int]:
        """A task whose input is decoded to its end; the bytes that the input has in memory; the price.

        Raises:
            TaskError: if it would be refused, other than for want of credit, or its input is broken.
        """
        prepared = await self.prepare(look_now=True, **task)
        assert prepared.file is not None
        assert prepared.quote is not None
        await self._decoded(prepared.file)
        size = len(prepared.file.data) if isinstance(prepared.file, ImageFile) else 0
        return prepared, size, prepared.quote.price

    async def result(self, prepared: Prepared) -> UpscaleResult:
        """The result of a task that was prepared, once it is done.

        Raises:
            TaskError, FailedError: if it is refused or fails.
        """
        reply = await finish(prepared)
        if isinstance(reply, ErrorItem):
            raise FailedError(reply)
        assert isinstance(reply, UpscaleResult)
        return reply

    async def check_payable(self, price: int) -> None:
        """See that the account can pay a price, in nanodollars.

        Raises:
            InsufficientCreditsError: if it cannot.
        """
        grant = self.login.grant
        token = None if grant is None else grant.token
        await self.services.database.run(tasks.check_payable, self.account, str(uuid.uuid4()), price, token)

    async def quote(self, **task: Any) -> int:
        """What an upscale task would cost, in nanodollars; it is not begun.

        Raises:
            TaskError: if it would be refused.
        """
        prepared = await self.prepare(look_now=True, is_wanted=False, **task)
        assert prepared.quote is not None
        return prepared.quote.price

    @staticmethod
    def cost(record: TaskRecord) -> int:
        """What a task costs, or has cost, in nanodollars; 0 while the size of its input is not known."""
        return (record.price or 0) if record.status is Status.ACCEPTED else record.charged

    async def linger(self, task_uuid: str) -> None:
        """Give a task whose turn has come, or is near, a moment to end: its client need not ask again then.

        Not if the account has so many connections that it might miss the one that waits.
        """
        running = self.services.runner.find(self.account, task_uuid)
        if running is None or (running.queue_position or 0) > _NEAR:
            return
        places = self.services.edge.account_connections
        if places.room(self.account) > places.limit // 2:
            await asyncio.wait([running.outcome], timeout=_LINGER)

    async def response(self, task_uuid: str) -> UpscaleResult | Progress:
        """What became of a task, or how far it is.

        Raises:
            FailedError: if it failed, or there is none.
        """
        reply = await self._ask(Struct, {"taskType": "getResponse", "taskUUID": task_uuid})
        assert isinstance(reply, UpscaleResult | Progress)
        return reply

    async def record(self, task_uuid: str) -> TaskRecord:
        """A task as recorded.

        Raises:
            NotFoundError: if there is none.
            RateLimitError: if the account has asked for too much of late.
        """
        self.services.edge.take_request(self.account)
        record, scope = None, self.login.scope
        if is_uuid(task_uuid):  # PostgreSQL takes no NUL
            record = await self.services.database.run(tasks.look, self.account, task_uuid.lower())
        if record is None or (scope is not None and not record.is_of(scope)):
            raise NotFoundError("taskNotFound", f"there is no task {task_uuid[:64]}", "taskUUID")
        return record

    async def latest(self, limit: int, before: float) -> list[TaskRecord]:
        """The account's tasks in this service's shape: see `tasks.latest`.

        Raises:
            ForbiddenError: if a token asks.
        """
        self.check_account()
        return await self.services.database.run(tasks.latest, self.account, self.service, limit, before)

    async def standing(self, record: TaskRecord) -> UpscaleResult | ErrorItem | Progress:
        """What became of a task, or how far it is; the image by its URL."""
        running = self.services.runner.find(record.account, record.task_uuid)
        if running is not None and not running.outcome.done():
            return running.news()
        return await self.services.results.item(record, self.base_url, by_url="this is about the task alone")

    async def cancel(self, task_uuid: str) -> None:
        """Stop a task.

        Raises:
            FailedError: if none of this UUID is under way.
        """
        task = {"taskType": "cancel", "taskUUID": str(uuid.uuid4()), "targetTaskUUID": task_uuid}
        await self._ask(Struct, task)

    async def upload(self, image: str | bytes) -> ImageUploadResult:
        """Keep an image.

        Raises:
            FailedError: if it is refused.
        """
        task = {"taskType": "imageUpload", "taskUUID": str(uuid.uuid4()), "image": image}
        return await self._ask(ImageUploadResult, task)

    async def size_of(self, image: bytes) -> tuple[int, int]:
        """How many pixels wide and high an image is, which is not kept.

        Raises:
            TaskError: naming `inputImage`, if it is none.
        """
        file = await self.services.inputs.inspect(self.account, image, "inputImage")
        return file.width, file.height

    async def as_png(self, image: str) -> bytes:
        """An image that nothing is done to, as PNG: that is no task, and costs nothing.

        Raises:
            TaskError: naming `inputImage`, if it is refused.
        """
        inputs, parameter = self.services.inputs, "inputImage"
        self.services.edge.take_request(self.account)
        source = await read_source(Raw(msgspec.msgpack.encode(image)), parameter, MESSAGEPACK)
        source = await inputs.own(self.login, source, self.base_url, parameter)
        picture = await self._decoded(await inputs.look(self.account, source, parameter, self.login.scope))
        return await asyncio.to_thread(encode, picture, OutputFormat.PNG)

    async def _decoded(self, image: ImageFile | ImageRecord) -> Picture:
        """The pixels of an input."""
        inputs, parameter = self.services.inputs, "inputImage"
        data = image.data if isinstance(image, ImageFile) else await inputs.read(image, parameter)
        return await inputs.decode(self.account, data, parameter)

    async def available(self) -> Decimal | None:
        """What the account can spend, in USD; None if it has no limit.

        Raises:
            ForbiddenError: if a token asks.
        """
        self.check_account()
        found = await self.services.database.run(ledger.statement, self.account)
        return None if found.available is None else to_usd(found.available)

    @staticmethod
    def share(item: Progress) -> float:
        """How much of a task is done, from 0 to 1."""
        return item.progress / 100

    async def _ask(self, kind: type[T], task: Mapping[str, Any]) -> T:
        """The reply to a task, taken the same way as one that came over a socket."""
        context = self._context(task)
        reply = await dispatch(context.raw, context)
        if isinstance(reply, ErrorItem):
            raise FailedError(reply)
        assert isinstance(reply, kind)
        return reply

    def _context(self, task: Mapping[str, Any]) -> Context:
        """What a handler knows of a task, as of one that came over a socket; None is as not given."""
        given = {name: value for name, value in task.items() if value is not None}
        (raw,) = MESSAGEPACK.split(msgspec.msgpack.encode([given]))
        return Context(
            services=self.services,
            login=self.login,
            session=None,
            base_url=self.base_url,
            raw=raw,
            results=self.results,
            acknowledge_after=0,
            service=self.service,
            traceparent=self.traceparent,
        )


def wrong(name: str, message: str) -> ParameterError:
    """A parameter of a provider's that is missing or has a wrong value."""
    return ParameterError("invalidParameter", message, name)


def not_offered(name: str, message: str) -> ParameterError:
    """A parameter of a provider's, or a value of it, that this server does not offer."""
    return ParameterError("unsupportedParameter", message, name)


def status_of(item: ErrorItem) -> int:
    """The HTTP status of an error."""
    return error_status(item.code)
