"""`POST /v1`: the same array of tasks as over the socket, all their replies in the response."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.handlers import Context, as_item, dispatch
from server.http.answers import results_for
from server.http.gate import HOLDING, client_address
from server.limits.edge import FIRST_FRAME_BYTES
from server.limits.memory import Memory
from server.protocol.codec import JSON, MESSAGEPACK, Codec, RawTask
from server.protocol.error_codes import error_status
from server.protocol.errors import (
    AuthenticationError,
    BodyTimeoutError,
    ErrorItem,
    FrameError,
    FrameTooLargeError,
    TaskError,
    UnavailableError,
)
from server.protocol.requests import Authentication
from server.protocol.trace import header_parent
from server.services import Services
from server.settings import Settings
from server.state.accounts import AccountId
from server.state.logins import Login

__all__ = ["Credentials", "error_response", "login_by_header", "post_tasks", "read_body", "receive_body"]

_TASKS_AT_ONCE: Final = 64


async def post_tasks(request: Request) -> Response:
    """Run the tasks of the body. `data` holds what succeeded, `errors` what failed.

    The status is 200 if anything succeeded, otherwise that of the first error.
    """
    services: Services = request.app.state.services
    base_url: str = request.app.state.base_url(request)
    codec = MESSAGEPACK if MESSAGEPACK.media_type in request.headers.get("content-type", "") else JSON
    raws: list[RawTask] = []
    try:
        given = await login_by_header(request, services)
        login = None if given is None else given.login
        raws = list(codec.split(await _whole_body(request, services.settings, login)))
        if login is None or (raws and raws[0].task_type == "authentication"):
            login = await _by_task(raws, request, services)
            request.scope[HOLDING].give_to(login.account)
            raws = raws[1:]
        services.edge.take_connection(login.account)
    except TaskError as error:
        if not raws:
            return error_response(codec, error, request)
        return _response(codec, [as_item(error, raw, base_url, services) for raw in raws])
    try:
        return _response(codec, await _run_all(raws, login, request, services))
    finally:
        services.edge.account_connections.give_back(login.account)


async def _run_all(
    raws: Sequence[RawTask], login: Login, request: Request, services: Services
) -> list[Struct]:
    """The replies to the tasks, in their order."""
    room = asyncio.Semaphore(_TASKS_AT_ONCE)
    base_url, results = request.app.state.base_url(request), results_for(request, login.account)
    traceparent = header_parent(request.headers.get("traceparent"))

    async def run(raw: RawTask) -> Struct | None:
        context = Context(
            services=services,
            login=login,
            session=None,
            base_url=base_url,
            raw=raw,
            results=results,
            traceparent=traceparent,
        )
        return await dispatch(raw, context)

    running = []
    async with asyncio.TaskGroup() as group:
        for raw in raws:
            await room.acquire()
            task = group.create_task(run(raw))
            task.add_done_callback(lambda _: room.release())
            running.append(task)
    return [reply for task in running if (reply := task.result()) is not None]


def error_response(codec: Codec, error: TaskError, request: Request) -> Response:
    """The answer to a request that is refused as a whole."""
    state = request.app.state
    state.services.telemetry.metrics.error_sent(error.code)
    return _response(codec, [error.item(None, None, f"{state.base_url(request)}/docs/errors")])


class Credentials(NamedTuple):
    """A key or a token, and what it opens."""

    secret: str
    login: Login


async def login_by_header(request: Request, services: Services) -> Credentials | None:
    """The key in the header and what it opens; None if there is no header. Checked before the body is read.

    Raises:
        AuthenticationError: if the key is wrong.
        RateLimitError: if too many keys from this address were wrong of late.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        return None
    secret, origin = key.strip(), request.headers.get("origin")
    return Credentials(secret, await services.authenticate(secret, client_address(request.scope), origin))


async def _by_task(raws: Sequence[RawTask], request: Request, services: Services) -> Login:
    """What the key in the authentication task that comes first opens."""
    first = raws[0].parse() if raws and raws[0].task_type == "authentication" else None
    if not isinstance(first, Authentication):
        raise AuthenticationError("missingApiKey", "send the header: Authorization: Bearer KEY")
    return await services.authenticate(
        first.api_key.strip(),
        client_address(request.scope),
        request.headers.get("origin"),
        first.previous_api_key,
    )


async def _whole_body(request: Request, settings: Settings, login: Login | None) -> bytes:
    account = None if login is None else login.account
    return await read_body(request, settings, authenticated=login is not None, account=account)


async def read_body(
    request: Request, settings: Settings, *, authenticated: bool, account: AccountId | None = None
) -> bytes:
    """The body as a whole; see `receive_body`."""
    body = bytearray()
    await receive_body(request, settings, body.extend, authenticated=authenticated, account=account)
    return bytes(body)


async def receive_body(
    request: Request,
    settings: Settings,
    take: Callable[[bytes], object],
    *,
    authenticated: bool,
    account: AccountId | None = None,
) -> None:
    """Receive the body. Of one that may hold the key only little is read, and for a short time.

    Args:
        request: whose body it is; it counts as incoming until the request is answered.
        settings: with the limits.
        take: called with each piece.
        authenticated: whether the key came in the header.
        account: whose it is, if that is known.

    Raises:
        UnavailableError: if this is the largest of too many bodies.
        FrameTooLargeError, BodyTimeoutError: if it is too much, or too slow.
        FrameError: if the client went away before its end.
    """
    limit, patience = settings.max_frame_bytes, settings.body_timeout
    if not authenticated:
        limit, patience = min(limit, FIRST_FRAME_BYTES), settings.auth_timeout
    if int(request.headers.get("content-length", 0)) > limit:
        raise FrameTooLargeError(limit)
    received = 0
    room = asyncio.Event()
    refused = False

    def refuse() -> None:
        nonlocal refused
        refused = True
        deadline.reschedule(asyncio.get_running_loop().time())

    memory: Memory = request.app.state.memory
    owner = memory.owner_of(client_address(request.scope)) if account is None else account
    holding = request.scope[HOLDING] = memory.incoming.holding(owner, refuse, room.set)
    try:
        async with asyncio.timeout(patience) as deadline:
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise FrameTooLargeError(limit)
                take(chunk)
                if not holding.add(len(chunk)):
                    await room.wait()
                    room.clear()
    except TimeoutError as error:
        if refused:
            raise UnavailableError("the server holds too much of what is being sent") from error
        raise BodyTimeoutError(patience) from error
    except ClientDisconnect as error:
        raise FrameError("the body is incomplete") from error


def _response(codec: Codec, replies: Sequence[Struct]) -> Response:
    errors = [reply for reply in replies if isinstance(reply, ErrorItem)]
    data = [reply for reply in replies if not isinstance(reply, ErrorItem)]
    body: dict[str, Any] = {"data": data} if data or not errors else {}
    if errors:
        body["errors"] = errors
    status = 200 if "data" in body else error_status(errors[0].code)
    headers = {}
    if status != 200 and isinstance(errors[0].retry_after, int):
        headers["retry-after"] = str(errors[0].retry_after)
    return Response(codec.encode(body), status, headers, codec.media_type)
