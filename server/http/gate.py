"""Who comes in: not from everywhere at once, and no web page that is not allowed to."""

from collections.abc import Callable
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
from server.protocol.errors import ErrorItem, RateLimitError
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

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        fail_for: Callable[[str], Callable[[ErrorItem], Response] | None] = lambda _path: None,
    ) -> None:
        """Stand before an application.

        Args:
            app: it.
            settings: the limits, and whose pages may come in.
            fail_for: what makes an error in the shape of the service that has endpoints at a path; None where
                they are ours.
        """
        self._app = app
        self._settings = settings
        self._fail_for = fail_for

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
                fail = self._fail_for(scope["path"]) if socket is None else None
                refused = refusal(error, fail)
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


def refusal(error: RateLimitError, fail: Callable[[ErrorItem], Response] | None = None) -> Response:
    """An error as the whole answer to a request.

    Args:
        error: why it is refused.
        fail: makes it one of another service.
    """
    item = error.item(None, None, None)
    if fail is not None:
        response = fail(item)
    else:
        response = Response(JSON.errors([item]), error_status(error.code), media_type=JSON.media_type)
    if error.retry_after:
        response.headers["retry-after"] = str(error.retry_after)
    return response
