"""`GET /images/NAME`: uploads and results, to whoever knows the name."""

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from server.images import MEDIA_TYPES
from server.services import Services

__all__ = ["get_image"]

_NAME: Final = re.compile(r"[\w-]{22}\.([a-z]{3,4})")
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


async def get_image(request: Request) -> Response:
    """The image, or the range of it that is asked for (one range, RFC 9110 section 14)."""
    services: Services = request.app.state.services
    name = request.path_params["name"]
    match = _NAME.fullmatch(name)
    record = await services.images.find_named(name) if match else None
    if match is None or record is None:
        return Response("there is no such image, or no more\n", 404, media_type="text/plain")
    headers = {
        "accept-ranges": "bytes",
        "cache-control": f"private, max-age={max(0, int(record.expires - services.clock()))}, immutable",
        "etag": f'"{name}"',
        "x-content-type-options": "nosniff",
    }
    media_type = MEDIA_TYPES.get(match[1], "application/octet-stream")
    if headers["etag"] in request.headers.get("if-none-match", ""):  # one of a list, weak or strong
        return Response(status_code=304, headers=headers)
    try:
        start, stop = _range(request.headers.get("range"), record.size)
    except IndexError:
        return Response(status_code=416, headers={"content-range": f"bytes */{record.size}"})
    partial = stop - start < record.size
    if partial:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{record.size}"
    status = 206 if partial else 200
    if request.method == "HEAD":
        headers["content-length"] = str(stop - start)
        return Response(status_code=status, headers=headers, media_type=media_type)
    try:
        body = await services.images.read(name, start, stop - start)
    except FileNotFoundError:
        return Response("the image is gone\n", 404, media_type="text/plain")
    return Response(body, status, headers=headers, media_type=media_type)


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
