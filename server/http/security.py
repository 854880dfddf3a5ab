"""The headers that keep browsers from doing with an answer what it is not meant for.

https://owasp.org/www-project-secure-headers/ explains them.
"""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.status import HTTP_304_NOT_MODIFIED
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["PAGE_POLICY", "SecurityHeaders"]

PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy of HTML pages: all they load is of this server, or made by themselves."""

_OTHER_POLICY: Final = "default-src 'none'; sandbox; frame-ancestors 'none'"
_IMAGE_POLICY: Final = "default-src 'none'; sandbox"
_YEAR: Final = 365 * 86400


class SecurityHeaders:
    """ASGI middleware that adds the headers to every HTTP answer; what the answer sets itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        encrypted = scope["scheme"] in ("https", "wss")

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                _add_headers(MutableHeaders(scope=message), status=message["status"], encrypted=encrypted)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _add_headers(headers: MutableHeaders, *, status: int, encrypted: bool) -> None:
    kind = headers.get("content-type", "")
    image = kind.startswith("image/")
    if status != HTTP_304_NOT_MODIFIED:  # its headers replace those that are kept (RFC 9111 section 4.3.4)
        policy = PAGE_POLICY if kind.startswith("text/html") else _IMAGE_POLICY if image else _OTHER_POLICY
        headers.setdefault("content-security-policy", policy)
        headers.setdefault("cross-origin-resource-policy", "cross-origin" if image else "same-origin")
    headers.setdefault("referrer-policy", "no-referrer")
    headers.setdefault("x-content-type-options", "nosniff")
    if encrypted:
        headers.setdefault("strict-transport-security", f"max-age={_YEAR}")
