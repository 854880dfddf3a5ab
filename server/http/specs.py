"""`/openapi.json`, `/asyncapi.json`, `/asyncapi-client.json` and `/schemas/NAME.json`: for programs."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.http.providers import ROUTES, described
from server.protocol.codec import SUBPROTOCOL
from server.specs.asyncapi import asyncapi, asyncapi_of_client
from server.specs.openapi import openapi
from server.specs.schemas import components, standalone

__all__ = ["document", "get_asyncapi", "get_asyncapi_of_client", "get_openapi", "get_schema"]


async def get_openapi(_request: Request) -> Response:
    """What the server offers over HTTP."""
    return _response(document(), "application/vnd.oai.openapi+json;version=3.1")


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, with the endpoints of other services."""
    own = openapi()
    paths, schemas = described(ROUTES)
    components = own["components"] | {"schemas": own["components"]["schemas"] | schemas}
    return own | {"paths": own["paths"] | paths, "components": components}


async def get_asyncapi(request: Request) -> Response:
    """What the server offers over its WebSocket."""
    base_url: str = request.app.state.base_url(request)
    return _response(asyncapi(base_url, SUBPROTOCOL), "application/vnd.aai.asyncapi+json;version=3.0.0")


async def get_asyncapi_of_client(request: Request) -> Response:
    """The same as a client has it: for generators of clients."""
    base_url: str = request.app.state.base_url(request)
    return _response(asyncapi_of_client(base_url), "application/vnd.aai.asyncapi+json;version=3.0.0")


async def get_schema(request: Request) -> Response:
    """One of the messages as a JSON Schema."""
    name: str = request.path_params["name"]
    if name not in components():
        return Response("there is no such schema\n", 404, media_type="text/plain")
    return _response(standalone(name), "application/schema+json")


def _response(document: Mapping[str, Any], media_type: str) -> Response:
    # For tools that run in a page from elsewhere; there is nothing here that is not public.
    headers = {"access-control-allow-origin": "*", "cache-control": "no-cache"}
    return Response(msgspec.json.encode(document), headers=headers, media_type=media_type)
