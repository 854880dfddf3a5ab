"""Who comes in: not from everywhere at once, and no web page that is not allowed to."""

from collections.abc import Collection
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from server.limits.edge import Edge
from server.protocol.codec import JSON
from server.protocol.error_codes import error_status
from server.protocol.errors import RateLimitError

__all__ = ["Gate", "client_address", "refusal"]

_ANY: Final = "*"


class Gate:
    """ASGI middleware that counts requests and connections by address, and checks the origin of WebSockets.

    Who is refused is refused before anything is read: WebSockets at the handshake. (Browsers learn by CORS
    what pages may do by HTTP; WebSockets are not subject to it: RFC 6455 section 10.2.)
    """

    def __init__(self, app: ASGIApp, allowed_origins: Collection[str]) -> None:
        self._app = app
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] == "websocket" and not self._origin_is_allowed(HTTPConnection(scope)):
            answer: Response = PlainTextResponse("pages of this origin may not connect\n", 403)
            await WebSocket(scope, receive, send).send_denial_response(answer)
            return
        edge: Edge = scope["app"].state.services.edge
        try:
            with edge.connection_from(client_address(scope)):
                await self._app(scope, receive, send)
        except RateLimitError as error:
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(refusal(error))
            else:
                await refusal(error)(scope, receive, send)

    def _origin_is_allowed(self, connection: HTTPConnection) -> bool:
        """Whether a page of the server's own, of an allowed origin, or no page asks."""
        origin = connection.headers.get("origin")
        if origin is None or _ANY in self._allowed_origins or origin in self._allowed_origins:
            return True
        scheme = "https" if connection.url.scheme == "wss" else "http"
        return origin == f"{scheme}://{connection.url.netloc}"


def client_address(scope: Scope) -> str:
    """The client's address; of one behind a trusted proxy its own."""
    client = scope.get("client")
    return client[0] if client else ""


def refusal(error: RateLimitError) -> Response:
    """An error as the whole answer to a request."""
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
    return Response(
        JSON.errors([error.item(None, None, None)]), error_status(error.code), headers, JSON.media_type
    )
