"""`POST /v1/tokens`: a backend, which has a key, gets a token for a page, which must not have it."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.http.providers.bodies import decode_json
from server.http.tasks import error_response, login_by_header, read_body
from server.limits.terms import terms_of
from server.protocol.codec import JSON
from server.protocol.errors import AuthenticationError, ForbiddenError, TaskError
from server.protocol.replies import iso_time
from server.protocol.tokens import NewToken, NewTokenResult
from server.services import Services
from server.state.accounts import digest_of
from server.state.tokens import Token, create_token

__all__ = ["post_token"]


async def post_token(request: Request) -> Response:
    """Make a token that is valid as long as the key in the header, and no longer than asked for."""
    services: Services = request.app.state.services
    try:
        token = await _made(request, services)
    except TaskError as error:
        return error_response(JSON, error, request)
    made = NewTokenResult(token.secret, iso_time(token.expires))
    return Response(msgspec.json.encode(made), 201, {"cache-control": "no-store"}, JSON.media_type)


async def _made(request: Request, services: Services) -> Token:
    given = await login_by_header(request, services)
    if given is None:
        raise AuthenticationError("missingApiKey", "send the header: Authorization: Bearer KEY")
    if given.login.grant is not None:
        raise ForbiddenError("tokenScopeApiKey", "a token cannot make tokens: use a key")
    account = given.login.account
    services.edge.take_request(account)
    body = await read_body(request, services.settings, authenticated=True, account=account)
    wanted = decode_json(body or b"{}", NewToken, strict=True)
    token = await services.database.run(
        create_token,
        digest_of(given.secret),
        terms_of(wanted, services.catalogue),
        services.clock(),
        wanted.expires_in,
        configured=services.settings.api_key,
    )
    if token is None:
        raise AuthenticationError("invalidApiKey", "the API key is not valid", "apiKey")
    return token
