"""Health, and what the error codes mean."""

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from server.protocol.errors import error_classes

__all__ = ["get_errors", "get_health", "get_readiness"]


async def get_health(_request: Request) -> Response:
    """200 as long as the server answers at all."""
    return PlainTextResponse("healthy\n")


async def get_readiness(request: Request) -> Response:
    """200 while tasks can be run; otherwise 503, and why they cannot.

    The server does not listen before the models are loaded.
    """
    reason = "the server is stopping" if request.app.state.stopping() else None
    if reason is None:
        reason = await request.app.state.services.readiness.obstacle()
    if reason is not None:
        return PlainTextResponse(f"{reason}\n", status_code=503)
    return PlainTextResponse("ready\n")


async def get_errors(_request: Request) -> Response:
    """All kinds of errors: what they mean, and what to do."""
    rows = "".join(
        f'<h2 id="{kind.__name__}">{kind.__name__}, HTTP {kind.status}</h2>'
        f"<p>{escape((kind.__doc__ or '').strip())}</p><p>{escape(kind.advice)}</p>"
        for kind in error_classes()
    )
    return HTMLResponse(
        f"<!doctype html><meta charset=utf-8><title>Tilewire errors</title><h1>Errors</h1>{rows}"
    )
