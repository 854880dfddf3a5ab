"""The handshake of a WebSocket, between HTTP and ASGI."""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

__all__ = ["add_headers", "denial", "respond", "scope_of"]

_VERSION: Final = "13"


def respond(frames: ServerProtocol, request: Request) -> Response:
    """The answer to a request: 101, or why not."""
    response = frames.accept(request)
    versions = request.headers.get_all("Sec-WebSocket-Version")
    if response.status_code == 400 and versions and versions != [_VERSION]:  # RFC 6455 section 4.2.2
        response = frames.reject(426, f"only version {_VERSION} of the WebSocket protocol is spoken\n")
        response.headers["Upgrade"] = "websocket"
        response.headers["Sec-WebSocket-Version"] = _VERSION
    return response


def scope_of(request: Request, root_path: str, **more: Any) -> dict[str, Any]:
    """The ASGI scope of a request (https://asgi.readthedocs.io/en/latest/specs/www.html#websocket).

    Args:
        request: a valid one.
        root_path: what the application's paths begin with.
        more: what is known of the connection.
    """
    raw_path, _, query = request.path.partition("?")
    return {
        "type": "websocket",
        "http_version": "1.1",
        "root_path": root_path,
        "path": root_path + unquote(raw_path),
        "raw_path": f"{root_path}{raw_path}".encode("ascii"),
        "query_string": query.encode("ascii"),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()],
        "subprotocols": [
            token.strip()
            for header in request.headers.get_all("Sec-WebSocket-Protocol")
            for token in header.split(",")
        ],
        **more,
    }


def add_headers(response: Response, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Give a response more headers, in place of those of the same name."""
    for name, value in headers:
        if name.decode("latin-1") in response.headers:
            del response.headers[name.decode("latin-1")]
        response.headers[name.decode("latin-1")] = value.decode("latin-1")


def denial(frames: ServerProtocol, start: dict[str, Any], body: bytes) -> Response:
    """The response that the application refuses a handshake with, by ASGI's `websocket.http.response`."""
    response = frames.reject(start["status"], "")
    add_headers(response, [*start["headers"], (b"Content-Length", str(len(body)).encode())])
    response.body = body
    return response
