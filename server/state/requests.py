"""What is kept of an upscale task that was accepted."""

from typing import Literal

from msgspec import Struct

from engines import Diffusion, OutputFormat, Seamless
from server.protocol.errors import ErrorItem, TaskError
from server.protocol.requests import OutputType, ResizeMode, SafetyAction
from server.protocol.sources import RemoteImage, StoredImage
from server.state.webhooks import Destination

__all__ = ["BlendRequest", "Denoiser", "Service", "UpscaleRequest"]

Service = Literal["runware", "a1111", "novita", "photio", "scenario", "stability"]
"""In whose shape a task came: Runware's is that of sockets and `POST /v1`."""


class BlendRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A second model, whose result is laid over that of the first."""

    model: str
    visibility: float
    diffusion: Diffusion | None = None


class Denoiser(Struct, frozen=True, kw_only=True):
    """What is to remove noise before the upscale."""

    model: str
    strength: float


class UpscaleRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An accepted task, as recorded: equal tasks have equal requests, whatever they were sent through."""

    task_type: str
    task_uuid: str
    model: str
    source: StoredImage | RemoteImage
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
    output_quality: int
    ttl: int | None = None
    include_cost: bool = False
    include_progress: bool = False
    include_tiles: bool = False
    keep_metadata: bool = False
    keep_hidden_colors: bool = False
    webhook_url: str | None = None
    upload_endpoint: str | None = None
    diffusion: Diffusion | None = None
    """For models that remove noise."""
    denoise: int | None = None
    """For models with levels of it."""
    denoiser: Denoiser | None = None
    safety: SafetyAction | None = None
    """What becomes of what is not safe for work, by the task's own wish; the server may have another."""
    warnings: tuple[str, ...] = ()
    service: Service = "runware"

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
