"""Every task that a client may send, one Struct each; `replies` has what comes back.

Unknown fields are ignored, so that newer clients work; `codec` warns about those that look misspelt.
Parameters of Runware's that a model or this server does not honour are fields here, so that the server can
refuse them instead of ignoring them.
"""

from datetime import date
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from server.protocol.fields import MAX_URL, Image, Name, TargetUrl, TaskUuid, TimeToLive, refused
from server.protocol.names import wire_name
from server.protocol.trace import TraceParent

__all__ = [
    "TASK_CLASSES",
    "AccountManagement",
    "Authentication",
    "BlendWith",
    "Cancel",
    "ColorFix",
    "DeliveryMethod",
    "Denoise",
    "FaceRestoration",
    "GetResponse",
    "GetTaskDetails",
    "ImageUpload",
    "ImageUpscale",
    "Inputs",
    "MediaStorage",
    "ModelSearch",
    "OutputFormat",
    "OutputType",
    "Ping",
    "Preset",
    "ResizeMode",
    "Safety",
    "SafetyAction",
    "Scheduler",
    "Seamless",
    "Sequence",
    "Style",
    "Task",
    "Upscale",
    "UpscaleSettings",
    "UsageGroup",
]

DeliveryMethod = Literal["sync", "async"]

ResizeMode = Literal["fit", "fill", "crop", "stretch"]
"""What a width and a height together mean."""

SafetyAction = Literal["flag", "refuse"]
"""What becomes of what is not safe for work: the result says so, or there is none."""

Seamless = Literal["x", "y", "both"]
"""Along which axes the edges of a texture are to meet: the `Seamless` of `engines`."""

UsageGroup = Literal["date", "model", "apiKey"]
"""What usage is broken down by."""

Scheduler = Literal["Euler", "Euler Karras", "Euler a", "Heun", "Heun Karras", "DPM++ 2M", "DPM++ 2M Karras"]
"""How a latent upscaler removes noise: the schedulers of `engines.Diffusion`."""

ColorFix = Literal["wavelet", "adain"]
"""How a latent upscaler keeps colours: the `colour_fix` of `engines.Diffusion`."""

Preset = Literal["precise", "balanced", "creative"]
"""What a creative upscaler is for: the `Preset` of `engines`."""

Style = Literal[
    "standard",
    "photography",
    "cinematic",
    "analog-film",
    "anime",
    "cartoon",
    "comic",
    "digital-art",
    "fantasy-art",
    "minimalist",
    "3d-rendered",
    "line-art",
    "low-poly",
    "pixel-art",
    "texture",
]
"""What a creative upscaler draws in: the `Style` of `engines`."""

Prompt = Annotated[str, Meta(max_length=3000)]
ImageName = Annotated[str, Meta(min_length=1, max_length=MAX_URL)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class OutputType(StrEnum):
    """How a result's image is handed over."""

    URL = "URL"
    BASE64 = "base64Data"
    DATA_URI = "dataURI"


class OutputFormat(StrEnum):
    """The format of a result: the values of `engines.OutputFormat`, and pixels without a file."""

    JPG = "JPG"
    PNG = "PNG"
    WEBP = "WEBP"
    RAW = "RAW"

    @classmethod
    def _missing_(cls, value: object) -> "OutputFormat | None":
        """Take other spellings: `png`, `JPEG`."""
        name = str(value).upper()
        return cls.__members__.get("JPG" if name == "JPEG" else name)


class Task(Struct, frozen=True, kw_only=True, rename=wire_name, tag_field="taskType"):
    """Base of all tasks."""

    task_uuid: TaskUuid


class Authentication(Task, frozen=True, kw_only=True, tag="authentication"):
    """The first task of a connection: begins a session, or resumes an earlier one."""

    task_uuid: Annotated[str, Meta(description="Not needed.")] = ""
    api_key: Annotated[
        str,
        Meta(
            max_length=256,
            description="An API key, as `tilewire keys create` prints it, or a token made with one.",
        ),
    ]
    connection_session_uuid: Annotated[
        Annotated[str, Meta(pattern=r"^[\w-]+$", max_length=36)] | None,
        Meta(description="The session to resume. What could not be delivered to it follows the reply."),
    ] = None
    previous_api_key: Annotated[
        Annotated[str, Meta(max_length=256)] | None,
        Meta(
            description="An earlier token, perhaps expired, that the token `apiKey` replaces: it sees the "
            "tasks, images and sessions of the earlier one."
        ),
    ] = None


class Ping(Task, frozen=True, kw_only=True, tag="ping"):
    """A heartbeat. A connection that is silent for two minutes while none of its tasks runs is closed."""

    task_uuid: Annotated[str, Meta(description="Not needed.")] = ""
    ping: Annotated[bool, Meta(description="As Runware's SDKs send it; any value will do.")] = True


class ImageUpload(Task, frozen=True, kw_only=True, tag="imageUpload"):
    """Stores an image for later tasks. The same image always gets the same UUID."""

    image: Image
    ttl: TimeToLive = None


class MediaStorage(Task, frozen=True, kw_only=True, tag="mediaStorage"):
    """Stores an image as `imageUpload` does, or deletes one."""

    operation: Annotated[Literal["upload", "delete"], Meta(description="What to do with `media`.")]
    media: Annotated[Image, Meta(description="The image to store; to delete one, its UUID.")]


class Inputs(Struct, frozen=True):
    """The input of a task, in today's spelling."""

    image: Image | UnsetType = UNSET
    video: Annotated[Raw | UnsetType, refused("this server upscales images only", **{"not": {}})] = UNSET


class UpscaleSettings(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """Parameters that only some models have: `modelSearch` lists them by model. Others are refused."""

    steps: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | UnsetType,
        Meta(
            description="How many steps remove noise. More than the default cost more, in proportion. "
            "Default: the model's `defaultSteps`."
        ),
    ] = UNSET
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=2**63 - 1)] | UnsetType,
        Meta(
            description="Determines the noise: the same seed gives the same image. Default: derived from "
            "the `taskUUID`."
        ),
    ] = UNSET
    cfg_scale: Annotated[
        Annotated[float, Meta(ge=0, le=50)] | UnsetType,
        Meta(
            description="How strongly to follow `positivePrompt` and avoid `negativePrompt`. Up to 1 the "
            "prompts do not guide, and work and cost are half. Default: 1; for creative "
            "upscalers according to `promptFidelity`."
        ),
    ] = UNSET
    positive_prompt: Annotated[
        Prompt | UnsetType, Meta(description="What the picture should show. Default: nothing in particular.")
    ] = UNSET
    negative_prompt: Annotated[
        Prompt | UnsetType,
        Meta(
            description="What the picture should not show; needs a `CFGScale` above 1. Default: nothing in "
            "particular."
        ),
    ] = UNSET
    strength: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | UnsetType,
        Meta(
            description="The share of the steps that are done, at least one step. Below 1 the steps start "
            "from the image instead of noise, so that the result stays closer to it. Default: "
            "1; for creative upscalers according to `creativity`."
        ),
    ] = UNSET
    scheduler: Annotated[
        Scheduler | UnsetType,
        Meta(
            description="The method that removes noise. Heun processes the image twice in each step and "
            "costs accordingly. Default: the model's own, mostly Euler."
        ),
    ] = UNSET
    color_fix: Annotated[
        ColorFix | bool | UnsetType,
        Meta(
            description="Takes the colours from the input: those of coarse structures (`wavelet`, or true), "
            "or their mean and contrast (`adain`). Default: false; true for creative upscalers."
        ),
    ] = UNSET
    noise_level: Annotated[
        Annotated[int, Meta(ge=0, le=10_000)] | UnsetType,
        Meta(
            description="How much noise is added to the image before the model sees it, from 0 to the "
            "model's maximum. Higher values invent more. Default: 20."
        ),
    ] = UNSET
    denoise: Annotated[
        Annotated[int, Meta(ge=0, le=3)] | UnsetType,
        Meta(
            description="How much noise and JPEG damage to remove first, from 0, a little, to 3. Default: "
            "none."
        ),
    ] = UNSET
    control_net_weight: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | UnsetType,
        Meta(
            description="The weight of the ControlNet, which preserves the shapes of the image. Default: "
            "according to `imageFidelity`."
        ),
    ] = UNSET
    clip_skip: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | UnsetType,
        Meta(
            description="How many layers of the text encoder to skip for `positivePrompt`, up to the "
            "model's number of layers. Default: 0."
        ),
    ] = UNSET
    tile_diffusion: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether to draw images that are larger than the model's window in overlapping "
            "windows. This is always done, so false is refused. Default: true."
        ),
    ] = UNSET
    preset: Annotated[
        Preset | UnsetType,
        Meta(
            description="Determines the settings from `creativity` to `styleImagesFidelity` that the task "
            "leaves out: `precise` stays close to the image, `creative` adds to it. Default: "
            "`balanced`."
        ),
    ] = UNSET
    style: Annotated[
        Style | UnsetType,
        Meta(description="The style to draw in: adds words to both prompts. Default: `standard`."),
    ] = UNSET
    override_embeddings: Annotated[
        bool | UnsetType,
        Meta(description="Whether to use the prompts unchanged, without the words of `style`."),
    ] = UNSET
    creativity: Annotated[
        Percent | UnsetType,
        Meta(
            description="How far the result may depart from the image. Sets `strength`. Default: by `preset`."
        ),
    ] = UNSET
    creativity_decay: Annotated[
        Percent | UnsetType,
        Meta(
            description="How much of the creativity is left in each further pass, in percent. Each pass at "
            "most doubles the image. Default: by `preset`."
        ),
    ] = UNSET
    hallucination: Annotated[
        Percent | UnsetType,
        Meta(description="How much to invent that is not in the image. Default: by `preset`."),
    ] = UNSET
    image_fidelity: Annotated[
        Percent | UnsetType,
        Meta(
            description="How closely to keep the shapes of the image. Sets `controlNetWeight`. Default: by "
            "`preset`."
        ),
    ] = UNSET
    prompt_fidelity: Annotated[
        Percent | UnsetType,
        Meta(description="How closely to follow the prompts. Sets `CFGScale`. Default: by `preset`."),
    ] = UNSET
    details_level: Annotated[
        Annotated[float, Meta(ge=-50, le=50)] | UnsetType,
        Meta(description="How much detail to add, or below 0, to remove. Default: by `preset`."),
    ] = UNSET
    fractality: Annotated[
        Percent | UnsetType,
        Meta(
            description="How small the windows are: small ones give more detail, large ones are more "
            "coherent and take longer. Default: by `preset`."
        ),
    ] = UNSET
    refinement_steps: Annotated[
        Annotated[int, Meta(ge=0, le=4)] | UnsetType,
        Meta(description="How often to redraw the image at its own size before it is enlarged. Default: 0."),
    ] = UNSET
    style_images: Annotated[
        ImageName | Annotated[list[ImageName], Meta(min_length=1, max_length=4)] | UnsetType,
        Meta(
            description="Images whose style to use, one or a list of up to 4: UUIDs of uploads or earlier "
            "results, or URLs, whose images are stored like uploads. Default: none."
        ),
    ] = UNSET
    style_images_fidelity: Annotated[
        Percent | UnsetType,
        Meta(description="The weight of `styleImages`. Default: by `preset`."),
    ] = UNSET
    tile_style: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether each window uses the part of the style image at its own place. Suits style "
            "images of a similar composition. Default: false."
        ),
    ] = UNSET
    enlarger: Annotated[
        Name | UnsetType,
        Meta(
            description="What enlarges the image before it is redrawn: the name or AIR id of a model that "
            "is not a diffusion upscaler, or the filter `lanczos`. Its own price is added. "
            "Default: the server's default model."
        ),
    ] = UNSET


class Safety(Struct, frozen=True, rename=wire_name):
    """Whether to check the input and the result for content that is not safe for work."""

    check_content: Annotated[bool | None, Meta(description="Whether to check: the same as `checkNSFW`.")] = (
        None
    )
    mode: Annotated[
        Literal["none", "fast", "full"] | None,
        Meta(description="`fast` and `full` check, which is the same for images; `none` does not."),
    ] = None
    action: Annotated[
        SafetyAction | None,
        Meta(
            description="What to do with unsafe images: `flag` marks the result; `refuse` lets the task "
            "fail with `nsfwContentDetected`, at no cost. Both imply a check. Default: `flag`."
        ),
    ] = None


class BlendWith(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """A second model, whose result is mixed into that of the first."""

    model: Annotated[Name, Meta(description="The name or AIR id of the second model.")]
    visibility: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The share of the second model's result: with 0 it has no effect and costs nothing, "
            "with 1 only its result remains.",
        ),
    ]


class Denoise(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """Removes noise before the upscale, with any model: a separate step, at its own price."""

    strength: Annotated[
        float,
        Meta(
            ge=0,
            le=75,
            description="How much: the standard deviation of the noise, in levels of 255. A good camera in "
            "poor light has 5; 25 is obviously noisy, 50 barely recognizable; 0 removes none. A "
            "value above the picture's noise removes texture as well.",
        ),
    ]
    model: Annotated[
        Name | None, Meta(description="The name or AIR id of a denoiser. Default: the one that is installed.")
    ] = None


class Sequence(Struct, frozen=True, kw_only=True, rename=wire_name):
    """Makes a task a frame of a stream."""

    name: Annotated[
        str, Meta(min_length=1, max_length=64, description="The stream's name, unique within the account.")
    ]
    number: Annotated[
        int, Meta(ge=0, le=2**53 - 1, description="The frame's number. Outcomes arrive in this order.")
    ]
    in_flight: Annotated[
        int, Meta(ge=1, le=64, description="How many frames of the stream are processed at once.")
    ] = 2
    latest: Annotated[
        bool,
        Meta(
            description="Whether to drop waiting frames as soon as this one arrives, as in live video: "
            "their tasks end with `frameDropped` and cost nothing."
        ),
    ] = False


class FaceRestoration(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """Restores the faces in the picture, with any model: a separate step, at its own price."""

    model: Annotated[
        Name | None,
        Meta(description="The name or AIR id of a face restorer. Default: the one that is installed."),
    ] = None
    visibility: Annotated[
        float, Meta(ge=0, le=1, description="How visible the restored faces are; 0 restores none.")
    ] = 1.0
    weight: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | UnsetType,
        Meta(
            description="For CodeFormer: 0 gives the finest face, 1 the one most similar to the input. "
            "Default: 0.5."
        ),
    ] = UNSET
    upscale_first: Annotated[
        bool,
        Meta(
            description="Whether to restore the faces of the result instead of those of the input. In both "
            "cases they appear in the result, at its resolution."
        ),
    ] = False


class Upscale(Task, frozen=True, kw_only=True, tag="upscale"):
    """Enlarges an image."""

    model: Annotated[
        Name | None,
        Meta(description="The name or AIR id of a model. Default: `runware:504@1`, Real-ESRGAN x4plus."),
    ] = None
    inputs: Inputs = Inputs()
    input_image: Annotated[
        Image | UnsetType, Meta(description="The classic spelling of `inputs.image`; give one of the two.")
    ] = UNSET
    upscale_factor: Annotated[
        Annotated[float, Meta(extra_json_schema={"minimum": 1, "maximum": 16})] | None,
        Meta(
            description="How many times as wide and high: any number from 1 (restore only) to 16. Beyond "
            "the model's own factors it takes several passes. Models without "
            "`fractionalFactors` take only their own factors. Default: the largest of these."
        ),
    ] = None
    target_megapixels: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | None,
        Meta(description="The size of the result in million pixels, instead of a factor."),
    ] = None
    width: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(
            description="The width of the result in pixels, instead of a factor; the height follows. If "
            "both are given, `resizeMode` applies."
        ),
    ] = None
    height: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="The height of the result in pixels, instead of a factor; the width follows."),
    ] = None
    resize_mode: Annotated[
        ResizeMode | None,
        Meta(
            description="What `width` and `height` together mean: `fit`, the largest size within both; "
            "`fill`, the smallest that covers both; `crop`, exactly both, cropped; `stretch`, "
            "exactly both, distorted. Default: `fit`."
        ),
    ] = None
    seamless: Annotated[
        Seamless | bool | None,
        Meta(
            description="For textures and skyboxes: joins opposite edges, so that results side by side show "
            "no seam. `x` joins left and right, `y` top and bottom, `both` (or true) all. "
            "Latent upscalers do not support it."
        ),
    ] = None
    tta: Annotated[
        Literal[1, 8] | None,
        Meta(
            description="8: the result is the mean over the eight flips and rotations of the picture "
            "(test-time augmentation), a little more accurate for eight times the work and "
            "cost. Default: 1."
        ),
    ] = None
    blend: Annotated[
        BlendWith | None,
        Meta(
            description="A second model, whose result is mixed into that of the first; its price is added. "
            "`settings` apply to the first."
        ),
    ] = None
    output_type: Annotated[
        OutputType | Annotated[list[OutputType], Meta(min_length=1, max_length=8)],
        Meta(description="How the result is returned: one way, or a list of them."),
    ] = OutputType.URL
    output_format: Annotated[
        OutputFormat,
        Meta(description="The file format of the result. `RAW`, in MessagePack only, returns its pixels."),
    ] = OutputFormat.JPG
    store: Annotated[
        bool | None,
        Meta(
            description="Whether to store raw pixels, as PNG: those of the input, and with `RAW` those of "
            "the result. Files are always stored. Default: false."
        ),
    ] = None
    output_quality: Annotated[int, Meta(ge=20, le=99, description="The quality of JPG and WEBP.")] = 95
    include_cost: Annotated[bool, Meta(description="Whether the result contains its cost.")] = False
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
        bool,
        Meta(
            description="Whether to keep EXIF (including GPS), XMP, IPTC, texts such as PNG's `parameters`, "
            "and the resolution, as far as the format can. Colour profiles are always kept."
        ),
    ] = False
    keep_hidden_colors: Annotated[
        bool,
        Meta(
            description="Whether to keep the colours of transparent pixels, for textures that use alpha as "
            "a mask. Otherwise they take the colours of visible pixels nearby, so that edges "
            "get no fringes. PNG and WEBP only."
        ),
    ] = False
    sequence: Annotated[
        Sequence | None,
        Meta(description="Makes the task a frame of a stream, such as a video."),
    ] = None
    delivery_method: Annotated[
        DeliveryMethod,
        Meta(
            description="`async`: a task that takes longer than the setting `acknowledge_after` is "
            "acknowledged first. Over HTTP, get its result with `getResponse`."
        ),
    ] = "sync"
    webhook_url: Annotated[
        TargetUrl | None,
        Meta(description="Where the outcome is sent by POST, as the frame that a socket would get."),
    ] = None
    upload_endpoint: Annotated[TargetUrl | None, Meta(description="Where the image is sent by PUT.")] = None
    traceparent: Annotated[
        TraceParent | None,
        Meta(
            description="The trace that the task belongs to, as in W3C Trace Context. Its spans become part "
            "of it, and webhooks and uploads pass it on. Over HTTP the header of the same name "
            "does the same."
        ),
    ] = None
    ttl: TimeToLive = None
    check_nsfw: Annotated[
        bool,
        Meta(
            description="Whether to check the input and the result for content that is not safe for work; "
            "the result then contains `NSFWContent`. Needs `tilewire models pull open-nsfw` on "
            "the server."
        ),
    ] = False
    safety: Annotated[
        Safety | None, Meta(description="The same check in more detail, and what to do with unsafe images.")
    ] = None
    denoise: Annotated[
        Denoise | None,
        Meta(
            description="Removes noise first, with any model. `settings.denoise` is something else, which "
            "only some models have."
        ),
    ] = None
    face_restoration: Annotated[
        FaceRestoration | None, Meta(description="Restores faces, with any model.")
    ] = None
    restore_only: Annotated[
        bool,
        Meta(
            description="Whether to do only `denoise` and `faceRestoration`: the picture keeps its size and "
            "no model upscales it, so none can be named."
        ),
    ] = False
    settings: Annotated[
        UpscaleSettings | None,
        Meta(description="Parameters that only some models have: see their `parameters`."),
    ] = None
    number_results: Annotated[int, refused("an upscale has one result", const=1)] = 1


class ImageUpscale(Upscale, frozen=True, kw_only=True, tag="imageUpscale"):
    """Enlarges an image: the classic name of `upscale`."""


class GetResponse(Task, frozen=True, kw_only=True, tag="getResponse"):
    """Returns the result of the earlier task with this `taskUUID`, its error, or its progress."""


class GetTaskDetails(Task, frozen=True, kw_only=True, tag="getTaskDetails"):
    """Returns the earlier task with this `taskUUID` as it was sent, and its outcome."""


class AccountManagement(Task, frozen=True, kw_only=True, tag="accountManagement"):
    """Returns the account's balance and keys, or its usage by day."""

    operation: Annotated[
        Name,
        Meta(
            description="`getDetails`: balance, keys, usage; `getUsageActivity`: tasks and spending; "
            "`getUsagePerformance`: times of tasks on a device; `getUsageErrors`: failed tasks. "
            "The other parameters apply to the last three.",
            extra_json_schema={
                "enum": ["getDetails", "getUsageActivity", "getUsagePerformance", "getUsageErrors"]
            },
        ),
    ]
    start_date: Annotated[date | None, Meta(description="The first day, `YYYY-MM-DD`.")] = None
    end_date: Annotated[
        date | None, Meta(description="The last day, inclusive; at most 30 days after the first.")
    ] = None
    models: Annotated[
        Annotated[list[Name], Meta(min_length=1, max_length=100)] | None,
        Meta(description="Only of these models, by name or AIR id. Default: all."),
    ] = None
    api_keys: Annotated[
        Annotated[list[Name], Meta(min_length=1, max_length=100)] | None,
        Meta(description="Only of these API keys, by `name` or `apiKey` as in `getDetails`. Default: all."),
    ] = None
    group_by: Annotated[
        Annotated[list[UsageGroup], Meta(min_length=1, max_length=3)] | None,
        Meta(
            description="The dimensions of the report: `date` gives `timeseries`, and a row for each day in "
            'the others; `model` and `apiKey` give those. Default: `["date", "model"]`.'
        ),
    ] = None
    timezone: Annotated[
        Name | None, Meta(description="The time zone of the days, such as `Europe/Berlin`. Default: `UTC`.")
    ] = None


class ModelSearch(Task, frozen=True, kw_only=True, tag="modelSearch"):
    """Lists the installed models."""

    search: Annotated[
        str,
        Meta(
            max_length=256,
            description="Words that must all occur in the name, AIR id, title or description.",
        ),
    ] = ""
    category: Annotated[
        Name | None,
        Meta(
            description="`upscaler`, or an auxiliary model: `denoiser`, `faceRestorer`, `faceDetector`. "
            "Default: `upscaler`."
        ),
    ] = None
    architecture: Annotated[Name | None, Meta(description="Such as `esrgan`.")] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="The maximum number of models to list.")] = 20
    offset: Annotated[int, Meta(ge=0, description="How many models to skip.")] = 0


class Cancel(Task, frozen=True, kw_only=True, tag="cancel"):
    """Stops a task, which is then answered with the error `taskCancelled`. Only what was sent is charged."""

    target_task_uuid: Annotated[TaskUuid, Meta(description="The `taskUUID` of the task to stop.")]


TASK_CLASSES: Final[tuple[type[Task], ...]] = (
    Authentication,
    Ping,
    ImageUpload,
    MediaStorage,
    ImageUpscale,
    Upscale,
    GetResponse,
    GetTaskDetails,
    AccountManagement,
    ModelSearch,
    Cancel,
)
"""One for each `taskType`."""
