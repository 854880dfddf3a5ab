"""Assets: images of the account, with the UUIDs that they have elsewhere."""

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller
from server.http.providers.scenario.notation import iso_time
from server.images.store import MEDIA_TYPES
from server.protocol.errors import NotFoundError
from server.protocol.fields import is_uuid
from server.state.images import ImageRecord

__all__ = ["Asset", "get_asset", "upload"]


class Asset(Struct, frozen=True, kw_only=True):
    """The body of an upload."""

    image: Annotated[str, Meta(min_length=1)]
    name: str | None = None


async def upload(request: Request, caller: Caller) -> Response:
    """Keep an image."""
    body = await read_json(request, Asset)
    kept = await caller.upload(body.image)
    return JSONResponse({"asset": await _asset(kept.image_uuid, caller)})


async def get_asset(request: Request, caller: Caller) -> Response:
    """An image of the account."""
    return JSONResponse({"asset": await _asset(request.path_params["id"], caller)})


async def _asset(given: str, caller: Caller) -> dict[str, Any]:
    record = None
    if is_uuid(given):
        record = await caller.services.images.find(caller.account, given.lower(), caller.login.scope)
    if record is None:
        raise NotFoundError("imageNotFound", f"there is no asset {given[:64]}", "assetId")
    return await _asset_item(record, caller)


async def _asset_item(record: ImageRecord, caller: Caller) -> dict[str, Any]:
    created = iso_time(record.expires - caller.services.settings.image_ttl)
    return {
        "id": record.uuid,
        "url": await caller.services.images.url(record.name, caller.base_url),
        "mimeType": MEDIA_TYPES[record.name.rpartition(".")[2]],
        "kind": "image",
        "status": "success",
        "source": "upscale",
        "metadata": {"type": "upscale", "kind": "image"},
        "properties": {"size": record.size, "width": record.width, "height": record.height},
        "tags": [],
        "collectionIds": [],
        "editCapabilities": [],
        "privacy": "private",
        "authorId": caller.owner,
        "ownerId": caller.owner,
        "createdAt": created,
        "updatedAt": created,
    }
