"""Adds a model of the user's own to the catalogue, from its file."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from onnx_models.auxiliary import Auxiliary
from onnx_models.catalogue import Catalogue
from onnx_models.convert import Converted, convert_file
from onnx_models.entries import write_auxiliary, write_entry
from onnx_models.errors import UnsuitableModelError
from onnx_models.face_restorer import LICENCES, Restorer
from onnx_models.facts import Facts, as_entry, checked, refuse_duplicates
from onnx_models.model import NOT_WRITTEN, Model, OnnxWeights
from onnx_models.probe import OpenNetwork, OpenPart

__all__ = ["add_model"]

Step = Callable[[str], None]


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
    facts = checked(msgspec.structs.replace(facts, name=name, air=facts.air or f"local:{name}@1"))
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
        "weights": [OnnxWeights(converted.scale, NOT_WRITTEN)],
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
    return write_entry(directory, as_entry(entry, Model), [converted.network]), converted


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
        "file": NOT_WRITTEN,
        "price_per_megapixel": facts.price_per_megapixel,
        "licence": licence,
        "licence_url": licence_url,
        "source_url": facts.source_url,
        "parameters": ["weight"] if restorer.takes_weight else [],
        "batches": restorer.batches,
    }
    return write_auxiliary(directory, as_entry(entry, Auxiliary), restorer.network)
