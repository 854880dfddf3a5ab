"""Every task that clients may send and every item they get back.

Fields that are not known are ignored, so that newer clients work; see `codec` for the warning about
misspelt ones. Parameters of Runware's that a model or this server does not honour are fields here, so that
their use can be refused instead of ignored.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from engines import OutputFormat
from engines.colour_fix import ColourFix
from engines.samplers import Scheduler
from server.protocol.fields import Image, TargetUrl, TaskUuid, TimeToLive, Usd, refused
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
    "UpscaleSettings",
    "WebhookItem",
    "iso_time",
]

DeliveryMethod = Literal["sync", "async"]


def iso_time(seconds: float) -> str:
    """A time since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


Prompt = Annotated[str, Meta(max_length=3000)]


class OutputType(StrEnum):
    """How a result's image is handed over."""

    URL = "URL"
    BASE64 = "base64Data"
    DATA_URI = "dataURI"


class Task(Struct, frozen=True, kw_only=True, rename=wire_name, tag_field="taskType"):
    """Base of all tasks."""

    task_uuid: TaskUuid


class Authentication(Task, frozen=True, kw_only=True, tag="authentication"):
    """The first task of a connection: begins a session, or resumes an earlier one."""

    task_uuid: Annotated[str, Meta(description="Not needed.")] = ""
    api_key: Annotated[str, Meta(description="An API key, as `tilewire keys create` printed it.")]
    connection_session_uuid: Annotated[
        Annotated[str, Meta(pattern=r"^[\w-]+$", max_length=36)] | None,
        Meta(description="The session to resume; what it could not be sent follows the reply."),
    ] = None


class Ping(Task, frozen=True, kw_only=True, tag="ping"):
    """The heartbeat. A connection that is silent for two minutes while none of its tasks runs is closed."""

    task_uuid: Annotated[str, Meta(description="Not needed.")] = ""
    ping: Annotated[bool, Meta(description="As Runware's SDKs send it; any value will do.")] = True


class ImageUpload(Task, frozen=True, kw_only=True, tag="imageUpload"):
    """Keeps an image for later tasks. The same image again gets the same UUID."""

    image: Image
    ttl: TimeToLive = None


class Inputs(Struct, frozen=True):
    """The input of a task, in today's spelling."""

    image: Image | UnsetType = UNSET
    video: Annotated[Raw | UnsetType, refused("this server upscales images only", **{"not": {}})] = UNSET


class UpscaleSettings(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """What only some models take; `modelSearch` tells each model's `parameters`. Others are refused."""

    steps: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | UnsetType,
        Meta(
            description="How often noise is removed. More than the default cost more, in proportion. "
            "Default: the model's `defaultSteps`."
        ),
    ] = UNSET
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType,
        Meta(
            description="What the noise is made of: the same seed gives the same image. "
            "Default: made of the `taskUUID`."
        ),
    ] = UNSET
    cfg_scale: Annotated[
        Annotated[float, Meta(ge=0, le=50)] | UnsetType,
        Meta(
            description="How far to go towards `positivePrompt` and away from `negativePrompt`. Up to 1 "
            "there is no such guidance, and half the work and cost. Default: 1."
        ),
    ] = UNSET
    positive_prompt: Annotated[
        Prompt | UnsetType, Meta(description="What is to be seen. Default: nothing in particular.")
    ] = UNSET
    negative_prompt: Annotated[
        Prompt | UnsetType,
        Meta(
            description="What is not to be seen; needs a `CFGScale` above 1. Default: nothing in particular."
        ),
    ] = UNSET
    strength: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | UnsetType,
        Meta(
            description="The share of the steps that are done. Below 1 the image itself is begun with, not "
            "noise: the result stays nearer to it. Default: 1."
        ),
    ] = UNSET
    scheduler: Annotated[
        Scheduler | UnsetType,
        Meta(description="How noise is removed. Heun takes, and costs, two looks a step. Default: Euler."),
    ] = UNSET
    color_fix: Annotated[
        ColourFix | bool | UnsetType,
        Meta(
            description="Takes the colours from the input: those of coarse structures (`wavelet`, or true), "
            "or their mean and contrast (`adain`). Default: false."
        ),
    ] = UNSET
    control_net_weight: Annotated[Any | UnsetType, refused("no model has a ControlNet", **{"not": {}})] = (
        UNSET
    )
    clip_skip: Annotated[Any | UnsetType, refused("no model takes it", **{"not": {}})] = UNSET
    tile_diffusion: Annotated[
        Any | UnsetType, refused("large images always are made in tiles", **{"not": {}})
    ] = UNSET


class Upscale(Task, frozen=True, kw_only=True, tag="upscale"):
    """Enlarges an image."""

    model: Annotated[
        str | None,
        Meta(description="The name or AIR id of a model. Default: `runware:504@1`, Real-ESRGAN x4plus."),
    ] = None
    inputs: Inputs = Inputs()
    input_image: Annotated[
        Image | UnsetType, Meta(description="The classic spelling of `inputs.image`; give one of the two.")
    ] = UNSET
    upscale_factor: Annotated[
        Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 1})] | None,
        Meta(
            description="How many times as wide and high: any number above 1 up to the model's largest "
            "factor, 4 for those that are built in. Models without `fractionalFactors` take whole ones only. "
            "Default: the largest."
        ),
    ] = None
    target_megapixels: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | None,
        Meta(description="The size of the result in million pixels, in place of a factor."),
    ] = None
    output_type: Annotated[
        OutputType | Annotated[list[OutputType], Meta(min_length=1)],
        Meta(description="How the result is handed over: one way, or a list of them."),
    ] = OutputType.URL
    output_format: Annotated[OutputFormat, Meta(description="The file format of the result.")] = (
        OutputFormat.JPG
    )
    output_quality: Annotated[int, Meta(ge=20, le=99, description="Of JPG and WEBP.")] = 95
    include_cost: Annotated[bool, Meta(description="Whether the result tells its cost.")] = False
    include_progress: Annotated[
        bool, Meta(description="Whether to send the progress while the task runs.")
    ] = False
    include_tiles: Annotated[
        bool,
        Meta(
            description="Whether to send finished parts of the result while the task runs, over a WebSocket."
        ),
    ] = False
    keep_metadata: Annotated[
        bool, Meta(description="Whether to keep EXIF and XMP, GPS included. Colour profiles are always kept.")
    ] = False
    delivery_method: Annotated[
        DeliveryMethod,
        Meta(
            description="`async`: a task that takes longer than a few seconds is acknowledged first. Over "
            "HTTP its result is then asked for with `getResponse`."
        ),
    ] = "sync"
    webhook_url: Annotated[
        TargetUrl | None,
        Meta(description="Where the outcome is POSTed, as the frame that a socket would get."),
    ] = None
    upload_endpoint: Annotated[TargetUrl | None, Meta(description="Where the image is PUT.")] = None
    ttl: TimeToLive = None
    check_nsfw: Annotated[bool, refused("this server has no safety checker", const=False)] = False
    safety: Annotated[
        dict[str, Any] | None,
        refused("this server has no safety checker", additionalProperties={"enum": [False, None]}),
    ] = None
    settings: Annotated[
        UpscaleSettings | None, Meta(description="What only some models take: see their `parameters`.")
    ] = None
    number_results: Annotated[int, refused("an upscale has one result", const=1)] = 1


class ImageUpscale(Upscale, frozen=True, kw_only=True, tag="imageUpscale"):
    """Enlarges an image: the classic name of `upscale`."""


class GetResponse(Task, frozen=True, kw_only=True, tag="getResponse"):
    """Asks for the result of the earlier task with this `taskUUID`, its error, or how far it is."""


class AccountManagement(Task, frozen=True, kw_only=True, tag="accountManagement"):
    """Asks for the account's balance, keys and usage."""

    operation: Annotated[
        str, Meta(description="Only `getDetails` is offered.", extra_json_schema={"enum": ["getDetails"]})
    ]


class ModelSearch(Task, frozen=True, kw_only=True, tag="modelSearch"):
    """Lists the installed models."""

    search: Annotated[
        str, Meta(description="Words that the name, AIR id, title or description contains, all of them.")
    ] = ""
    category: Annotated[str | None, Meta(description="All models are of the category `upscaler`.")] = None
    architecture: Annotated[str | None, Meta(description="Such as `esrgan`.")] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="The most models to list.")] = 20
    offset: Annotated[int, Meta(ge=0, description="How many to skip.")] = 0


class Cancel(Task, frozen=True, kw_only=True, tag="cancel"):
    """Stops a task, whose own reply becomes the error `taskCancelled`. What is not finished costs nothing."""

    target_task_uuid: Annotated[TaskUuid, Meta(description="The `taskUUID` of the task to stop.")]


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, tag_field="taskType"):
    """Base of all elements of `data` whose `taskType` is fixed."""

    task_uuid: Annotated[str | UnsetType, Meta(description="Of the task that this answers.")] = UNSET


class AuthenticationResult(Item, frozen=True, kw_only=True, tag="authentication"):
    """The session has begun, or goes on."""

    connection_session_uuid: Annotated[str, Meta(description="Keep it to resume the session.")]


class PingResult(Item, frozen=True, kw_only=True, tag="ping"):
    """The answer to the heartbeat."""

    pong: Literal[True]


PONG: Final = PingResult(pong=True)


class ImageUploadResult(Item, frozen=True, kw_only=True, tag="imageUpload"):
    """The image is kept."""

    image_uuid: Annotated[str, Meta(description="For later tasks of the same account.")]
    image_url: Annotated[str, Meta(description="Where anyone who knows it gets the image.")]


class ModelSearchResult(Item, frozen=True, kw_only=True, tag="modelSearch"):
    """The models that were found."""

    total_results: Annotated[int, Meta(description="How many there are without `limit` and `offset`.")]
    results: list["ModelItem"]


class AccountManagementResult(Item, frozen=True, kw_only=True, tag="accountManagement"):
    """What is known of the account."""

    operation: str
    organization_uuid: Annotated[str, Meta(description="Of the account.")]
    organization_name: Annotated[str, Meta(description="Of the account.")]
    balance: "Balance"
    api_keys: list["KeyItem"]
    webhook_secret: Annotated[str, Meta(description="What the account's webhooks are signed with.")]
    usage: Annotated[
        dict[str, "Usage"], Meta(description="By span: `total`, `today` (UTC), `last7Days`, `last30Days`.")
    ]


class CancelResult(Item, frozen=True, kw_only=True, tag="cancel"):
    """The task is stopped."""

    target_task_uuid: str
    status: Literal["cancelled"]


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """Base of the elements of `data` that echo the `taskType` of the request."""

    task_type: Annotated[str, Meta(description="Of the task that this answers.")]
    task_uuid: Annotated[str, Meta(description="Of the task that this answers.")]


class Acknowledgement(Answer, frozen=True, kw_only=True):
    """The task is accepted; its result will follow."""


class Tile(Struct, frozen=True, kw_only=True, rename=wire_name):
    """A finished part of a result: where it is, in pixels of the whole, and its image."""

    x: Annotated[int, Meta(ge=0, description="Of its left edge.")]
    y: Annotated[int, Meta(ge=0, description="Of its top edge.")]
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    image_width: Annotated[int, Meta(ge=1, description="Of the whole result.")]
    image_height: Annotated[int, Meta(ge=1, description="Of the whole result.")]
    image_data_uri: Annotated[
        str | UnsetType, Meta(description="In JSON: the part as JPEG, or WebP where there is transparency.")
    ] = UNSET
    image: Annotated[bytes | UnsetType, Meta(description="In MessagePack: the bytes of that file.")] = UNSET
    media_type: Annotated[str | UnsetType, Meta(description="In MessagePack: what `image` is.")] = UNSET


class Progress(Answer, frozen=True, kw_only=True):
    """The task is under way."""

    status: Literal["processing"]
    progress: Annotated[float, Meta(ge=0, le=1, description="The share that is done.")]
    tile: Annotated[
        Tile | UnsetType, Meta(description="A part of the result, if `includeTiles` asked for them.")
    ] = UNSET


class UpscaleResult(Answer, frozen=True, kw_only=True):
    """A finished image, in the forms that were asked for."""

    status: Annotated[
        Literal["success"] | UnsetType, Meta(description="In the answer to `getResponse` only.")
    ] = UNSET
    image_uuid: Annotated[str, Meta(description="Of the result, for later tasks of the same account.")]
    input_image_uuid: Annotated[str, Meta(description="Of the input, which was kept.")]
    image_url: Annotated[
        str | UnsetType,
        Meta(description="Where anyone who knows it gets the result, until its `ttl` has passed."),
    ] = UNSET
    image_base64_data: Annotated[
        bytes | UnsetType, Meta(description="The file in base64. In MessagePack, its bytes.")
    ] = UNSET
    image_data_uri: Annotated[str | UnsetType, Meta(description="The file as a data URI.")] = UNSET
    seed: Annotated[
        int | UnsetType, Meta(description="What the noise was made of, of models that begin with noise.")
    ] = UNSET
    cost: Annotated[Usd | UnsetType, Meta(description="In US dollars, if `includeCost` asked for it.")] = (
        UNSET
    )
    warnings: Annotated[
        list[str] | UnsetType,
        Meta(description="Of parameters that look misspelt and were ignored, and of prompts that were cut."),
    ] = UNSET
    webhook: Annotated[
        "WebhookItem | UnsetType",
        Meta(description="How far its webhook is; in the answer to `getResponse` only."),
    ] = UNSET


class WebhookItem(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """How far the delivery of an outcome to the `webhookURL` of its task is."""

    status: Literal["pending", "delivered", "failed"]
    attempts: Annotated[int, Meta(description="How many were begun.")]
    next_attempt: Annotated[
        str | UnsetType, Meta(description="When it is tried again, unless it arrives before. ISO 8601, UTC.")
    ] = UNSET
    last_error: Annotated[str | UnsetType, Meta(description="Why the last attempt failed.")] = UNSET


class Balance(Struct, frozen=True, rename=wire_name):
    """Money in USD; `amount` is null for an account without a limit."""

    amount: Usd | None
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

    credits: Usd
    requests: int


class ModelItem(Struct, frozen=True, kw_only=True, rename=wire_name):
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
    default_steps: Annotated[
        int | UnsetType, Meta(description="Of models that take `settings.steps`; what the price is for.")
    ] = UNSET
    price_per_megapixel: Annotated[Usd, Meta(description="USD per million output pixels.")]
    licence: str
