"""The ASGI application: which path leads where."""

from collections import defaultdict

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from server.connection import Connection
from server.http.client_module import get_client, get_client_types
from server.http.docs import get_docs, get_docs_index, get_docs_script, get_docs_start, get_docs_style
from server.http.gate import Cors, Gate, client_address, refusal
from server.http.images import get_image
from server.http.metrics import get_metrics
from server.http.pages import get_health, get_readiness
from server.http.providers import FALLBACKS, fail_for
from server.http.providers import ROUTES as PROVIDERS
from server.http.specs import get_asyncapi, get_asyncapi_of_client, get_openapi, get_schema
from server.http.tasks import post_tasks
from server.http.tokens import post_token
from server.http.web import Page
from server.protocol.errors import DatabaseUnavailableError, RateLimitError, UnavailableError
from server.settings import Settings
from server.transport.peers import is_local_user

__all__ = ["create_app"]


def create_app(settings: Settings) -> Starlette:
    """The server as an ASGI application.

    Whoever runs it puts the running services into `state.services`, and into `state.stopping` a function
    that returns whether they are about to stop.
    """
    page = Page(settings)
    app = Starlette(
        routes=[
            WebSocketRoute("/", _serve_socket),
            WebSocketRoute("/v1", _serve_socket),
            Route("/", page.get_index),
            Route("/web/{digest}/{name:path}", page.get_file),
            Route("/client.js", get_client),
            Route("/client.d.ts", get_client_types),
            Route("/manifest.webmanifest", page.get_app_file),
            Route("/service-worker.js", page.get_app_file),
            Route("/", post_tasks, methods=["POST"]),
            Route("/v1", post_tasks, methods=["POST"]),
            Route("/v1/tokens", post_token, methods=["POST"]),
            Route("/images/{name}", get_image, methods=["GET", "HEAD"]),
            *PROVIDERS,
            *FALLBACKS,
            Route("/healthz", get_health),
            Route("/readyz", get_readiness),
            Route("/metrics", get_metrics),
            Route("/docs", get_docs_start),
            Route("/docs/docs.css", get_docs_style),
            Route("/docs/docs.js", get_docs_script),
            Route("/docs/search.json", get_docs_index),
            Route("/docs/{page}", get_docs),
            Route("/openapi.json", get_openapi),
            Route("/asyncapi.json", get_asyncapi),
            Route("/asyncapi-client.json", get_asyncapi_of_client),
            Route("/schemas/{name}.json", get_schema),
        ],
        exception_handlers={
            UnavailableError: _say_unavailable,
            DatabaseUnavailableError: _say_unavailable,
        },
        middleware=[
            # Keys come in headers and messages, never in cookies: a page can do what it has a key for.
            Middleware(
                Cors,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "HEAD", "POST"],
                allow_headers=["Authorization", "Content-Type", "Range"],
                expose_headers=["Retry-After", "Content-Range"],
                allow_private_network=True,
                max_age=86400,
            ),
            Middleware(Gate, settings, fail_for),
        ],
    )
    app.state.stopping = lambda: False
    app.state.a1111_jobs = defaultdict(set)
    app.state.base_url = lambda connection: _base_url(settings, connection)
    return app


async def _serve_socket(websocket: WebSocket) -> None:
    state = websocket.app.state
    try:
        visit = state.services.edge.visit(client_address(websocket.scope))
    except RateLimitError as error:
        await websocket.send_denial_response(refusal(error))
        return
    try:
        await Connection(websocket, state.services, visit, state.base_url(websocket)).serve()
    finally:
        visit.end()


async def _say_unavailable(_request: Request, error: Exception) -> Response:
    assert isinstance(error, UnavailableError | DatabaseUnavailableError)
    headers = {"retry-after": str(error.retry_after)}
    return PlainTextResponse(f"{error}\n", 503, headers)


def _base_url(settings: Settings, connection: HTTPConnection) -> str:
    """What the client reaches the server as: by the setting, or as it addressed it.

    Over the Unix socket it has no name for it but localhost, which leads nowhere by TCP.
    """
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    if is_local_user(client_address(connection.scope)) and connection.url.netloc == "localhost":
        own_url: str = connection.app.state.own_url
        return own_url
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return f"{scheme}://{connection.url.netloc}"
