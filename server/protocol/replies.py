"""Every item that a client may get in `data`, one Struct each; errors are in `errors`.

An `Item` has a fixed `taskType`; an `Answer` repeats that of the request, which has two spellings for an
upscale. Fields that do not apply are left out of the frame.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from server.protocol.fields import Usd
from server.protocol.names import wire_name
from server.protocol.raw_image import RawImage

__all__ = [
    "PONG",
    "AccountManagementResult",
    "Acknowledgement",
    "AuthenticationResult",
    "CancelResult",
    "ImageUploadResult",
    "Item",
    "MediaStorageResult",
    "ModelSearchResult",
    "NsfwScores",
    "PingResult",
    "Progress",
    "TaskDetails",
    "TeamMember",
    "Tile",
    "UpscaleResult",
    "UsageBreakdown",
    "UsageMeasures",
    "UsageReport",
    "UsageRow",
    "UsageTotals",
    "WebhookItem",
    "iso_time",
]


Day = date
"""`YYYY-MM-DD`: under another name, as a field is called `date`."""


def iso_time(seconds: float) -> str:
    """A time since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, tag_field="taskType"):
    """Base of all elements of `data` whose `taskType` is fixed."""

    task_uuid: Annotated[str | UnsetType, Meta(description="That of the task that this answers.")] = UNSET


class AuthenticationResult(Item, frozen=True, kw_only=True, tag="authentication"):
    """The session has begun, or goes on."""

    connection_session_uuid: Annotated[str, Meta(description="Keep it to resume the session.")]
    expires_in: Annotated[
        int | UnsetType, Meta(description="For a token: the seconds that it is still valid.")
    ] = UNSET


class PingResult(Item, frozen=True, kw_only=True, tag="ping"):
    """The answer to the heartbeat."""

    pong: Literal[True]


PONG: Final = PingResult(pong=True)


class ImageUploadResult(Item, frozen=True, kw_only=True, tag="imageUpload"):
    """The image is stored."""

    image_uuid: Annotated[str, Meta(description="Names the image in later tasks of the same account.")]
    image_url: Annotated[str, Meta(description="Where anyone who knows the URL gets the image.")]


class MediaStorageResult(Item, frozen=True, kw_only=True, tag="mediaStorage"):
    """The image is stored, or deleted."""

    operation: Literal["upload", "delete"]
    media_uuid: Annotated[str, Meta(description="The UUID of the image.")]
    media_url: Annotated[
        str | UnsetType, Meta(description="If the image was stored: where anyone who knows the URL gets it.")
    ] = UNSET


class ModelSearchResult(Item, frozen=True, kw_only=True, tag="modelSearch"):
    """The models that were found."""

    total_results: Annotated[int, Meta(description="The number of models without `limit` and `offset`.")]
    results: list["ModelItem"]


class AccountManagementResult(Item, frozen=True, kw_only=True, tag="accountManagement"):
    """What is known of the account."""

    operation: str
    organization_uuid: Annotated[str, Meta(description="That of the account.")]
    organization_name: Annotated[str, Meta(description="That of the account.")]
    balance: "Balance"
    team: Annotated[
        list["TeamMember"],
        Meta(description="One member, the account itself: accounts have keys here, not people."),
    ]
    api_keys: list["KeyItem"]
    usage: Annotated[
        dict[str, "Usage"],
        Meta(description="By period: `total`, and `today`, `last7Days`, `last30Days` by days of UTC."),
    ]


class UsageReport(Item, frozen=True, kw_only=True, tag="accountManagement"):
    """What was done with the account, from one day to another."""

    operation: str
    start_date: Annotated[date, Meta(description="The first day.")]
    end_date: Annotated[date, Meta(description="The last day, inclusive.")]
    timezone: Annotated[str, Meta(description="The time zone of the days.")]
    usage: Annotated[
        dict[str, "UsageBreakdown"],
        Meta(
            description="By `groupBy`: `timeseries`, a row for each day, also for those without tasks; "
            "`model`, for each model; `apiKey`, for each key."
        ),
    ]


class TaskDetails(Item, frozen=True, kw_only=True, tag="getTaskDetails"):
    """An earlier task, and its answer."""

    request: Annotated[
        list[dict[str, Any]],
        Meta(description="The task; an image that was sent within it appears as the UUID that it got."),
    ]
    response: Annotated[
        dict[str, Any], Meta(description="The frame that answered it: `data` or `errors`, with one item.")
    ]


class CancelResult(Item, frozen=True, kw_only=True, tag="cancel"):
    """The task is stopped."""

    target_task_uuid: str
    status: Literal["cancelled"]
    # Runware's SDKs take a reply without a result for an acknowledgement, and poll.
    result: Annotated[Literal["cancelled"], Meta(description="The same.")]


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """Base of the elements of `data` that echo the `taskType` of the request."""

    task_type: Annotated[str, Meta(description="That of the task that this answers.")]
    task_uuid: Annotated[str, Meta(description="That of the task that this answers.")]


class Acknowledgement(Answer, frozen=True, kw_only=True):
    """The task is accepted; its result will follow."""


class Tile(Struct, frozen=True, kw_only=True, rename=wire_name):
    """A finished part of a result: where it is, in pixels of the whole, and its image."""

    x: Annotated[int, Meta(ge=0, description="The position of its left edge.")]
    y: Annotated[int, Meta(ge=0, description="The position of its top edge.")]
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    image_width: Annotated[int, Meta(ge=1, description="That of the whole result.")]
    image_height: Annotated[int, Meta(ge=1, description="That of the whole result.")]
    image_data_uri: Annotated[
        str | UnsetType, Meta(description="In JSON: the part as JPEG, or as WebP if it has transparency.")
    ] = UNSET
    image: Annotated[bytes | UnsetType, Meta(description="In MessagePack: the bytes of that file.")] = UNSET
    media_type: Annotated[str | UnsetType, Meta(description="In MessagePack: the type of `image`.")] = UNSET


class Progress(Answer, frozen=True, kw_only=True):
    """The task is under way."""

    status: Literal["processing"]
    progress: Annotated[int, Meta(ge=0, le=100, description="How much is done, in percent.")]
    queue_position: Annotated[
        Annotated[int, Meta(ge=1)] | UnsetType,
        Meta(description="While the task waits behind others: its place in line; 1 is the next."),
    ] = UNSET
    tile: Annotated[
        Tile | UnsetType, Meta(description="A part of the result, if `includeTiles` asked for parts.")
    ] = UNSET


class UpscaleResult(Answer, frozen=True, kw_only=True):
    """A finished image, in the forms that were asked for."""

    status: Annotated[
        Literal["success"] | UnsetType, Meta(description="In the answer to `getResponse` only.")
    ] = UNSET
    image_uuid: Annotated[
        str | UnsetType,
        Meta(description="The UUID of the result, if it is stored: names it in later tasks of the account."),
    ] = UNSET
    input_image_uuid: Annotated[
        str | UnsetType, Meta(description="The UUID of the input, if it is stored.")
    ] = UNSET
    image_url: Annotated[
        str | UnsetType,
        Meta(description="Where anyone who knows the URL gets the result, until its `ttl` has passed."),
    ] = UNSET
    image_base64_data: Annotated[
        bytes | UnsetType, Meta(description="The file in base64. In MessagePack, its bytes.")
    ] = UNSET
    image_data_uri: Annotated[str | UnsetType, Meta(description="The file as a data URI.")] = UNSET
    image: Annotated[
        RawImage | UnsetType, Meta(description="The pixels, if the `outputFormat` is `RAW`.")
    ] = UNSET
    nsfw_content: Annotated[
        bool | UnsetType,
        Meta(description="If there was a check: whether the input or the result may not be safe for work."),
    ] = UNSET
    nsfw_scores: Annotated[
        "NsfwScores | UnsetType",
        Meta(description="How probable that is, from 0 to 1; `NSFWContent` compares with a setting, 0.8."),
    ] = UNSET
    seed: Annotated[
        int | UnsetType, Meta(description="Determines the noise, for models that begin with noise.")
    ] = UNSET
    cost: Annotated[Usd | UnsetType, Meta(description="In US dollars, if `includeCost` asked for it.")] = (
        UNSET
    )
    warnings: Annotated[
        list[str] | UnsetType,
        Meta(description="Warnings about ignored parameters and prompts that were cut."),
    ] = UNSET
    webhook: Annotated[
        "WebhookItem | UnsetType",
        Meta(description="The state of its webhook; only in the answer to `getResponse`."),
    ] = UNSET


class NsfwScores(Struct, frozen=True, kw_only=True):
    """How probable it is that pictures are not safe for work, from 0 to 1."""

    input: float
    result: float


class WebhookItem(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """The state of the delivery of an outcome to the `webhookURL` of its task."""

    status: Literal["pending", "delivered", "failed"]
    attempts: Annotated[int, Meta(description="The number of attempts so far.")]
    next_attempt: Annotated[
        str | UnsetType,
        Meta(description="The time of the next attempt, unless it arrives before. ISO 8601, UTC."),
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


class TeamMember(Struct, frozen=True, rename=wire_name):
    """Who owns the account."""

    name: str
    email: Annotated[str, Meta(description="Always empty.")]
    roles: list[str]
    joined_at: Annotated[str, Meta(description="ISO 8601, UTC.")]


class UsageMeasures(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """What is reported about some tasks; each operation has its own fields."""

    count: Annotated[int | UnsetType, Meta(description="`getUsageActivity`: tasks that have an outcome.")] = (
        UNSET
    )
    spend: Annotated[Usd | UnsetType, Meta(description="`getUsageActivity`: their cost, in US dollars.")] = (
        UNSET
    )
    avg_inference_time: Annotated[
        float | UnsetType | None,
        Meta(
            description="`getUsagePerformance`: the average seconds that successful tasks spent on a "
            "device; null if there are none."
        ),
    ] = UNSET
    p50_inference_time: Annotated[
        float | UnsetType | None, Meta(description="Seconds within which half of them were done.")
    ] = UNSET
    p90_inference_time: Annotated[
        float | UnsetType | None, Meta(description="Seconds within which 90 % were done.")
    ] = UNSET
    p99_inference_time: Annotated[
        float | UnsetType | None, Meta(description="Seconds within which 99 % were done.")
    ] = UNSET
    client_errors: Annotated[
        int | UnsetType,
        Meta(
            description="`getUsageErrors`: accepted tasks that failed because of the request, as HTTP's 4xx."
        ),
    ] = UNSET
    server_errors: Annotated[
        int | UnsetType,
        Meta(description="`getUsageErrors`: tasks that failed because of the server, as HTTP's 5xx."),
    ] = UNSET
    codes: Annotated[
        dict[str, int] | UnsetType, Meta(description="`getUsageErrors`: the number of errors by code.")
    ] = UNSET


class UsageRow(UsageMeasures, frozen=True, kw_only=True, omit_defaults=True):
    """Tasks that ended on a day, for a model or with a key."""

    date: Annotated[Day | UnsetType, Meta(description="The day, unless all days are summed.")] = UNSET
    model: Annotated[
        str | UnsetType, Meta(description="The model's AIR id, or its name if it is not installed.")
    ] = UNSET
    model_name: str | UnsetType = UNSET
    api_key: Annotated[
        str | UnsetType | None,
        Meta(description="The key's `name`; null for the key in the settings, and if it is unknown."),
    ] = UNSET


class UsageTotals(UsageMeasures, frozen=True, kw_only=True, omit_defaults=True):
    """All tasks of a breakdown together."""

    total_requests: Annotated[int, Meta(description="Tasks that have an outcome.")]
    total_results: Annotated[int, Meta(description="Those that succeeded.")]
    total_spend: Annotated[Usd, Meta(description="For all, in US dollars.")]
    avg_daily_spend: Annotated[
        Usd | UnsetType, Meta(description="`getUsageActivity`: the average per day of those that have begun.")
    ] = UNSET
    projected_spend: Annotated[
        Usd | UnsetType, Meta(description="`getUsageActivity`: the cost of 30 such days.")
    ] = UNSET
    total_errors: Annotated[
        int | UnsetType, Meta(description="`getUsageErrors`: errors of clients and server together.")
    ] = UNSET
    error_rate: Annotated[
        float | UnsetType, Meta(description="`getUsageErrors`: their share of all tasks, in percent.")
    ] = UNSET


class UsageBreakdown(Struct, frozen=True, rename=wire_name):
    """Rows, and what they amount to."""

    data: list[UsageRow]
    meta: UsageTotals


class Usage(Struct, frozen=True, rename=wire_name):
    """What an account did in a span of time."""

    credits: Usd
    requests: int


class WindowsItem(Struct, frozen=True, kw_only=True, rename=wire_name):
    """The windows of a creative upscaler, as its price counts them; all in pixels."""

    side: Annotated[int, Meta(description="The largest side, at a `settings.fractality` of 50.")]
    overlap: Annotated[int, Meta(description="The least overlap of two windows of that side.")]
    multiple: Annotated[int, Meta(description="Sides are multiples of it, and at least twice as long.")]
    cell: Annotated[int, Meta(description="Overlaps are multiples of it.")]


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
    parameters: Annotated[list[str], Meta(description="The names of the `settings` that it accepts.")]
    options: Annotated[
        list[str],
        Meta(
            description="Those parameters, such as `seamless`, that not all models accept but this one does."
        ),
    ]
    default_steps: Annotated[
        int | UnsetType,
        Meta(description="For models with `settings.steps`: the number of steps that the price covers."),
    ] = UNSET
    strength_steps: Annotated[
        int | UnsetType,
        Meta(
            description="For models that draft an image before a `strength` below 1 invents texture: the "
            "`defaultSteps` in that case, and one for the draft."
        ),
    ] = UNSET
    presets: Annotated[
        dict[str, dict[str, float]] | UnsetType,
        Meta(
            description="For creative upscalers: the settings of each `settings.preset`. The price is for "
            "one pass with `balanced`, in one window."
        ),
    ] = UNSET
    windows: Annotated[
        WindowsItem | UnsetType,
        Meta(description="For creative upscalers: the windows in which images are drawn."),
    ] = UNSET
    enlarger: Annotated[
        str | UnsetType,
        Meta(
            description="For creative upscalers: the AIR id of the default `settings.enlarger`, whose price "
            "is added."
        ),
    ] = UNSET
    seconds_per_megapixel: Annotated[
        float | UnsetType,
        Meta(description="How many seconds a million output pixels took recently, once a device was free."),
    ] = UNSET
    price_per_megapixel: Annotated[Usd, Meta(description="USD per million output pixels.")]
    licence: str
    private: Annotated[bool, Meta(description="Runware's SDKs need it; always false.")] = False
    hero_image: Annotated[str, Meta(description="Runware's SDKs need it; always empty.")] = ""
