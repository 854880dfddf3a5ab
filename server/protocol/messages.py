"""Every task that clients may send and every item they get back.

Fields that are not known are ignored, so that newer clients work; see `codec` for the warning about
misspelt ones. Parameters of Runware's that a model or this server does not honour are fields here, so that
their use can be refused instead of ignored.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from engines import OutputFormat
from server.protocol.names import wire_name

__all__ = [
    "PONG",
    "AccountManagement",
    "AccountManagementResult",
    "Acknowledgement",
    "Authentication",
    "AuthenticationResult",
    "Cancel",
    "CancelResult",
    "DeliveryMethod",
    "GetResponse",
    "ImageUpload",
    "ImageUploadResult",
    "ImageUpscale",
    "Inputs",
    "Item",
    "ModelSearch",
    "ModelSearchResult",
    "OutputType",
    "Ping",
    "PingResult",
    "Progress",
    "Task",
    "Tile",
    "Upscale",
    "UpscaleResult",
]

DeliveryMethod = Literal["sync", "async"]

TimeToLive = Annotated[int, Meta(ge=1, le=10 * 365 * 86400)]
"""Seconds, up to ten years."""


class OutputType(StrEnum):
    """How a result's image is handed over."""

    URL = "URL"
    BASE64 = "base64Data"
    DATA_URI = "dataURI"


class Task(Struct, frozen=True, kw_only=True, rename=wire_name, tag_field="taskType"):
    """Base of all tasks."""

    task_uuid: str = ""


class Authentication(Task, frozen=True, kw_only=True, tag="authentication"):
    """The first task of a connection; with the UUID of an earlier session, resumes it."""

    api_key: str
    connection_session_uuid: Annotated[str, Meta(pattern=r"^[\w-]+$", max_length=36)] | None = None


class Ping(Task, frozen=True, kw_only=True, tag="ping"):
    """The heartbeat."""

    ping: bool = True


class ImageUpload(Task, frozen=True, kw_only=True, tag="imageUpload"):
    """Stores an image for later tasks. `image`: a UUID, a URL, a data URI, base64, or bytes (MessagePack)."""

    image: Raw
    ttl: TimeToLive | None = None


class Inputs(Struct, frozen=True):
    """Today's way to name the input of a task."""

    image: Raw | UnsetType = UNSET
    video: Raw | UnsetType = UNSET


class Upscale(Task, frozen=True, kw_only=True, tag="upscale"):
    """Enlarges an image. Runware's documentation names the parameters; those after `ttl` are Tilewire's."""

    model: str | None = None
    input_image: Raw | UnsetType = UNSET
    inputs: Inputs = Inputs()
    upscale_factor: float | None = None
    target_megapixels: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    output_type: OutputType | list[OutputType] = OutputType.URL
    output_format: OutputFormat = OutputFormat.JPG
    output_quality: Annotated[int, Meta(ge=20, le=99)] = 95
    include_cost: bool = False
    delivery_method: DeliveryMethod = "sync"
    webhook_url: str | None = None
    upload_endpoint: str | None = None
    check_nsfw: bool = False
    safety: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    number_results: int = 1
    ttl: TimeToLive | None = None
    include_progress: bool = False
    include_tiles: bool = False
    keep_metadata: bool = False


class ImageUpscale(Upscale, frozen=True, kw_only=True, tag="imageUpscale"):
    """The classic name of `Upscale`."""


class GetResponse(Task, frozen=True, kw_only=True, tag="getResponse"):
    """Asks for the result of the earlier task with this `taskUUID`."""


class AccountManagement(Task, frozen=True, kw_only=True, tag="accountManagement"):
    """Asks about the account."""

    operation: str


class ModelSearch(Task, frozen=True, kw_only=True, tag="modelSearch"):
    """Lists the installed models. The filters are Runware's."""

    search: str = ""
    category: str | None = None
    architecture: str | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    offset: Annotated[int, Meta(ge=0)] = 0


class Cancel(Task, frozen=True, kw_only=True, tag="cancel"):
    """Stops a task. What has not been delivered is not charged."""

    target_task_uuid: str


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, tag_field="taskType"):
    """Base of all elements of `data` whose `taskType` is fixed."""

    task_uuid: str | UnsetType = UNSET


class AuthenticationResult(Item, frozen=True, kw_only=True, tag="authentication"):
    connection_session_uuid: str


class PingResult(Item, frozen=True, kw_only=True, tag="ping"):
    pong: Literal[True]


PONG: Final = PingResult(pong=True)


class ImageUploadResult(Item, frozen=True, kw_only=True, tag="imageUpload"):
    image_uuid: str
    image_url: str


class ModelSearchResult(Item, frozen=True, kw_only=True, tag="modelSearch"):
    total_results: int
    results: list["ModelItem"]


class AccountManagementResult(Item, frozen=True, kw_only=True, tag="accountManagement"):
    operation: str
    organization_uuid: str
    organization_name: str
    balance: "Balance"
    api_keys: list["KeyItem"]
    usage: dict[str, "Usage"]


class CancelResult(Item, frozen=True, kw_only=True, tag="cancel"):
    target_task_uuid: str
    status: Literal["cancelled"]


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """Base of the elements of `data` that echo the `taskType` of the request."""

    task_type: str
    task_uuid: str


class Acknowledgement(Answer, frozen=True, kw_only=True):
    """The task is accepted; its result will follow."""


class Tile(Struct, frozen=True, kw_only=True, rename=wire_name):
    """A finished part of a result: where it is, in pixels of the whole, and its image.

    JSON has `image_data_uri`; MessagePack the image's bytes, as `image`, and its `media_type`.
    """

    x: int
    y: int
    width: int
    height: int
    image_width: int
    image_height: int
    image_data_uri: str | UnsetType = UNSET
    image: bytes | UnsetType = UNSET
    media_type: str | UnsetType = UNSET


class Progress(Answer, frozen=True, kw_only=True):
    """The task is under way; `progress` from 0 to 1."""

    status: Literal["processing"]
    progress: float
    tile: Tile | UnsetType = UNSET


class UpscaleResult(Answer, frozen=True, kw_only=True):
    """A finished image, in the forms that were asked for.

    In MessagePack `image_base64_data` is the image's bytes themselves.
    """

    status: Literal["success"] | UnsetType = UNSET
    image_uuid: str
    input_image_uuid: str
    image_url: str | UnsetType = UNSET
    image_base64_data: bytes | UnsetType = UNSET
    image_data_uri: str | UnsetType = UNSET
    cost: Decimal | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET


class Balance(Struct, frozen=True, rename=wire_name):
    """Money in USD; `amount` is null for an account without a limit."""

    amount: Decimal | None
    currency: Literal["USD"] = "USD"


class KeyItem(Struct, frozen=True, rename=wire_name):
    """An API key, without the secret. Times are ISO 8601, UTC."""

    name: str
    api_key: str
    enabled: bool
    created_at: str
    last_used_at: str | None


class Usage(Struct, frozen=True, rename=wire_name):
    """What an account did in a span of time."""

    credits: Decimal
    requests: int


class ModelItem(Struct, frozen=True, rename=wire_name):
    """An installed model, in the terms of Runware's model search, and what it offers for upscaling."""

    air: str
    name: str
    version: str
    category: str
    architecture: str
    tags: list[str]
    title: str
    comment: str
    upscale_factors: list[int]
    fractional_factors: bool
    parameters: list[str]
    price_per_megapixel: Decimal
    licence: str
