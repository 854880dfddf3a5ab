"""What the key opens that came with a request, in every form that clients of other services use."""

import base64
import ipaddress

from starlette.requests import Request

from server.http.gate import client_address
from server.protocol.errors import AuthenticationError
from server.services import Services
from server.state.accounts import account_named
from server.state.logins import Login
from server.transport.peers import is_local_user

__all__ = ["login_of"]


async def login_of(request: Request, services: Services) -> Login:
    """What the key opens that came with a request, in whichever header its service has it.

    Raises:
        AuthenticationError: if there is none, or it is wrong.
        RateLimitError: if too many keys from this address were wrong of late.
    """
    keys = list(_keys(request))
    if not keys:
        name = services.settings.keyless_account
        if name is not None and _is_local(request):
            return Login(await services.database.run(account_named, name, services.clock()), None)
        raise AuthenticationError("missingApiKey", "missing authorization header: send the API key")
    origin = request.headers.get("origin")
    for key in keys[:-1]:
        if (login := await services.login(key, origin)) is not None:
            return login
    return await services.authenticate(keys[-1], client_address(request.scope), origin)


def _keys(request: Request) -> list[str]:
    """What may be the key: of Basic authentication either half, the password first."""
    if key := request.headers.get("x-photio-key", "").strip():
        return [key]
    given = request.headers.get("authorization", "").strip()
    scheme, _, rest = given.partition(" ")
    if scheme.lower() == "bearer":
        return [rest.strip()] if rest.strip() else []
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
        except ValueError:  # it is not base64, or not UTF-8 in that
            return []
        return [half for half in dict.fromkeys((password, user)) if half]
    return [given] if given else []  # novita-sdk for JavaScript sends the bare key


def _is_local(request: Request) -> bool:
    """Whether a program of this machine asks: no web page, no proxy, and by a name that only it has."""
    if any(
        name in request.headers for name in ("origin", "x-forwarded-for", "x-real-ip", "forwarded", "via")
    ):
        return False
    return all(_is_loopback(host) for host in (client_address(request.scope), request.url.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or is_local_user(host)
