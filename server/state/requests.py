"""What is kept of an upscale task that was accepted."""

from typing import Literal, NamedTuple

from msgspec import Struct

from engines import Diffusion, OutputFormat, Seamless
from server.protocol.errors import ErrorItem, TaskError
from server.protocol.raw_image import Channels
from server.protocol.requests import OutputType, ResizeMode, SafetyAction, Sequence
from server.protocol.sources import RemoteImage, StoredImage, UnstoredImage

__all__ = [
    "BlendRequest",
    "Denoiser",
    "Destination",
    "FaceRestorer",
    "Service",
    "TaskGrant",
    "UpscaleRequest",
]

Service = Literal["runware", "a1111", "novita", "photio", "scenario", "stability"]
"""In whose shape a task came: Runware's is that of sockets and `POST /v1`."""


class Destination(NamedTuple):
    """Where the outcome of a task is to be sent, and what the URLs in it begin with."""

    url: str
    base_url: str


class TaskGrant(Struct, frozen=True, omit_defaults=True):
    """What is kept of the token that a task came with.

    Attributes:
        scope: who sees the task.
        token: whose limits it counts for.
        max_megapixels: of the result.
    """

    scope: str
    token: str = ""
    max_megapixels: float | None = None


class BlendRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A second model, whose result is laid over that of the first."""

    model: str
    visibility: float
    diffusion: Diffusion | None = None


class Denoiser(Struct, frozen=True, kw_only=True):
    """What is to remove noise before the upscale."""

    model: str
    strength: float


class FaceRestorer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to restore faces."""

    model: str
    visibility: float = 1.0
    weight: float | None = None
    upscale_first: bool = False


class UpscaleRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An accepted task, as recorded: equal tasks have equal requests, whatever they were sent through."""

    task_type: str
    task_uuid: str
    model: str
    source: StoredImage | RemoteImage | UnstoredImage
    parameter: str
    factor: float | None = None
    target_megapixels: float | None = None
    width: int | None = None
    height: int | None = None
    resize_mode: ResizeMode = "fit"
    seamless: Seamless | None = None
    tta: bool = False
    blend: BlendRequest | None = None
    output_types: tuple[OutputType, ...]
    output_format: OutputFormat
    """As which the result is stored, if it is."""
    output_quality: int
    channels: Channels | None = None
    """Of raw pixels that came as the input: the pixels of the result have as many."""
    raw: bool = False
    """Whether the client gets the pixels of the result."""
    store: bool = False
    """Whether those are stored too."""
    sequence: Sequence | None = None
    ttl: int | None = None
    include_cost: bool = False
    include_progress: bool = False
    include_tiles: bool = False
    keep_metadata: bool = False
    keep_hidden_colors: bool = False
    webhook_url: str | None = None
    upload_endpoint: str | None = None
    diffusion: Diffusion | None = None
    """For models that remove noise from latents."""
    enlarger: str | None = None
    """What enlarges before a creative upscaler draws; None for a filter."""
    style_images: tuple[str, ...] = ()
    """The UUIDs of what it takes a style from."""
    denoise: int | None = None
    """For models with levels of it."""
    denoiser: Denoiser | None = None
    face_restorer: FaceRestorer | None = None
    restore_only: bool = False
    """Whether nothing is upscaled; `model` is then the one that does the last step beside."""
    safety: SafetyAction | None = None
    """What becomes of what is not safe for work, by the task's own wish; the server may have another."""
    warnings: tuple[str, ...] = ()
    service: Service = "runware"
    traceparent: str | None = None
    """Of whoever sent it, at first; sent again, the same task may come from another span."""
    grant: TaskGrant | None = None
    key: str | None = None
    """The id of the key that it came with, or that its token was made with: whose usage it counts as."""

    @property
    def scope(self) -> str | None:
        """Of the token that it came with; None if it came with a key."""
        return None if self.grant is None else self.grant.scope

    @property
    def token(self) -> str | None:
        """The id of the token that it came with."""
        return None if self.grant is None else self.grant.token

    @property
    def stores_result(self) -> bool:
        """Whether the result is stored."""
        return self.store or not self.raw

    def failure(self, error: TaskError, base_url: str) -> ErrorItem:
        """The error as the client gets it.

        Args:
            error: what went wrong.
            base_url: what the client reaches this server as.
        """
        return error.item(self.task_type, self.task_uuid, f"{base_url}/docs/errors")

    def webhook(self, base_url: str) -> Destination | None:
        """Where the outcome is to be sent besides the session; None if nowhere."""
        return None if self.webhook_url is None else Destination(self.webhook_url, base_url)
