"""Health."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

__all__ = ["get_health", "get_readiness"]


async def get_health(_request: Request) -> Response:
    """200 as long as the server answers at all."""
    return PlainTextResponse("healthy\n")


async def get_readiness(request: Request) -> Response:
    """200 while tasks can be run, 503 when no device works any longer.

    The server does not listen before the models are loaded.
    """
    if not request.app.state.services.upscaler.usable:
        return PlainTextResponse("no device is left to run tasks on\n", status_code=503)
    return PlainTextResponse("ready\n")
