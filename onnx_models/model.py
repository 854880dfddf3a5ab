"""The entries of the catalogue: what is known of a model.

They are frozen Structs that check themselves; nothing here reads or writes a file. Their weights are those of
`weight_formats`; what is known of a model that can be fetched is in `published`.
"""

from decimal import Decimal
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from onnx_models.errors import FactorTooLargeError, NoSuchLevelError
from onnx_models.weight_formats import (
    NOT_WRITTEN,
    CreativeWeights,
    DefaultScheduler,
    Denoise,
    DiffusionWeights,
    LatentWeights,
    NcnnWeights,
    OnnxWeights,
    Pixels,
    Scale,
    Sha256,
    WeightFile,
    Weights,
)

__all__ = [
    "LARGEST_FACTOR",
    "NOT_WRITTEN",
    "Air",
    "CreativeWeights",
    "DefaultScheduler",
    "Denoise",
    "DiffusionWeights",
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
Url = Annotated[str, Meta(pattern=r"^https://")]

LARGEST_FACTOR: Final = 16
"""The largest factor of models that upscale by any."""


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
    family: Literal["esrgan", "network", "latent", "creative"]
    """What it is: an ESRGAN or any other single network, which run tile by tile; a latent upscaler; or what
    draws an enlarged picture anew."""
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
    cpu_tile: Pixels | None = None
    """What `tile` is on a CPU, where smaller tiles are faster as they stay in its caches."""
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
        self._check_family()
        if min(self.tile, self.cpu_tile or self.tile) <= 2 * self.overlap:
            raise ValueError("tile must be larger than the overlap on both its sides")
        check_price(self.price_per_megapixel)

    def _check_family(self) -> None:
        for family, kind in (("latent", LatentWeights), ("creative", CreativeWeights)):
            if any((self.family == family) != isinstance(each, kind) for each in self.weights):
                raise ValueError(f"the family is {family} if and only if the weights are")
        if self.diffusion is not None and len(self.weights) > 1:
            raise ValueError(f"a {self.family} upscaler has weights for one scale")
        if self.passes > 1 and self.family != "latent":
            raise ValueError("only a latent upscaler takes more than one pass")
        prompts = self.diffusion is not None and self.diffusion.text_encoder is not None
        if not prompts and not _OF_PROMPTS.isdisjoint(self.parameters):
            raise ValueError("prompts take a text encoder")

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
    def creative(self) -> CreativeWeights | None:
        """The weights of a creative upscaler; None of other models."""
        (weights, *_) = self.weights
        return weights if isinstance(weights, CreativeWeights) else None

    @property
    def diffusion(self) -> LatentWeights | CreativeWeights | None:
        """The weights of a latent or creative upscaler; None of other models."""
        return self.latent or self.creative

    @property
    def reach(self) -> int:
        """The largest factor that its weights give."""
        if self.creative is not None:
            return LARGEST_FACTOR
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
