"""Who sent a request in another service's shape, and the tasks that are done for them.

A provider's module says how its requests become tasks and how outcomes become its answers. All else is here:
authentication in every form that clients of these services use, the limits, and that whatever goes wrong
reaches the client as an error of the service that it speaks.
"""

import base64
import binascii
import inspect
import ipaddress
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.delivery.results import ClientResults
from server.handlers import Context, dispatch
from server.handlers.permissions import permit
from server.handlers.upscale import quote
from server.http.answers import results_for
from server.http.gate import client_address
from server.money import to_usd
from server.protocol.codec import MESSAGEPACK
from server.protocol.error_codes import error_status
from server.protocol.errors import (
    AuthenticationError,
    ErrorItem,
    ForbiddenError,
    NotFoundError,
    ParameterError,
    ServerError,
    TaskError,
)
from server.protocol.replies import ImageUploadResult, Progress, UpscaleResult
from server.protocol.requests import Upscale
from server.protocol.sources import StoredImage
from server.protocol.trace import header_parent
from server.services import Services
from server.state import ledger, tasks
from server.state.accounts import AccountId, account_named
from server.state.images import ImageRecord
from server.state.logins import Login
from server.state.records import Status, TaskRecord
from server.state.requests import Service
from server.transport.peers import is_local_user

__all__ = ["Caller", "FailedError", "ServiceRoute", "not_offered", "status_of", "wrong"]

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Struct)
Endpoint = Callable[[Request], Awaitable[Response]]
Fail = Callable[[ErrorItem], Response]


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

    async def upscale(self, *, task_uuid: str | None = None, **task: Any) -> UpscaleResult:
        """The result of an upscale task, once it is done.

        Args:
            task_uuid: of the task; default: a new one.
            task: the parameters of an `upscale` task, as on the wire.

        Raises:
            FailedError: if it is refused or fails.
        """
        named = {**task, "taskType": "upscale", "taskUUID": task_uuid or str(uuid.uuid4())}
        return await self._ask(UpscaleResult, named)

    async def accept(self, **task: Any) -> str:
        """The UUID of an upscale task that is accepted, and done whatever happens to this connection.

        Raises:
            FailedError: if it is refused.
        """
        task_uuid = str(uuid.uuid4())
        await self._ask(
            Struct,
            {**task, "taskType": "upscale", "taskUUID": task_uuid, "deliveryMethod": "async"},
            acknowledge_after=0,
        )
        return task_uuid

    async def quote(self, **task: Any) -> int:
        """What an upscale task would cost, in nanodollars; it is not begun.

        Raises:
            TaskError: if it would be refused.
        """
        context = self._context({**task, "taskType": "upscale", "taskUUID": str(uuid.uuid4())})
        self.services.edge.take_request(self.account)
        parsed = context.raw.parse()
        permit(parsed, self.login, self.services.clock())
        assert isinstance(parsed, Upscale)
        return await quote(parsed, context)

    async def cost(self, record: TaskRecord) -> int:
        """What a task costs, or has cost, in nanodollars; 0 while the size of its input is not known."""
        if record.status is not Status.ACCEPTED:
            return record.charged
        if record.price is not None:
            return record.price
        try:
            request = record.request
            if not isinstance(request.source, StoredImage):
                return 0
            image = await self.services.images.find(self.account, request.source.uuid, self.login.scope)
            if image is None:
                return 0
            return self.services.runner.quote(request, image.width, image.height).price
        except (msgspec.DecodeError, TaskError):  # another version, or other settings, accepted it
            return 0

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
        """
        record = await self.services.database.run(tasks.find, self.account, task_uuid.lower())
        scope = self.login.scope
        if record is None or (scope is not None and not record.is_of(scope)):
            raise NotFoundError("taskNotFound", f"there is no task {task_uuid}", "taskUUID")
        return record

    async def latest(self, limit: int, before: float) -> list[TaskRecord]:
        """The account's tasks in this service's shape: see `tasks.latest`.

        Raises:
            ForbiddenError: if a token asks.
        """
        self.check_account()
        return await self.services.database.run(tasks.latest, self.account, self.service, limit, before)

    async def standing(self, record: TaskRecord) -> UpscaleResult | ErrorItem | Progress:
        """What became of a task, or how far it is."""
        running = self.services.runner.find(record.account, record.task_uuid)
        if running is not None and not running.outcome.done():
            return running.news()
        return await self.services.results.item(record, self.base_url)

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

    async def keep(self, image: str | bytes) -> ImageRecord:
        """Keep an image, whose size is known then.

        Raises:
            FailedError: if it is refused.
        """
        kept = await self.upload(image)
        record = await self.services.images.find(self.account, kept.image_uuid, self.login.scope)
        assert record is not None
        return record

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

    async def _ask(
        self, kind: type[T], task: Mapping[str, Any], *, acknowledge_after: float | None = None
    ) -> T:
        """The reply to a task, taken the same way as one that came over a socket."""
        context = self._context(task, acknowledge_after)
        reply = await dispatch(context.raw, context)
        if isinstance(reply, ErrorItem):
            raise FailedError(reply)
        assert isinstance(reply, kind)
        return reply

    def _context(self, task: Mapping[str, Any], acknowledge_after: float | None = None) -> Context:
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
            acknowledge_after=acknowledge_after,
            service=self.service,
            traceparent=self.traceparent,
        )


Handler = Callable[[Request, Caller], Awaitable[Response]]


class ServiceRoute(Route):
    """One endpoint of a provider, and what `/openapi.json` says of it.

    Attributes:
        summary: what it does.
        body: of a JSON request.
        form: the parts of a form: name and description.
    """

    def __init__(
        self,
        path: str,
        method: str,
        handle: Handler,
        fail: Fail,
        names: Mapping[str, str] | None = None,
        *,
        body: type[Struct] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> None:
        """Route a path to a handler.

        Args:
            path: as Starlette has it.
            method: of HTTP.
            handle: answers a request; its docstring is the summary.
            fail: see `endpoint`.
            names: likewise.
            body: see above.
            form: likewise.
        """
        super().__init__(path, endpoint(handle, fail, names), methods=[method])
        self.provider = _service_of(handle)
        self.operation = handle.__name__
        self.summary = inspect.cleandoc(handle.__doc__ or "").splitlines()[0]
        self.body = body
        self.form = form


def endpoint(
    handle: Handler,
    fail: Fail,
    names: Mapping[str, str] | None = None,
) -> Endpoint:
    """An endpoint of a provider: only for who has a key, and with its own errors.

    Args:
        handle: answers a request.
        fail: an error in the provider's shape.
        names: what the provider calls the parameters of a task, by their names on the wire.
    """
    service = _service_of(handle)

    async def answer(request: Request) -> Response:
        services: Services = request.app.state.services
        documentation = f"{request.app.state.base_url(request)}/docs/errors"
        try:
            return await _handled(request, services, handle, service)
        except FailedError as error:
            item = error.item
        except TaskError as error:
            services.telemetry.metrics.error_sent(error.code)
            item = error.item(None, None, documentation)
        except Exception:
            log.exception("%s failed", request.url.path)
            item = ServerError().item(None, None, documentation)
        response = fail(_renamed(item, names or {}))
        if isinstance(item.retry_after, int):
            response.headers["retry-after"] = str(item.retry_after)
        return response

    return answer


def wrong(name: str, message: str) -> ParameterError:
    """A parameter of a provider's that is missing or has a wrong value."""
    return ParameterError("invalidParameter", message, name)


def not_offered(name: str, message: str) -> ParameterError:
    """A parameter of a provider's, or a value of it, that this server does not offer."""
    return ParameterError("unsupportedParameter", message, name)


def status_of(item: ErrorItem) -> int:
    """The HTTP status of an error."""
    return error_status(item.code)


def _service_of(handle: Handler) -> Service:
    """The service whose module a handler is in."""
    service: Service = msgspec.convert(handle.__module__.rpartition(".")[2], Service)
    return service


async def _handled(request: Request, services: Services, handle: Handler, service: Service) -> Response:
    login = await _login(request, services)
    account = login.account
    services.edge.take_connection(account)
    try:
        base_url, results = request.app.state.base_url(request), results_for(request, account)
        traceparent = header_parent(request.headers.get("traceparent"))
        return await handle(request, Caller(services, login, base_url, service, results, traceparent))
    finally:
        services.edge.account_connections.give_back(account)


def _renamed(item: ErrorItem, names: Mapping[str, str]) -> ErrorItem:
    """The error about the parameter as the client knows it."""
    if not isinstance(item.parameter, str):
        return item
    name = names.get(item.parameter, item.parameter)
    message = item.message.replace(item.parameter, name)
    if name not in message:
        message = f"{name}: {message}"
    return msgspec.structs.replace(item, parameter=name, message=message)


async def _login(request: Request, services: Services) -> Login:
    """What the key opens that came with a request, in whichever header its service has it.

    Raises:
        AuthenticationError: if there is none, or it is wrong.
        RateLimitError: if too many keys from this address were wrong of late.
    """
    keys = list(_keys(request))
    if not keys:
        name = services.settings.keyless_account
        if name is not None and _is_local(request):
            return Login(await services.database.run(account_named, name, services.clock()), None)
        raise AuthenticationError("missingApiKey", "missing authorization header: send the API key")
    origin = request.headers.get("origin")
    for key in keys[:-1]:
        if (login := await services.login(key, origin)) is not None:
            return login
    return await services.authenticate(keys[-1], client_address(request.scope), origin)


def _keys(request: Request) -> list[str]:
    """What may be the key: of Basic authentication either half, the password first."""
    if key := request.headers.get("x-photio-key", "").strip():
        return [key]
    given = request.headers.get("authorization", "").strip()
    scheme, _, rest = given.partition(" ")
    if scheme.lower() == "bearer":
        return [rest.strip()] if rest.strip() else []
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return []
        return [half for half in dict.fromkeys((password, user)) if half]
    return [given] if given else []  # novita-sdk for JavaScript sends the bare key


def _is_local(request: Request) -> bool:
    """Whether a program of this machine asks: no web page, no proxy, and by a name that only it has."""
    if any(
        name in request.headers for name in ("origin", "x-forwarded-for", "x-real-ip", "forwarded", "via")
    ):
        return False
    return all(_is_loopback(host) for host in (client_address(request.scope), request.url.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or is_local_user(host)
