"""Who comes in: not from everywhere at once, and no web page that is not allowed to."""

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from server.http.hosts import is_own_host
from server.limits.edge import Edge
from server.protocol.codec import JSON
from server.protocol.error_codes import error_status
from server.protocol.errors import RateLimitError
from server.settings import Settings

__all__ = ["ANSWER", "HOLDING", "Cors", "Gate", "client_address", "refusal"]

HOLDING: Final = "tilewire.holding"
"""Where a scope has what the body of the request takes of the budget, until it is answered."""

ANSWER: Final = "tilewire.answer"
"""Where it has what the images in its answer take, until that is written."""

_ANY: Final = "*"
_METRICS: Final = "/metrics"


class Cors(CORSMiddleware):
    """Tells browsers which pages may read what: of the metrics none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await (self.app if scope.get("path") == _METRICS else super().__call__)(scope, receive, send)


class Gate:
    """ASGI middleware that counts requests and connections by address, and checks origins.

    Who is refused is refused before anything is read. Browsers ask by CORS before most of what pages do by
    HTTP; but not before a POST that is simple enough, nor before a WebSocket (RFC 6455 section 10.2): these
    are checked here.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        socket = WebSocket(scope, receive, send) if scope["type"] == "websocket" else None
        refused: Response | None = None
        if (socket or scope["method"] == "POST") and not self._origin_is_allowed(HTTPConnection(scope)):
            refused = PlainTextResponse("pages of this origin may not use the server\n", 403)
        else:
            edge: Edge = scope["app"].state.services.edge
            try:
                with edge.connection_from(client_address(scope)):
                    await self._app(scope, receive, send)
            except RateLimitError as error:
                refused = refusal(error)
            finally:
                for held in (HOLDING, ANSWER):
                    if (holding := scope.get(held)) is not None:
                        holding.release()
        if refused is not None and socket is not None:
            await socket.send_denial_response(refused)
        elif refused is not None:
            await refused(scope, receive, send)

    def _origin_is_allowed(self, connection: HTTPConnection) -> bool:
        """Whether a page of the server's own, of an allowed origin, or no page asks."""
        origin, allowed = connection.headers.get("origin"), self._settings.allowed_origins
        if origin is None or _ANY in allowed or origin in allowed:
            return True
        scheme = "https" if connection.url.scheme in ("https", "wss") else "http"
        host = connection.url.netloc
        return origin == f"{scheme}://{host}" and is_own_host(host, self._settings)


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
