"""The entries of the catalogue: what is known of a model, and its weights.

They are frozen Structs that check themselves; nothing here reads or writes a file. What is known of a model
that can be fetched is in `published`.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from onnx_models.errors import FactorTooLargeError, NoSuchLevelError

__all__ = [
    "LARGEST_FACTOR",
    "Air",
    "DefaultScheduler",
    "Denoise",
    "LatentWeights",
    "Model",
    "Name",
    "NcnnWeights",
    "OnnxWeights",
    "Pixels",
    "Scale",
    "Sha256",
    "Url",
    "WeightFile",
    "Weights",
    "check_price",
]

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Air = Annotated[str, Meta(pattern=r"^[a-z0-9]+:[a-z0-9._-]+@[0-9]+$")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Scale = Annotated[int, Meta(ge=2)]
Pixels = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Url = Annotated[str, Meta(pattern=r"^https://")]
DefaultScheduler = Literal["Euler", "Euler Karras", "Euler a", "Heun", "Heun Karras"]
Denoise = Annotated[int, Meta(ge=0, le=3)]
"""How much noise a network takes away beside enlarging: 0 little, 3 most."""


LARGEST_FACTOR: Final = 16
"""The largest factor of models that upscale by any."""


class WeightFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of weights: its path, relative to what its owner says, and its SHA-256."""

    path: str
    sha256: Sha256


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


class LatentWeights(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="format", tag="latent"
):
    """The parts of a latent upscaler, ready to run: ONNX files, each with its external data if it has some.

    All take and return float32, except for images, which are uint8 as inputs, and tokens, int64; the first
    axis is the batch. A latent has `channels` numbers for each cell of `cell` x `cell` pixels. Paths are
    relative to the entry's own file; absolute once the entry is loaded.
    """

    scale: Literal[2, 4]
    text_encoder: WeightFiles | None = None
    """tokens (N, T) -> context (N, T, D), pooled (N, P). None if the model takes no prompts.

    Without pooled the UNet takes no condition.
    """
    vae_encoder: WeightFiles
    """image (N, H, W, 3) RGB -> mean and deviation of what the UNet sees, (N, I, H / cell, W / cell) each."""
    unet: WeightFiles
    """noisy and image (N, C + I, h, w), time (N), context, condition (N, 128 + P) -> denoised (N, C, h, w).

    Time is a quarter of the logarithm of the noise's deviation. The last two only with a text encoder.
    """
    vae_decoder: WeightFiles
    """latents (N, C, h, w) -> image in [0, 1], not clipped, of the size that the scale makes it."""
    tokenizer: WeightFile | None = None
    """The text encoder's. As the package `tokenizers` reads it; cuts and fills a prompt to T tokens."""
    channels: Pixels
    cell: Pixels
    """The side, in pixels of the input, of what the encoder makes one element of."""
    spread: Literal[1, 2] = 2
    """Side of the UNet's latents / side of what the encoder returns, which is repeated to that size."""
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
    noise_levels: Annotated[int, Meta(ge=0)] = 0
    """How many levels of noise can be added to the image before the UNet sees it; 0 is none.

    With some, encoder and UNet take `level` (N) int64 as their last input.
    """
    default_noise_level: Annotated[int, Meta(ge=0)] = 20
    default_steps: Annotated[int, Meta(ge=1, le=100)] = 20
    """How many steps a task takes that does not say; its price is for as many."""

    denoise: ClassVar[None] = None

    @property
    def label(self) -> str:
        """What its files are called by, after the model's name."""
        return f"{self.scale}x"

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        if (self.text_encoder is None) != (self.tokenizer is None):
            raise ValueError("text_encoder and tokenizer must be given together, or neither")

    @property
    def parts(self) -> dict[str, WeightFiles]:
        """The networks, by name."""
        parts = {"vae_encoder": self.vae_encoder, "unet": self.unet, "vae_decoder": self.vae_decoder}
        return parts if self.text_encoder is None else {"text_encoder": self.text_encoder} | parts

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """All of them."""
        networks = tuple(file for part in self.parts.values() for file in part)
        return networks if self.tokenizer is None else (*networks, self.tokenizer)

    def with_files(self, change: Callable[[WeightFile], WeightFile]) -> "LatentWeights":
        """The same with each file replaced."""
        parts = {name: tuple(map(change, files)) for name, files in self.parts.items()}
        return replace(self, **parts, tokenizer=self.tokenizer and change(self.tokenizer))


Weights = NcnnWeights | OnnxWeights | LatentWeights
"""Weights for one native scale; the entry's `format` says which."""


class Model(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One upscaling model: its names, what it can do, what it costs, whose work it is.

    A factor without weights of its own is made from the next larger native scale, reduced with a
    Lanczos filter: x3 of a model that only knows x4 is the x4 image made 3/4 as large.
    """

    name: Name
    """Lower-case, for people: the command line, settings, logs."""
    aliases: tuple[Name, ...] = ()
    """Other names, for what it is good at; a model of that name goes before."""
    air: Air
    """The AIR identifier, for the wire: `source:id@version`."""
    title: str
    description: str
    family: Literal["esrgan", "network", "latent"]
    """What it is: an ESRGAN or any other single network, which run tile by tile; or a latent upscaler."""
    weights: tuple[Weights, ...]
    """One for each native scale and level of noise; smallest first, without denoising before the levels."""
    factors: tuple[Scale, ...]
    """The whole factors it offers, smallest first."""
    fractional: bool
    """Whether it also offers every real factor from 1 to `LARGEST_FACTOR`, in several passes if need be."""
    overlap: Pixels
    """Context around the core of each tile, in input pixels: with it, seams cannot be seen."""
    tile: Pixels
    """The largest side of a tile, overlap included, in input pixels."""
    price_per_megapixel: Decimal
    """USD per million output pixels."""
    licence: str
    """The SPDX identifier of the weights' licence, or what else is known of it."""
    licence_url: Url | None = None
    source_url: Url | None = None
    """Where its authors publish it."""
    parameters: tuple[str, ...]
    """The names of the task settings that it honours."""
    border: Pixels = 10
    """By how many pixels an image is continued beyond its edges; no more than the overlap is needed. Without,
    a network takes what it does not see for black. The reference programs of Real-ESRGAN take ten, and with
    up to 32 a flat colour came out no flatter."""
    passes: Literal[1, 2] = 1
    """How often a picture may go through the model; twice enlarges it by the scale squared."""

    def __post_init__(self) -> None:
        """Check what the types cannot say; msgspec turns a ValueError into its own ValidationError."""
        scales = sorted({weights.scale for weights in self.weights})
        given = [(weights.scale, weights.denoise) for weights in self.weights]
        if not given or given != [
            (scale, level) for scale in scales for level in (None, *self.denoise_levels)
        ]:
            raise ValueError("weights must be given once for each scale and level of noise, smallest first")
        if bool(self.denoise_levels) != ("denoise" in self.parameters):
            raise ValueError("the parameter denoise takes weights for levels of noise")
        if not self.factors or list(self.factors) != sorted(set(self.factors)):
            raise ValueError("factors must be given once each, smallest first")
        if self.factors[-1] > self.reach:
            raise ValueError(f"no weights reach the factor {self.factors[-1]}")
        if any((self.family == "latent") != isinstance(each, LatentWeights) for each in self.weights):
            raise ValueError("the family is latent if and only if the weights are")
        if self.family == "latent" and len(scales) > 1:
            raise ValueError("a latent upscaler has weights for one scale")
        if self.passes > 1 and self.family != "latent":
            raise ValueError("only a latent upscaler takes more than one pass")
        prompts = self.latent is not None and self.latent.text_encoder is not None
        if not prompts and not _OF_PROMPTS.isdisjoint(self.parameters):
            raise ValueError("prompts take a text encoder")
        if self.tile <= 2 * self.overlap:
            raise ValueError("tile must be larger than the overlap on both its sides")
        check_price(self.price_per_megapixel)

    @property
    def denoise_levels(self) -> tuple[int, ...]:
        """The levels of noise that it can take away, lowest first; none of most models."""
        levels = {weights.denoise for weights in self.weights if weights.denoise is not None}
        return tuple(sorted(levels))

    @property
    def latent(self) -> LatentWeights | None:
        """The weights of a latent upscaler; None of other models."""
        (weights, *_) = self.weights
        return weights if isinstance(weights, LatentWeights) else None

    @property
    def reach(self) -> int:
        """The largest factor that its weights give."""
        reach: int = self.weights[-1].scale ** self.passes
        return reach

    def offers(self, factor: float) -> bool:
        """Say whether the model upscales by `factor` (output side / input side)."""
        return factor in self.factors or (self.fractional and 1 <= factor <= LARGEST_FACTOR)

    def weights_for(self, factor: float, denoise: int | None = None) -> Weights:
        """Return the weights of the smallest native scale that is at least `factor`, maybe in several passes.

        Args:
            factor: Output side / input side.
            denoise: One of its levels of noise, or None.

        Raises:
            FactorTooLargeError: Every native scale is smaller.
            NoSuchLevelError: The model has no such level of noise.

        """
        if denoise not in (None, *self.denoise_levels):
            raise NoSuchLevelError(f"{self.name} has no level of noise {denoise}")
        for weights in self.weights:
            if weights.scale**self.passes >= factor and weights.denoise == denoise:
                return weights
        raise FactorTooLargeError(
            f"{self.name} cannot upscale by {factor:g}: its largest native scale is {self.reach}"
        )


_OF_PROMPTS = {"positivePrompt", "negativePrompt", "CFGScale"}


def check_price(usd: Decimal) -> None:
    """Refuse a price that is negative or no number.

    Raises:
        ValueError: It is.

    """
    if not usd.is_finite() or usd < 0:
        raise ValueError("price_per_megapixel must be zero or more")
