"""Adds models to the catalogue: from a file, or from where the authors publish them."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from onnx_models import spandrel
from onnx_models.catalogue import Catalogue
from onnx_models.convert import Converted, convert_file
from onnx_models.diffusers import export as diffusers
from onnx_models.download import fetch
from onnx_models.entries import is_added, new_folder, refuse_taken, write_entry, write_latent_entry
from onnx_models.errors import (
    CatalogueError,
    DuplicateModelError,
    InstalledError,
    UnknownModelError,
    UnsuitableModelError,
)
from onnx_models.files import locked
from onnx_models.model import Air, Download, Model, Name, OnnxWeights, WeightFile
from onnx_models.probe import OpenNetwork

__all__ = ["Facts", "add_model", "export_model", "pull_model"]

Step = Callable[[str], None]


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file does not say about its model; None is measured, or derived from the file's name."""

    name: Name | None = None
    air: Air | None = None
    title: str | None = None
    description: str = ""
    licence: str = "unknown"
    licence_url: str | None = None
    source_url: str | None = None
    price_per_megapixel: Decimal = Decimal(0)
    scale: Annotated[int, Meta(ge=2)] | None = None
    """What the scale must be; another one is refused."""
    overlap: Annotated[int, Meta(ge=1)] | None = None
    tile: Annotated[int, Meta(ge=1)] | None = None


def add_model(
    file: Path,
    facts: Facts,
    catalogue: Catalogue,
    directory: Path,
    open_network: OpenNetwork,
    on_progress: Step = lambda _step: None,
) -> tuple[Model, Converted]:
    """Add the model in a file to the catalogue.

    Args:
        file: `.pth`, `.ckpt`, `.safetensors` or `.onnx`.
        facts: What to call it, and so on.
        catalogue: The models there are.
        directory: Of the added models.
        open_network: The runtime to try it with.
        on_progress: Called with each step, in words.

    Raises:
        CatalogueError: A fact is wrong.
        DuplicateModelError: The name or the AIR identifier is taken.
        ModelBuildError: The model cannot be used, or cannot be written.

    """
    name = facts.name or re.sub(r"[^a-z0-9.-]+", "-", file.stem.lower()).strip("-.")
    facts = _checked(msgspec.structs.replace(facts, name=name, air=facts.air or f"local:{name}@1"))
    _refuse_duplicates(name, facts.air or "", catalogue, directory)
    converted = convert_file(file, open_network, on_progress)
    if facts.scale not in (None, converted.scale):
        raise UnsuitableModelError(f"its scale is {converted.scale}, not {facts.scale}")
    overlap = facts.overlap or converted.seam.overlap
    whose = f"{converted.architecture} network" if converted.architecture else "Network"
    entry = {
        "name": name,
        "air": facts.air,
        "title": facts.title or file.stem,
        "description": facts.description or f"{whose}, added from {file.name}.",
        "family": "esrgan" if converted.architecture == "ESRGAN" else "network",
        "weights": [OnnxWeights(converted.scale, WeightFile("", "0" * 64))],
        "factors": list(range(2, converted.scale + 1)),
        "fractional": True,
        "overlap": overlap,
        "tile": facts.tile or max(converted.tile, 8 * overlap),
        "price_per_megapixel": facts.price_per_megapixel,
        "licence": facts.licence,
        "licence_url": facts.licence_url,
        "source_url": facts.source_url,
        "parameters": [],
    }
    return write_entry(directory, _model(entry), converted.network), converted


def _model(entry: Mapping[str, object]) -> Model:
    try:
        return msgspec.convert(msgspec.to_builtins(entry), Model)
    except msgspec.ValidationError as error:
        raise CatalogueError(_field(error)) from error


def export_model(
    source: str,
    facts: Facts,
    catalogue: Catalogue,
    directory: Path,
    open_part: diffusers.OpenPart,
    *,
    half: bool = False,
    on_progress: Step = lambda _step: None,
) -> tuple[Model, dict[str, float]]:
    """Add a latent upscaler to the catalogue.

    Args:
        source: A diffusers directory, or the id of one on the Hugging Face hub, which is then fetched.
        facts: What to call it, and so on; default: as the catalogue calls the one of its kind.
        catalogue: The models there are.
        directory: Of the added models.
        open_part: The runtime to try it with.
        half: Whether to compute in half precision.
        on_progress: Called with each step, in words.

    Returns:
        The model, and by component the largest difference to PyTorch, relative to the largest value.

    Raises:
        CatalogueError: A fact is wrong.
        DuplicateModelError: The name or the AIR identifier is taken.
        ModelBuildError: It is no such pipeline, cannot be fetched, or cannot be written.

    """
    for export in catalogue.exports:
        if source == export.source and facts.name is None:  # reported before gigabytes are fetched
            _refuse_duplicates(export.name, export.air, catalogue, directory)
    pipeline = diffusers.located(source, on_progress)
    kind = diffusers.kind_of(pipeline)
    known = next(each for each in catalogue.exports if each.pipeline == kind.pipeline)
    if facts.name in (None, known.name):
        own = msgspec.structs.asdict(facts).items()
        default = {each: getattr(known, each) for each in Facts.__struct_fields__ if hasattr(known, each)}
        facts = Facts(**default | {each: value for each, value in own if value != getattr(Facts(), each)})
    facts = _checked(msgspec.structs.replace(facts, air=facts.air or f"local:{facts.name}@1"))
    name = facts.name or known.name
    _refuse_duplicates(name, facts.air or "", catalogue, directory)
    with new_folder(directory, name, lambda: on_progress("waiting for another export")) as folder:
        exported = diffusers.export_latent_upscaler(
            pipeline, folder, open_part, half=half, on_progress=on_progress
        )
        tile = facts.tile or _LATENT_TILE // exported.weights.scale * 2
        entry = {
            "name": name,
            "air": facts.air,
            "title": facts.title or name,
            "description": facts.description or f"Latent upscaler, added from {source}.",
            "family": "latent",
            "weights": [exported.weights],
            "factors": list(range(2, exported.weights.scale + 1)),
            "fractional": True,
            "overlap": facts.overlap or tile // 4,
            "tile": tile,
            "price_per_megapixel": facts.price_per_megapixel,
            "licence": facts.licence,
            "licence_url": facts.licence_url,
            "source_url": facts.source_url,
            "parameters": [
                each for each in _LATENT_PARAMETERS if each != "strength" or exported.weights.spread == 2
            ],
        }
        return write_latent_entry(directory, _model(entry), folder), exported.differences


_LATENT_PARAMETERS = (
    "steps",
    "seed",
    "CFGScale",
    "positivePrompt",
    "negativePrompt",
    "strength",
    "scheduler",
    "colorFix",
)
_LATENT_TILE = 512
"""Pixels of an image that is doubled, half of one that is made four times as large."""


def pull_model(
    download: Download,
    catalogue: Catalogue,
    directory: Path,
    open_network: OpenNetwork,
    on_progress: Step = lambda _step: None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> tuple[Model, Converted]:
    """Fetch a model's weights and add it to the catalogue.

    Args:
        download: An entry of the catalogue.
        catalogue: The models there are.
        directory: Of the added models; what of the file has been fetched stays there until it is complete.
        open_network: The runtime to try it with.
        on_progress: Called with each step, in words.
        on_bytes: Called with how much of the file is there.

    Raises:
        DownloadError: The file cannot be fetched, or is not the one that the catalogue vouches for.
        InstalledError: Another process has just fetched it.
        DuplicateModelError: The name or the AIR identifier is taken.
        ModelBuildError: The model cannot be used, or cannot be written.

    """
    _refuse_duplicates(download.name, download.air, catalogue, directory)
    suffix = Path(urlsplit(download.url).path).suffix
    if suffix in spandrel.SUFFIXES:
        spandrel.require(suffix)
    file = directory / f".{download.name}.download{suffix}"
    facts = Facts(
        name=download.name,
        air=download.air,
        title=download.title,
        description=download.description,
        licence=download.licence,
        licence_url=download.licence_url,
        source_url=download.source_url,
        price_per_megapixel=download.price_per_megapixel,
    )
    with locked(directory, download.name, lambda: on_progress("waiting for another download")):
        if is_added(directory, download.name):  # by the other one
            raise InstalledError(f"{download.name} is installed already")
        refuse_taken(directory, download.name, download.air)
        on_progress("fetching")
        fetch(download, file, on_bytes)
        try:
            return add_model(file, facts, catalogue, directory, open_network, on_progress)
        finally:
            file.unlink(missing_ok=True)


def _checked(facts: Facts) -> Facts:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", facts.name or ""):
        raise CatalogueError(
            f"{facts.name!r} cannot be a model's name: lower-case letters, digits, dots and hyphens can"
        )
    try:
        return msgspec.convert(msgspec.to_builtins(facts), Facts)
    except msgspec.ValidationError as error:
        raise CatalogueError(_field(error)) from error


def _field(error: msgspec.ValidationError) -> str:
    """The message of an error with the field's name in front."""
    message, _, path = str(error).partition(" - at `$.")
    return f"{path.rstrip('`')}: {message}" if path else message


def _refuse_duplicates(name: str, air: str, catalogue: Catalogue, directory: Path) -> None:
    for key in (name, air):
        with suppress(UnknownModelError):
            known = catalogue.get(key)
            raise DuplicateModelError(f"{key} is taken by {known.title}; choose another one")
    refuse_taken(directory, name, air)
