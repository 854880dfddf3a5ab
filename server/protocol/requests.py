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
            description="An API key, as `tilewire keys create` printed it; or a token made with one.",
        ),
    ]
    connection_session_uuid: Annotated[
        Annotated[str, Meta(pattern=r"^[\w-]+$", max_length=36)] | None,
        Meta(description="The session to resume; what it could not be sent follows the reply."),
    ] = None
    previous_api_key: Annotated[
        Annotated[str, Meta(max_length=256)] | None,
        Meta(
            description="A token, perhaps expired, whose place the token `apiKey` takes: it sees the tasks, "
            "images and sessions of that one."
        ),
    ] = None


class Ping(Task, frozen=True, kw_only=True, tag="ping"):
    """The heartbeat. A connection that is silent for two minutes while none of its tasks runs is closed."""

    task_uuid: Annotated[str, Meta(description="Not needed.")] = ""
    ping: Annotated[bool, Meta(description="As Runware's SDKs send it; any value will do.")] = True


class ImageUpload(Task, frozen=True, kw_only=True, tag="imageUpload"):
    """Keeps an image for later tasks. The same image again gets the same UUID."""

    image: Image
    ttl: TimeToLive = None


class MediaStorage(Task, frozen=True, kw_only=True, tag="mediaStorage"):
    """Keeps an image as `imageUpload` does, or deletes one."""

    operation: Annotated[Literal["upload", "delete"], Meta(description="What to do with `media`.")]
    media: Annotated[Image, Meta(description="The image to keep; to delete one, its UUID.")]


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
            "there is no such guidance, and half the work and cost. Default: 1; of creative upscalers what "
            "`promptFidelity` comes to."
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
            description="The share of the steps that are done, at least one. Below 1 the image itself is "
            "begun with, not noise: the result stays nearer to it. Default: 1; of creative upscalers what "
            "`creativity` comes to."
        ),
    ] = UNSET
    scheduler: Annotated[
        Scheduler | UnsetType,
        Meta(description="How noise is removed. Heun takes, and costs, two looks a step. Default: Euler."),
    ] = UNSET
    color_fix: Annotated[
        ColorFix | bool | UnsetType,
        Meta(
            description="Takes the colours from the input: those of coarse structures (`wavelet`, or true), "
            "or their mean and contrast (`adain`). Default: false; of creative upscalers true."
        ),
    ] = UNSET
    noise_level: Annotated[
        Annotated[int, Meta(ge=0, le=10_000)] | UnsetType,
        Meta(
            description="How much noise is added to the image before the model sees it, from 0 to its "
            "maximum: the more, the more it invents. Default: 20."
        ),
    ] = UNSET
    denoise: Annotated[
        Annotated[int, Meta(ge=0, le=3)] | UnsetType,
        Meta(
            description="How much noise and JPEG damage to take away first, from 0, a little, to 3. "
            "Default: none is taken away."
        ),
    ] = UNSET
    control_net_weight: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | UnsetType,
        Meta(
            description="How much the ControlNet counts, which holds on to the shapes of the image. "
            "Default: what `imageFidelity` comes to."
        ),
    ] = UNSET
    clip_skip: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | UnsetType,
        Meta(
            description="How many layers of the text encoder are left out for `positivePrompt`, up to what "
            "the model has. Default: 0."
        ),
    ] = UNSET
    tile_diffusion: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether to draw an image that is larger than the model's window in windows that "
            "overlap: always so, and false is refused. Default: true."
        ),
    ] = UNSET
    preset: Annotated[
        Preset | UnsetType,
        Meta(
            description="What the settings from `creativity` to `styleImagesFidelity` are where a task does "
            "not say: `precise` stays near to the image, `creative` adds to it. Default: `balanced`."
        ),
    ] = UNSET
    style: Annotated[
        Style | UnsetType,
        Meta(description="What is drawn in: adds words to both prompts. Default: `standard`."),
    ] = UNSET
    override_embeddings: Annotated[
        bool | UnsetType,
        Meta(description="Whether the prompts are taken as they are, without the words of `style`."),
    ] = UNSET
    creativity: Annotated[
        Percent | UnsetType,
        Meta(description="How far from the image. Sets `strength`. Default: by `preset`."),
    ] = UNSET
    creativity_decay: Annotated[
        Percent | UnsetType,
        Meta(
            description="How much of the creativity is left in each further pass, of which each at most "
            "doubles the image: 100 all of it. Default: by `preset`."
        ),
    ] = UNSET
    hallucination: Annotated[
        Percent | UnsetType,
        Meta(description="How much is added that is not in the image. Default: by `preset`."),
    ] = UNSET
    image_fidelity: Annotated[
        Percent | UnsetType,
        Meta(
            description="How closely the shapes of the image are kept. Sets `controlNetWeight`. Default: by "
            "`preset`."
        ),
    ] = UNSET
    prompt_fidelity: Annotated[
        Percent | UnsetType,
        Meta(description="How closely the prompts are followed. Sets `CFGScale`. Default: by `preset`."),
    ] = UNSET
    details_level: Annotated[
        Annotated[float, Meta(ge=-50, le=50)] | UnsetType,
        Meta(description="How much detail to add; below 0, to take away. Default: by `preset`."),
    ] = UNSET
    fractality: Annotated[
        Percent | UnsetType,
        Meta(
            description="How small the windows are that are drawn at once: small ones get more detail, large "
            "ones more coherence, and take longer. Default: by `preset`."
        ),
    ] = UNSET
    refinement_steps: Annotated[
        Annotated[int, Meta(ge=0, le=4)] | UnsetType,
        Meta(description="How often the image is drawn at its own size before it is enlarged. Default: 0."),
    ] = UNSET
    style_images: Annotated[
        ImageName | Annotated[list[ImageName], Meta(min_length=1, max_length=4)] | UnsetType,
        Meta(
            description="Images to take a style from, one or a list of up to 4: the UUIDs of uploads or "
            "earlier results, or URLs, which are kept as uploads are. Default: none."
        ),
    ] = UNSET
    style_images_fidelity: Annotated[
        Percent | UnsetType,
        Meta(description="How much `styleImages` count. Default: by `preset`."),
    ] = UNSET
    tile_style: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether each window takes its style from that part of the style image that is where "
            "it is. Best with one of a similar composition. Default: false."
        ),
    ] = UNSET
    enlarger: Annotated[
        Name | UnsetType,
        Meta(
            description="What enlarges the image before it is drawn: the name or AIR id of a model that is "
            "no diffusion upscaler, or `lanczos`, a filter. Costs what it costs by itself. Default: the "
            "server's default model."
        ),
    ] = UNSET


class Safety(Struct, frozen=True, rename=wire_name):
    """Whether to look for what is not safe for work, in the input and in the result."""

    check_content: Annotated[bool | None, Meta(description="Whether to look: the same as `checkNSFW`.")] = (
        None
    )
    mode: Annotated[
        Literal["none", "fast", "full"] | None,
        Meta(description="`fast` and `full` are to look, which is the same for images; `none` is nothing."),
    ] = None
    action: Annotated[
        SafetyAction | None,
        Meta(
            description="What becomes of what is found: `flag`, the result says so, or `refuse`, the task "
            "fails with `nsfwContentDetected` and costs nothing. Either is to look. Default: `flag`."
        ),
    ] = None


class BlendWith(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """A second model, whose result is laid over that of the first."""

    model: Annotated[Name, Meta(description="The name or AIR id of the second model.")]
    visibility: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="How much of its result is seen: 0 is nothing, and costs nothing; 1 is only this.",
        ),
    ]


class Denoise(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """Noise is removed before the upscale, whatever the model: a step of its own, at its own cost."""

    strength: Annotated[
        float,
        Meta(
            ge=0,
            le=75,
            description="How much: the standard deviation of the noise, in levels of 255. 5 is a good camera "
            "in poor light, 25 plainly noisy, 50 hardly a picture; 0 removes none. More than there is takes "
            "texture as well.",
        ),
    ]
    model: Annotated[
        Name | None, Meta(description="The name or AIR id of a denoiser. Default: the one that is installed.")
    ] = None


class Sequence(Struct, frozen=True, kw_only=True, rename=wire_name):
    """Makes a task a frame of a stream."""

    name: Annotated[
        str, Meta(min_length=1, max_length=64, description="Of the stream; its own within the account.")
    ]
    number: Annotated[int, Meta(ge=0, le=2**53 - 1, description="Of the frame. Outcomes come in this order.")]
    in_flight: Annotated[
        int, Meta(ge=1, le=64, description="How many frames of the stream are worked on at once.")
    ] = 2
    latest: Annotated[
        bool,
        Meta(
            description="Whether frames that wait are dropped as soon as this one comes, as in live video: "
            "their tasks end with `frameDropped`, and cost nothing."
        ),
    ] = False


class FaceRestoration(Struct, frozen=True, kw_only=True, rename=wire_name, forbid_unknown_fields=True):
    """The faces that are found are restored, whatever the model: a step of its own, at its own cost."""

    model: Annotated[
        Name | None,
        Meta(description="The name or AIR id of a face restorer. Default: the one that is installed."),
    ] = None
    visibility: Annotated[
        float, Meta(ge=0, le=1, description="How much of the restored faces is to be seen; 0 restores none.")
    ] = 1.0
    weight: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | UnsetType,
        Meta(
            description="Of CodeFormer: from 0, the finest face, to 1, the one most like what is seen. "
            "Default: 0.5."
        ),
    ] = UNSET
    upscale_first: Annotated[
        bool,
        Meta(
            description="Whether to restore the faces of the result rather than those of the input. In both "
            "cases they are put into the result, at its resolution."
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
            description="How many times as wide and high: any number from 1 (only restored) to 16, beyond "
            "the model's own factors in several passes. Models without `fractionalFactors` take their own "
            "only. Default: the largest of its own."
        ),
    ] = None
    target_megapixels: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | None,
        Meta(description="The size of the result in million pixels, in place of a factor."),
    ] = None
    width: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(
            description="How wide the result is, in pixels, in place of a factor; its height follows. With "
            "`height` too, `resizeMode` says what both mean."
        ),
    ] = None
    height: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="How high the result is, in pixels, in place of a factor; its width follows."),
    ] = None
    resize_mode: Annotated[
        ResizeMode | None,
        Meta(
            description="What `width` and `height` together mean: `fit`, as large as fits within both; "
            "`fill`, as small as covers both; `crop`, exactly both, cut at the sides; `stretch`, exactly "
            "both, out of proportion. Default: `fit`."
        ),
    ] = None
    seamless: Annotated[
        Seamless | bool | None,
        Meta(
            description="For textures and skyboxes: the picture goes on at its opposite edge, so that "
            "results side by side show no seam. `x`: left and right meet, `y`: top and bottom, `both` "
            "(or true): all. Latent upscalers cannot."
        ),
    ] = None
    tta: Annotated[
        Literal[1, 8] | None,
        Meta(
            description="8: the result is the mean of what becomes of the eight flips and turns of the "
            "picture (test-time augmentation), a little nearer to the truth for eight times the work and "
            "cost. Default: 1."
        ),
    ] = None
    blend: Annotated[
        BlendWith | None,
        Meta(
            description="A second model, whose result is laid over the first one's; it costs what both do. "
            "`settings` are for the first one."
        ),
    ] = None
    output_type: Annotated[
        OutputType | Annotated[list[OutputType], Meta(min_length=1, max_length=8)],
        Meta(description="How the result is handed over: one way, or a list of them."),
    ] = OutputType.URL
    output_format: Annotated[
        OutputFormat,
        Meta(description="The file format of the result; `RAW`, in MessagePack only, are its pixels."),
    ] = OutputFormat.JPG
    store: Annotated[
        bool | None,
        Meta(
            description="Whether raw pixels are kept as files are, as PNG: those of the input, and with "
            "`RAW` those of the result. Files always are. Default: false."
        ),
    ] = None
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
        bool,
        Meta(
            description="Whether to keep EXIF (GPS included), XMP, IPTC, texts such as `parameters` of PNG, "
            "and the resolution, each where the format holds it. Colour profiles are always kept."
        ),
    ] = False
    keep_hidden_colors: Annotated[
        bool,
        Meta(
            description="Whether to keep the colours of transparent pixels, as textures need it whose alpha "
            "is a mask. Otherwise they become those of visible pixels nearby, so that edges get no fringes. "
            "PNG and WEBP only."
        ),
    ] = False
    sequence: Annotated[
        Sequence | None,
        Meta(description="Of a task that is a frame of a stream, such as video."),
    ] = None
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
    traceparent: Annotated[
        TraceParent | None,
        Meta(
            description="The trace that the task is part of, as W3C's Trace Context has it. Its spans become "
            "part of it, and webhook and upload carry it on. Over HTTP the header of that name does it too."
        ),
    ] = None
    ttl: TimeToLive = None
    check_nsfw: Annotated[
        bool,
        Meta(
            description="Whether to look for what is not safe for work, in the input and in the result, "
            "which then says `NSFWContent`. Needs `tilewire models pull open-nsfw` on the server."
        ),
    ] = False
    safety: Annotated[
        Safety | None, Meta(description="The same in more detail, and what becomes of what is found.")
    ] = None
    denoise: Annotated[
        Denoise | None,
        Meta(
            description="Removes noise first, whatever the model; `settings.denoise` is what some models do."
        ),
    ] = None
    face_restoration: Annotated[
        FaceRestoration | None, Meta(description="Restores faces, beside any model.")
    ] = None
    restore_only: Annotated[
        bool,
        Meta(
            description="Whether to leave the picture as large as it is, and do `denoise` and "
            "`faceRestoration` alone; no model upscales it, so none can be named."
        ),
    ] = False
    settings: Annotated[
        UpscaleSettings | None, Meta(description="What only some models take: see their `parameters`.")
    ] = None
    number_results: Annotated[int, refused("an upscale has one result", const=1)] = 1


class ImageUpscale(Upscale, frozen=True, kw_only=True, tag="imageUpscale"):
    """Enlarges an image: the classic name of `upscale`."""


class GetResponse(Task, frozen=True, kw_only=True, tag="getResponse"):
    """Asks for the result of the earlier task with this `taskUUID`, its error, or how far it is."""


class GetTaskDetails(Task, frozen=True, kw_only=True, tag="getTaskDetails"):
    """Asks what the earlier task with this `taskUUID` was sent as, and what became of it."""


class AccountManagement(Task, frozen=True, kw_only=True, tag="accountManagement"):
    """Asks for the account's balance and keys, or for what was done with it day by day."""

    operation: Annotated[
        Name,
        Meta(
            description="`getDetails`: balance, keys, usage; `getUsageActivity`: tasks and what was spent; "
            "`getUsagePerformance`: how long tasks took on a device; `getUsageErrors`: how many failed. The "
            "other parameters are for the last three.",
            extra_json_schema={
                "enum": ["getDetails", "getUsageActivity", "getUsagePerformance", "getUsageErrors"]
            },
        ),
    ]
    start_date: Annotated[date | None, Meta(description="The first day, `YYYY-MM-DD`.")] = None
    end_date: Annotated[
        date | None, Meta(description="The last day, included; at most 30 days after the first.")
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
            description="What to break it down by: `date` gives `timeseries`, and a row for each day in the "
            'others; `model` and `apiKey` give those. Default: `["date", "model"]`.'
        ),
    ] = None
    timezone: Annotated[
        Name | None, Meta(description="Whose days they are, such as `Europe/Berlin`. Default: `UTC`.")
    ] = None


class ModelSearch(Task, frozen=True, kw_only=True, tag="modelSearch"):
    """Lists the installed models."""

    search: Annotated[
        str,
        Meta(
            max_length=256,
            description="Words that the name, AIR id, title or description contains, all of them.",
        ),
    ] = ""
    category: Annotated[
        Name | None,
        Meta(
            description="`upscaler`; or what works beside: `denoiser`, `faceRestorer`, `faceDetector`. "
            "Default: `upscaler`."
        ),
    ] = None
    architecture: Annotated[Name | None, Meta(description="Such as `esrgan`.")] = None
    limit: Annotated[int, Meta(ge=1, le=100, description="The most models to list.")] = 20
    offset: Annotated[int, Meta(ge=0, description="How many to skip.")] = 0


class Cancel(Task, frozen=True, kw_only=True, tag="cancel"):
    """Stops a task, whose own reply becomes the error `taskCancelled`. What was not sent costs nothing."""

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
