"""What weights may be: one Struct for each format, which says what its files are and how they are run.

They are frozen and check themselves; nothing here reads or writes a file.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Final, Literal, Self

from msgspec import Meta, Struct
from msgspec.structs import replace

__all__ = [
    "NOT_WRITTEN",
    "CreativeWeights",
    "DefaultScheduler",
    "Denoise",
    "DiffusionWeights",
    "LatentWeights",
    "NcnnWeights",
    "OnnxWeights",
    "Pixels",
    "Scale",
    "Sha256",
    "WeightFile",
    "Weights",
]

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Scale = Annotated[int, Meta(ge=2)]
Pixels = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
DefaultScheduler = Literal[
    "Euler", "Euler Karras", "Euler a", "Heun", "Heun Karras", "DPM++ 2M", "DPM++ 2M Karras"
]
Denoise = Annotated[int, Meta(ge=0, le=3)]
"""How much noise a network takes away beside enlarging: 0 little, 3 most."""


class WeightFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of weights: its path, relative to what its owner says, and its SHA-256."""

    path: str
    sha256: Sha256


NOT_WRITTEN: Final = WeightFile("", "0" * 64)
"""Stands for a file in an entry that is on its way: its name and its SHA-256 come when it is written."""

WeightFiles = Annotated[tuple[WeightFile, ...], Meta(min_length=1, max_length=2)]
"""An ONNX file, and its external data if there is some."""


class NcnnWeights(Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="ncnn"):
    """Trained weights for one native scale, as an installable distribution carries them."""

    scale: Scale
    """The network turns (H, W) into (scale x H, scale x W)."""
    distribution: str
    """The name to install it by, as package indexes know it."""
    param: WeightFile
    """The network's layers, as text; relative to where packages are installed, as is `bin`."""
    bin: WeightFile
    """The trained numbers, in the order of the layers."""

    denoise: ClassVar[None] = None

    @property
    def label(self) -> str:
        """What its files are called by, after the model's name."""
        return f"{self.scale}x"


class OnnxWeights(Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="onnx"):
    """An ONNX file that is ready to run: uint8 NHWC in and out, N, H and W dynamic."""

    scale: Scale
    """The network turns (H, W) into (scale x H, scale x W)."""
    file: WeightFile
    """Relative to the entry's own file; absolute once the entry is loaded."""
    denoise: Denoise | None = None
    """How much noise it takes away; None if it is trained for clean pictures, or for any."""

    @property
    def label(self) -> str:
        """What its files are called by, after the model's name."""
        return f"{self.scale}x" if self.denoise is None else f"{self.scale}x-denoise{self.denoise}"


class DiffusionWeights(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parts of a model that removes noise from latents: ONNX files, each with its external data.

    All take and return float32, except for images, which are uint8 as inputs, and tokens, int64; the first
    axis is the batch. A latent has `channels` numbers for each cell of `cell` x `cell` pixels. Paths are
    relative to the entry's own file; absolute once the entry is loaded.
    """

    text_encoder: WeightFiles | None = None
    """None if the model takes no prompts."""
    tokenizer: WeightFile | None = None
    """The text encoder's. As the package `tokenizers` reads it; cuts and fills a prompt to T tokens."""
    vae_encoder: WeightFiles
    unet: WeightFiles
    vae_decoder: WeightFiles
    channels: Pixels
    cell: Pixels
    """The side, in pixels of the encoder's image, of what it makes one element of."""
    multiple: Pixels
    """The sides of the UNet's input are multiples of it, and at least twice as long."""
    scaling_factor: Positive
    """What the encoder's latents are multiplied with for the UNet."""
    beta_start: Positive
    """The noise that the UNet was trained with: beta rises from here, in `noise_steps`."""
    beta_end: Positive
    curve: Literal["linear", "scaled_linear"] = "scaled_linear"
    """What rises evenly: beta, or its square root."""
    noise_steps: Annotated[int, Meta(ge=2)]
    spacing: Literal["linspace", "trailing", "leading"] = "linspace"
    """Which of them the sampler takes; see `engines.latent.samplers.noise_levels`."""
    steps_offset: Annotated[int, Meta(ge=0, le=1)] = 1
    """Where the steps begin with the spacing "leading"."""
    last_noise: Literal["zero", "least"] = "zero"
    """What Euler's last step leaves: no noise, or the least of the training, as DDIM can."""
    default_scheduler: DefaultScheduler = "Euler"
    """What takes the noise away if a task does not say."""
    default_steps: Annotated[int, Meta(ge=1, le=100)] = 20
    """How many steps a task takes that does not say; its price is for as many."""

    denoise: ClassVar[None] = None
    part_names: ClassVar[tuple[str, ...]]
    """The fields that are networks, of which some may be missing."""

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        if (self.text_encoder is None) != (self.tokenizer is None):
            raise ValueError("text_encoder and tokenizer must be given together, or neither")

    @property
    def parts(self) -> dict[str, WeightFiles]:
        """The networks that it has, by name."""
        found = {name: getattr(self, name) for name in self.part_names}
        return {name: files for name, files in found.items() if files is not None}

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """All of them."""
        networks = tuple(file for part in self.parts.values() for file in part)
        return networks if self.tokenizer is None else (*networks, self.tokenizer)

    def with_files(self, change: Callable[[WeightFile], WeightFile]) -> Self:
        """The same with each file replaced."""
        parts = {name: tuple(map(change, files)) for name, files in self.parts.items()}
        return replace(self, **parts, tokenizer=self.tokenizer and change(self.tokenizer))


class LatentWeights(DiffusionWeights, frozen=True, kw_only=True, tag_field="format", tag="latent"):
    """A latent upscaler: its decoder returns an image that is `scale` times as large as the encoder's.

    The encoder's image (N, H, W, 3) RGB becomes mean and deviation of what the UNet sees, (N, I, H / cell,
    W / cell) each; with latents (N, C, h, w) the decoder returns an image in [0, 1], not clipped.

    A text encoder makes tokens (N, T) into context (N, T, D) and maybe pooled (N, P). The UNet takes noisy
    and image (N, C + I, h, w), time (N), and with a text encoder context and, if there is pooled, condition
    (N, 128 + P); it returns the denoised (N, C, h, w). Time is a quarter of the logarithm of the noise's
    deviation.
    """

    scale: Literal[2, 4]
    spread: Literal[1, 2] = 2
    """Side of the UNet's latents / side of what the encoder returns, which is repeated to that size."""
    noise_levels: Annotated[int, Meta(ge=0)] = 0
    """How many levels of noise can be added to the image before the UNet sees it; 0 is none.

    With some, encoder and UNet take `level` (N) int64 as their last input.
    """
    default_noise_level: Annotated[int, Meta(ge=0)] = 20
    draft_steps: Annotated[int, Meta(ge=0, le=100)] = 0
    """How many steps a task takes with a strength below 1 that does not say.

    Where it is not 0 what such a task begins with is the model's own draft, made in one step, in place of the
    encoder's latents: these are not those of a picture.
    """

    part_names: ClassVar[tuple[str, ...]] = ("text_encoder", "vae_encoder", "unet", "vae_decoder")

    @property
    def label(self) -> str:
        """What its files are called by, after the model's name."""
        return f"{self.scale}x"


class CreativeWeights(DiffusionWeights, frozen=True, kw_only=True, tag_field="format", tag="creative"):
    """A creative upscaler: image-to-image diffusion that draws a picture anew at the size it has.

    The picture is enlarged first, by at most `scale` in a pass. Its parts are those of diffusers' Stable
    Diffusion pipelines, in this order of inputs:

    - text_encoder: tokens (N, T), skip (N) int64 -> context (N, T, D) and, with `xl`, pooled (N, P). Skip is
      0 for the layer that the pipeline takes, k for the one k layers before it. The two encoders of `xl` are
      one part.
    - vae_encoder: image (N, H, W, 3) RGB -> mean and deviation of its latents, (N, C, H / cell, W / cell)
      each, before `scaling_factor`.
    - controlnet: noisy (N, C, h, w), time (N), context, with `xl` pooled and sizes (N, 6), then image
      (N, cell x h, cell x w, 3) uint8 -> its residuals, first those on the way down, last that of the middle.
    - image_encoder: image (N, 224, 224, 3) uint8, resized and cut -> image tokens (N, K, D2), and those that
      stand for no image.
    - unet: noisy, time, context, with `xl` pooled and sizes; with a ControlNet its residuals, each times its
      weight; with an image encoder image tokens (N, K, D2) and image weight (N) -> (N, C, h, w).
    - vae_decoder: latents (N, C, h, w), divided by `scaling_factor` -> image (N, H, W, 3) in [0, 1], not
      clipped.

    Noisy, time and what the UNet returns are those of `LatentWeights`: noisy is divided by the root of
    s^2 + 1, s being the noise's deviation; time is log(s) / 4; what is returned, F, gives the denoised as
    x / (s^2 + 1) + F s / root(s^2 + 1), x being the latents with noise. Sizes are height and width of the
    original, top and left of the crop, height and width of the target.
    """

    controlnet: WeightFiles | None = None
    image_encoder: WeightFiles | None = None
    """Of an IP-Adapter, with its projection."""
    xl: bool = False
    """Whether text encoder, ControlNet and UNet are those of Stable Diffusion XL."""
    blank_negative: bool = False
    """Whether an empty negative prompt is zeros in place of what the text encoder makes of it: diffusers'
    `force_zeros_for_empty_prompt`."""
    largest_clip_skip: Annotated[int, Meta(ge=0, le=100)] = 0

    scale: ClassVar[Literal[2]] = 2
    """By how much a picture may be enlarged before it is drawn anew once."""
    label: ClassVar[str] = "creative"
    """What its files are called by, after the model's name."""
    parameters: ClassVar[tuple[str, ...]] = (
        "positivePrompt",
        "negativePrompt",
        "preset",
        "style",
        "creativity",
        "creativityDecay",
        "hallucination",
        "imageFidelity",
        "promptFidelity",
        "detailsLevel",
        "fractality",
        "refinementSteps",
        "overrideEmbeddings",
        "styleImages",
        "styleImagesFidelity",
        "tileStyle",
        "steps",
        "seed",
        "CFGScale",
        "strength",
        "scheduler",
        "controlNetWeight",
        "clipSkip",
        "colorFix",
        "tileDiffusion",
        "enlarger",
    )
    """The names of the task settings that its kind can honour, those of most interest first."""
    part_names: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "vae_encoder",
        "controlnet",
        "image_encoder",
        "unet",
        "vae_decoder",
    )

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        DiffusionWeights.__post_init__(self)
        if self.text_encoder is None:
            raise ValueError("a creative upscaler takes prompts: text_encoder is missing")

    @property
    def multiple_in_pixels(self) -> int:
        """What the sides of windows must be multiples of, in pixels; the least is twice that."""
        return self.multiple * self.cell

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of the task settings that its parts can honour: the `parameters` of its entry."""
        missing = {"controlNetWeight", "imageFidelity"} if self.controlnet is None else set()
        if self.largest_clip_skip == 0:
            missing.add("clipSkip")
        if self.image_encoder is None:
            missing |= {"styleImages", "styleImagesFidelity", "tileStyle"}
        return tuple(name for name in self.parameters if name not in missing)


Weights = NcnnWeights | OnnxWeights | LatentWeights | CreativeWeights
"""Weights for one native scale; the entry's `format` says which."""
