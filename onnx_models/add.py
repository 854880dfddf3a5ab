"""Adds models of the user's own to the catalogue: from a file, or from a diffusers pipeline."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from onnx_models.auxiliary import Auxiliary
from onnx_models.catalogue import Catalogue
from onnx_models.convert import Converted, convert_file
from onnx_models.diffusers import export as diffusers
from onnx_models.entries import (
    new_folder,
    refuse_taken,
    write_auxiliary,
    write_entry,
    write_latent_entry,
)
from onnx_models.errors import (
    CatalogueError,
    DuplicateModelError,
    UnsuitableModelError,
)
from onnx_models.face_restorer import LICENCES, Restorer
from onnx_models.model import Air, LatentWeights, Model, Name, OnnxWeights, WeightFile
from onnx_models.probe import OpenNetwork, OpenPart

__all__ = ["Facts", "add_model", "export_model", "refuse_duplicates"]

Step = Callable[[str], None]


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file does not say about its model; None is measured, or derived from the file's name."""

    name: Name | None = None
    aliases: tuple[Name, ...] = ()
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
    *,
    open_part: OpenPart | None = None,
    accept_licence: bool = False,
) -> tuple[Model, Converted] | tuple[Auxiliary, Restorer]:
    """Add the model in a file to the catalogue: an upscaler, or what restores faces beside one.

    Args:
        file: `.pth`, `.ckpt`, `.safetensors` or `.onnx`.
        facts: What to call it, and so on.
        catalogue: The models there are.
        directory: Of the added models.
        open_network: The runtime to try it with.
        on_progress: Called with each step, in words.
        open_part: The runtime for networks of several inputs; without it face restorers are refused.
        accept_licence: Whether the user has accepted a licence for non-commercial use only.

    Raises:
        CatalogueError: A fact is wrong.
        DuplicateModelError: The name or the AIR identifier is taken.
        LicenceError: The architecture's licence has to be accepted first.
        ModelBuildError: The model cannot be used, or cannot be written.

    """
    name = facts.name or re.sub(r"[^a-z0-9.-]+", "-", file.stem.lower()).strip("-.")
    facts = _checked(msgspec.structs.replace(facts, name=name, air=facts.air or f"local:{name}@1"))
    refuse_duplicates(name, facts.air or "", catalogue, directory)
    converted = convert_file(file, open_network, on_progress, open_part, accept_licence=accept_licence)
    if isinstance(converted, Restorer):
        return _add_restorer(file, facts, converted, directory), converted
    if facts.scale not in (None, converted.scale):
        raise UnsuitableModelError(f"its scale is {converted.scale}, not {facts.scale}")
    overlap = facts.overlap or converted.seam.overlap
    whose = f"{converted.architecture} network" if converted.architecture else "Network"
    entry = {
        "name": name,
        "aliases": facts.aliases,
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
    return write_entry(directory, _model(entry), [converted.network]), converted


def _add_restorer(file: Path, facts: Facts, restorer: Restorer, directory: Path) -> Auxiliary:
    known = LICENCES.get(restorer.architecture or "")
    whose = f"{restorer.architecture} network" if restorer.architecture else "Network"
    licence, licence_url = facts.licence, facts.licence_url
    if known is not None and licence == Facts().licence:
        licence, licence_url = known.name, known.url
    entry = {
        "kind": "faceRestorer",
        "name": facts.name,
        "air": facts.air,
        "title": facts.title or file.stem,
        "description": facts.description or f"{whose} that restores faces, added from {file.name}.",
        "file": WeightFile("", "0" * 64),
        "price_per_megapixel": facts.price_per_megapixel,
        "licence": licence,
        "licence_url": licence_url,
        "source_url": facts.source_url,
        "parameters": ["weight"] if restorer.takes_weight else [],
        "batches": restorer.batches,
    }
    try:
        auxiliary = msgspec.convert(msgspec.to_builtins(entry), Auxiliary)
    except msgspec.ValidationError as error:
        raise CatalogueError(_field(error)) from error
    return write_auxiliary(directory, auxiliary, restorer.network)


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
    open_part: OpenPart,
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
            refuse_duplicates(export.name, export.air, catalogue, directory)
    pipeline = diffusers.located(source, on_progress)
    kind = diffusers.kind_of(pipeline)
    known = next(each for each in catalogue.exports if each.pipeline == kind.pipeline)
    if facts.name in (None, known.name):
        own = msgspec.structs.asdict(facts).items()
        default = {each: getattr(known, each) for each in Facts.__struct_fields__ if hasattr(known, each)}
        facts = Facts(**default | {each: value for each, value in own if value != getattr(Facts(), each)})
    facts = _checked(msgspec.structs.replace(facts, air=facts.air or f"local:{facts.name}@1"))
    name = facts.name or known.name
    refuse_duplicates(name, facts.air or "", catalogue, directory)
    tile = facts.tile or _LATENT_TILE // kind.scale * 2
    overlap = facts.overlap or tile // 4
    if overlap < 1 or tile <= 2 * overlap:  # reported before the export, which takes minutes
        raise CatalogueError(
            f"a window of {tile} px is too small for an overlap of {overlap} px at both its sides"
        )
    with new_folder(directory, name, lambda: on_progress("waiting for another export")) as folder:
        exported = diffusers.export_latent_upscaler(
            pipeline, folder, open_part, half=half, on_progress=on_progress
        )
        entry = {
            "name": name,
            "aliases": facts.aliases,
            "air": facts.air,
            "title": facts.title or name,
            "description": facts.description or f"Latent upscaler, added from {source}.",
            "family": "latent",
            "weights": [exported.weights],
            "factors": list(range(2, exported.weights.scale + 1)),
            "fractional": True,
            "overlap": overlap,
            "tile": tile,
            "price_per_megapixel": facts.price_per_megapixel,
            "licence": facts.licence,
            "licence_url": facts.licence_url,
            "source_url": facts.source_url,
            "parameters": _parameters(exported.weights),
        }
        return write_latent_entry(directory, _model(entry), folder), exported.differences


def _parameters(weights: LatentWeights) -> list[str]:
    left_out = {"strength"} if weights.spread != 2 else {"noiseLevel"}
    return [each for each in _LATENT_PARAMETERS if each not in left_out]


_LATENT_PARAMETERS = (
    "steps",
    "seed",
    "CFGScale",
    "positivePrompt",
    "negativePrompt",
    "strength",
    "scheduler",
    "colorFix",
    "noiseLevel",
)
_LATENT_TILE = 512
"""Pixels of an image that is doubled, half of one that is made four times as large."""


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


def refuse_duplicates(name: str, air: str, catalogue: Catalogue, directory: Path) -> None:
    """Make sure that no model has a name or an AIR identifier.

    Raises:
        DuplicateModelError: One has, or an entry of this name is broken.

    """
    for key in (name, air):
        if (known := catalogue.claimant(key)) is not None:
            raise DuplicateModelError(f"{key} is taken by {known.title}; choose another one")
    refuse_taken(directory, name, air)
