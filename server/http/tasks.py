"""`POST /v1`: the same array of tasks as over the socket, all their replies in the response."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.protocol.codec import JSON, MESSAGEPACK, Codec, RawTask
from server.protocol.error_codes import error_status
from server.protocol.errors import (
    AuthenticationError,
    ErrorItem,
    FrameError,
    FrameTooLargeError,
    TaskError,
)
from server.protocol.messages import Authentication
from server.services import Services
from server.state.accounts import AccountId
from server.tasks import Context, as_item, dispatch

__all__ = ["post_tasks"]

_TASKS_AT_ONCE: Final = 64


async def post_tasks(request: Request) -> Response:
    """Run the tasks of the body. `data` holds what succeeded, `errors` what failed.

    The status is 200 if anything succeeded, otherwise that of the first error.
    """
    services: Services = request.app.state.services
    base_url: str = request.app.state.base_url(request)
    codec = MESSAGEPACK if MESSAGEPACK.media_type in request.headers.get("content-type", "") else JSON
    try:
        raws = codec.split(await _body(request, services.settings.max_frame_bytes))
    except (FrameError, FrameTooLargeError) as error:
        services.telemetry.metrics.error_told(error.code)
        return _response(codec, [error.item(None, None, f"{base_url}/docs/errors")])
    try:
        account, raws = await _authenticate(request, raws, services)
    except TaskError as error:
        refused = [as_item(error, raw, base_url, services) for raw in raws]
        return _response(codec, refused or [error.item(None, None, f"{base_url}/docs/errors")])

    room = asyncio.Semaphore(_TASKS_AT_ONCE)

    async def run(raw: RawTask) -> Struct | None:
        context = Context(services=services, account=account, session=None, base_url=base_url, raw=raw)
        async with room:
            return await dispatch(raw, context)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(raw)) for raw in raws]
    return _response(codec, [reply for task in running if (reply := task.result()) is not None])


async def _authenticate(
    request: Request, raws: list[RawTask], services: Services
) -> tuple[AccountId, list[RawTask]]:
    """The account, by the header or the authentication task that comes first, and the other tasks."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if raws and raws[0].task_type == "authentication":
        first = raws[0].parse()
        assert isinstance(first, Authentication)
        key, raws = first.api_key, raws[1:]
    elif scheme.lower() != "bearer" or not key:
        raise AuthenticationError("missingApiKey", "send the header: Authorization: Bearer KEY")
    account = await services.authenticate(key.strip())
    if account is None:
        raise AuthenticationError("invalidApiKey", "the API key is not valid", "apiKey")
    return account, raws


async def _body(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise FrameTooLargeError(limit)
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise FrameError("the body is incomplete") from error
    return b"".join(chunks)


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
