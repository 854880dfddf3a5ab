"""`GET /images/NAME`: uploads and results, to whoever knows the name."""

import logging
import re
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from server.images.store import MEDIA_TYPES, ImageStore
from server.protocol.errors import UnavailableError
from server.services import Services

__all__ = ["get_image"]

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[\w-]{22}\.([a-z]{3,4})")
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_CHUNK: Final = 2**20
"""Bytes that are read at once: few requests to a distant store, and little memory for a slow reader."""


async def get_image(request: Request) -> Response:
    """The image, or the range of it that is asked for (one range, RFC 9110 section 14)."""
    services: Services = request.app.state.services
    name = request.path_params["name"]
    match = _NAME.fullmatch(name)
    record = await services.images.find_named(name) if match else None
    if match is None or record is None:
        return _not_found()
    etag = f'"{name}"'
    headers = {
        "accept-ranges": "bytes",
        "cache-control": f"private, max-age={max(0, int(record.expires - services.clock()))}, immutable",
        "etag": etag,
        "x-content-type-options": "nosniff",
    }
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or etag in known:  # one of a list, weak or strong
        return Response(status_code=304, headers=headers)
    unchanged = request.headers.get("if-range", etag) == etag
    asked = request.headers.get("range") if unchanged and request.method == "GET" else None
    try:
        start, stop = _range(asked, record.size)
    except IndexError:
        return Response(status_code=416, headers={"content-range": f"bytes */{record.size}"})
    partial = stop - start < record.size
    if partial:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{record.size}"
    headers["content-length"] = str(stop - start)
    status, media_type = 206 if partial else 200, MEDIA_TYPES.get(match[1], "application/octet-stream")
    try:
        if request.method == "HEAD":
            await services.images.look(name)
            return Response(status_code=status, headers=headers, media_type=media_type)
        first = await services.images.read_part(name, start, min(_CHUNK, stop - start))
    except FileNotFoundError:
        return _not_found()
    return _Download(_chunks(services.images, name, first, start, stop), status, headers, media_type)


def _not_found() -> Response:
    return Response("there is no such image, or no more\n", 404, media_type="text/plain")


class _Download(StreamingResponse):
    """An image on its way. A failure that comes too late for the status ends the connection early."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except (FileNotFoundError, UnavailableError):
            # uvicorn closes a connection whose response is not completed: the client sees that it is cut off.
            log.warning("an image could not be sent to its end")


async def _chunks(images: ImageStore, name: str, chunk: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
    """The bytes from `start` to `stop`, of which `chunk` is the first part.

    The next is read when the client has taken enough of those before.
    """
    while True:
        yield chunk
        start += len(chunk)
        if start >= stop:
            return
        chunk = await images.read_part(name, start, min(_CHUNK, stop - start))


def _range(header: str | None, size: int) -> tuple[int, int]:
    """The first byte and the one after the last; all of them if no single range is asked for.

    Raises:
        IndexError: if the range begins behind the end, or is empty.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[0] == "bytes=-":
        return 0, size
    first, last = match[1], match[2]
    if first:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    else:
        start, stop = max(0, size - int(last)), size
    if start >= size or start >= stop:
        raise IndexError
    return start, stop
