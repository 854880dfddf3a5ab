"""The ASGI application: which path leads where, and what runs while it does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from server.connection import Connection
from server.http.images import get_image
from server.http.pages import get_errors, get_health
from server.http.tasks import post_tasks
from server.services import Services, running_services
from server.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings, on_ready: Callable[[Services], None] | None = None) -> Starlette:
    """The server as an ASGI application; everything it needs is started and stopped with it.

    Args:
        settings: the effective settings.
        on_ready: called when the services run, before the first request.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        own_url = settings.public_url or f"http://{settings.host}:{settings.port}"
        async with running_services(settings, own_url) as services:
            app.state.services = services
            app.state.base_url = lambda connection: _base_url(settings, connection)
            if on_ready is not None:
                on_ready(services)
            yield

    return Starlette(
        routes=[
            WebSocketRoute("/", _serve_socket),
            WebSocketRoute("/v1", _serve_socket),
            Route("/", post_tasks, methods=["POST"]),
            Route("/v1", post_tasks, methods=["POST"]),
            Route("/images/{name}", get_image, methods=["GET", "HEAD"]),
            Route("/healthz", get_health),
            Route("/readyz", get_health),
            Route("/docs/errors", get_errors),
        ],
        lifespan=lifespan,
    )


async def _serve_socket(websocket: WebSocket) -> None:
    state = websocket.app.state
    await Connection(websocket, state.services, state.base_url(websocket)).serve()


def _base_url(settings: Settings, connection: HTTPConnection) -> str:
    """What the client reaches the server as: by the setting, or as it addressed it."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return f"{scheme}://{connection.url.netloc}"
