"""The ASGI application: which path leads where."""

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from server.connection import Connection
from server.http.docs import get_docs, get_docs_start, get_docs_style
from server.http.images import get_image
from server.http.metrics import get_metrics
from server.http.pages import get_health, get_readiness
from server.http.specs import get_asyncapi, get_openapi, get_schema
from server.http.tasks import post_tasks
from server.http.web import Page
from server.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings) -> Starlette:
    """The server as an ASGI application. Whoever runs it puts the running services into `state.services`."""
    page = Page(settings)
    app = Starlette(
        routes=[
            WebSocketRoute("/", _serve_socket),
            WebSocketRoute("/v1", _serve_socket),
            Route("/", page.get_index),
            Route("/web/{digest}/{name}", page.get_file),
            Route("/", post_tasks, methods=["POST"]),
            Route("/v1", post_tasks, methods=["POST"]),
            Route("/images/{name}", get_image, methods=["GET", "HEAD"]),
            Route("/healthz", get_health),
            Route("/readyz", get_readiness),
            Route("/metrics", get_metrics),
            Route("/docs", get_docs_start),
            Route("/docs/docs.css", get_docs_style),
            Route("/docs/{page}", get_docs),
            Route("/openapi.json", get_openapi),
            Route("/asyncapi.json", get_asyncapi),
            Route("/schemas/{name}.json", get_schema),
        ],
    )
    app.state.base_url = lambda connection: _base_url(settings, connection)
    return app


async def _serve_socket(websocket: WebSocket) -> None:
    state = websocket.app.state
    await Connection(websocket, state.services, state.base_url(websocket)).serve()


def _base_url(settings: Settings, connection: HTTPConnection) -> str:
    """What the client reaches the server as: by the setting, or as it addressed it."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return f"{scheme}://{connection.url.netloc}"
