"""Health."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from server.telemetry.readiness import Readiness

__all__ = ["get_health", "get_readiness"]


async def get_health(_request: Request) -> Response:
    """200 as long as the server answers at all."""
    return PlainTextResponse("healthy\n")


async def get_readiness(request: Request) -> Response:
    """200 while tasks can be run, even if slowly; otherwise 503, and why they cannot.

    The server does not listen before the models are loaded.
    """
    readiness: Readiness = request.app.state.services.readiness
    reason = "the server is stopping" if request.app.state.stopping() else await readiness.obstacle()
    if reason is not None:
        return PlainTextResponse(f"{reason}\n", status_code=503)
    restriction = readiness.restriction()
    if restriction is not None:
        return PlainTextResponse(f"ready, but {restriction}\n")
    nodes = readiness.nodes()
    return PlainTextResponse("ready\n" if nodes is None else f"ready; {nodes}\n")
