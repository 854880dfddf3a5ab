"""The catalogue: what every model is, as data.

`catalogue.toml` is the only place that knows a model; to add one is to add an entry there. It is read
into frozen Structs, which check it: unknown fields, missing fields and values out of range are refused.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from importlib import resources
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from onnx_models.errors import CatalogueError, DuplicateModelError, FactorTooLargeError, UnknownModelError

__all__ = ["Catalogue", "Model", "WeightFile", "Weights", "load_catalogue", "parse_catalogue"]

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Air = Annotated[str, Meta(pattern=r"^[a-z0-9]+:[a-z0-9._-]+@[0-9]+$")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Scale = Annotated[int, Meta(ge=2)]
Pixels = Annotated[int, Meta(ge=1)]
Url = Annotated[str, Meta(pattern=r"^https://")]


class WeightFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a distribution: its path relative to where packages are installed, and its SHA-256."""

    path: str
    sha256: Sha256


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """Trained weights for one native scale, as an installable distribution carries them."""

    scale: Scale
    """The network turns (H, W) into (scale x H, scale x W)."""
    format: Literal["ncnn"]
    """Which builder reads the files."""
    distribution: str
    """The name to install it by, as package indexes know it."""
    param: WeightFile
    """The network's layers, as text."""
    bin: WeightFile
    """The trained numbers, in the order of the layers."""


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """One upscaling model: how it is called, what it can do, what it costs, whose it is.

    A factor without weights of its own is made from the next larger native scale, reduced with a
    Lanczos filter: x3 of a model that only knows x4 is the x4 image made 3/4 as large.
    """

    name: Name
    """Lower-case, for people: the command line, settings, logs."""
    air: Air
    """The AIR identifier, for the wire: `source:id@version`."""
    title: str
    description: str
    family: Literal["esrgan"]
    """Which engine runs it."""
    weights: tuple[Weights, ...]
    """One for each native scale, smallest first."""
    factors: tuple[Scale, ...]
    """The whole factors it offers, smallest first."""
    fractional: bool
    """Whether it also offers every real factor in (1, max(factors)]."""
    overlap: Pixels
    """Context around the core of each tile, in input pixels: with it, seams cannot be seen."""
    tile: Pixels
    """The largest side of a tile, overlap included, in input pixels."""
    price_per_megapixel: Decimal
    """USD per million output pixels."""
    licence: str
    """The SPDX identifier of the weights' licence."""
    licence_url: Url
    source_url: Url
    """Where its authors publish it."""
    parameters: tuple[str, ...]
    """The names of the task settings that it honours."""

    def __post_init__(self) -> None:
        """Check what the types cannot say; msgspec turns a ValueError into its own ValidationError."""
        scales = [weights.scale for weights in self.weights]
        if not scales or scales != sorted(set(scales)):
            raise ValueError("weights must be given once for each scale, smallest first")
        if not self.factors or list(self.factors) != sorted(set(self.factors)):
            raise ValueError("factors must be given once each, smallest first")
        if self.factors[-1] > scales[-1]:
            raise ValueError(f"no weights reach the factor {self.factors[-1]}")
        if self.tile <= 2 * self.overlap:
            raise ValueError("tile must be larger than the overlap on both its sides")
        if not self.price_per_megapixel.is_finite() or self.price_per_megapixel < 0:
            raise ValueError("price_per_megapixel must be zero or more")

    def offers(self, factor: float) -> bool:
        """Say whether the model upscales by `factor` (output side / input side)."""
        return factor in self.factors or (self.fractional and 1 < factor <= self.factors[-1])

    def weights_for(self, factor: float) -> Weights:
        """Give the weights of the smallest native scale that is at least `factor`.

        Raises:
            FactorTooLargeError: Every native scale is smaller.

        """
        for weights in self.weights:
            if weights.scale >= factor:
                return weights
        raise FactorTooLargeError(
            f"{self.name} cannot upscale by {factor:g}: its largest native scale is {self.weights[-1].scale}"
        )


class Catalogue:
    """The models on offer, in the order in which they are presented.

    Args:
        models: At least the default one.
        default: The name of the model to take when none is asked for.

    Raises:
        DuplicateModelError: Two models claim one name or AIR identifier.
        UnknownModelError: No model has the name `default`.

    """

    def __init__(self, models: Iterable[Model], *, default: str) -> None:
        """Index the models by name and by AIR identifier."""
        self._models = tuple(models)
        self._by_key: dict[str, Model] = {}
        for model in self._models:
            for key in (model.name, model.air):
                known = self._by_key.setdefault(key.casefold(), model)
                if known is not model:
                    raise DuplicateModelError(f"{key} is claimed by two models: {known.title}, {model.title}")
        self.default = self.get(default)

    def __iter__(self) -> Iterator[Model]:
        """Yield the models in the order in which they are presented."""
        return iter(self._models)

    def __len__(self) -> int:
        """Count the models."""
        return len(self._models)

    def get(self, name_or_air: str) -> Model:
        """Find a model by its name or its AIR identifier; upper and lower case are the same.

        Raises:
            UnknownModelError: There is none; the message names those there are.

        """
        try:
            return self._by_key[name_or_air.casefold()]
        except KeyError:
            names = ", ".join(f"{model.name} ({model.air})" for model in self._models)
            raise UnknownModelError(f"no model is called {name_or_air!r}; there are {names}") from None


class _CatalogueFile(Struct, frozen=True, forbid_unknown_fields=True):
    default: str
    models: tuple[Model, ...]


def parse_catalogue(toml: bytes) -> Catalogue:
    """Read a catalogue from TOML laid out like `catalogue.toml`.

    Raises:
        CatalogueError: It is not such TOML; the message says where.
        DuplicateModelError: Two models claim one name or AIR identifier.
        UnknownModelError: The default model is not in it.

    """
    try:
        file = msgspec.toml.decode(toml, type=_CatalogueFile)
    except msgspec.DecodeError as error:
        raise CatalogueError(f"the catalogue cannot be read: {error}") from error
    return Catalogue(file.models, default=file.default)


def load_catalogue() -> Catalogue:
    """Read the catalogue that comes with this package."""
    return parse_catalogue(resources.files("onnx_models").joinpath("catalogue.toml").read_bytes())
