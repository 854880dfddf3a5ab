"""Adds what is made of a diffusers pipeline to the catalogue: latent and creative upscalers."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from onnx_models.catalogue import Catalogue
from onnx_models.diffusers import export as diffusers
from onnx_models.diffusers.additions import Wanted, find_additions
from onnx_models.entries import new_folder, write_latent_entry
from onnx_models.errors import CatalogueError
from onnx_models.facts import Facts, as_entry, checked, refuse_duplicates
from onnx_models.model import CreativeWeights, LatentWeights, Model
from onnx_models.probe import OpenPart

__all__ = ["export_model"]

Step = Callable[[str], None]


def export_model(
    source: str,
    facts: Facts,
    catalogue: Catalogue,
    directory: Path,
    open_part: OpenPart,
    *,
    wanted: Wanted | None = None,
    half: bool = False,
    on_progress: Step = lambda _step: None,
) -> tuple[Model, dict[str, float]]:
    """Add a latent or creative upscaler to the catalogue.

    Args:
        source: A diffusers directory, or the id of one on the Hugging Face hub, which is then fetched.
        facts: What to call it, and so on; default: as the catalogue calls the one of its kind.
        catalogue: The models there are.
        directory: Of the added models.
        open_part: The runtime to try it with.
        wanted: What belongs to it beside: a ControlNet, an IP-Adapter, LoRAs.
        half: Whether to compute in half precision.
        on_progress: Called with each step, in words.

    Returns:
        The model, and by component the largest difference to PyTorch, relative to the largest value.

    Raises:
        CatalogueError: A fact is wrong.
        DuplicateModelError: The name or the AIR identifier is taken.
        ModelBuildError: It is no such pipeline, cannot be fetched, or cannot be written.
    """
    wanted = wanted or Wanted()
    for export in catalogue.exports:
        if source == export.source and facts.name is None:  # reported before gigabytes are fetched
            refuse_duplicates(export.name, export.air, catalogue, directory)
    pipeline = diffusers.located(source, on_progress)
    kind = diffusers.kind_of(pipeline)
    known = next(each for each in catalogue.exports if each.pipeline == kind.pipelines[0])
    if facts.name in (None, known.name):
        own = msgspec.structs.asdict(facts).items()
        default = {each: getattr(known, each) for each in Facts.__struct_fields__ if hasattr(known, each)}
        facts = Facts(**default | {each: value for each, value in own if value != getattr(Facts(), each)})
    facts = checked(msgspec.structs.replace(facts, air=facts.air or f"local:{facts.name}@1"))
    name = facts.name or known.name
    refuse_duplicates(name, facts.air or "", catalogue, directory)
    tile = facts.tile or kind.window(pipeline)
    overlap = facts.overlap or tile // 4
    if overlap < 1 or tile <= 2 * overlap:  # reported before the export, which takes minutes
        raise CatalogueError(
            f"a window of {tile} px is too small for an overlap of {overlap} px at both its sides"
        )
    controlnet = None if wanted.controlnet is None else diffusers.located(wanted.controlnet, on_progress)
    additions = find_additions(pipeline, kind, wanted, controlnet)
    with new_folder(directory, name, lambda: on_progress("waiting for another export")) as folder:
        exported = diffusers.export_pipeline(
            pipeline, folder, open_part, additions=additions, half=half, on_progress=on_progress
        )
        entry = _offered(exported.weights) | {
            "name": name,
            "aliases": facts.aliases,
            "air": facts.air,
            "title": facts.title or name,
            "description": facts.description or f"Added from {source}.",
            "weights": [exported.weights],
            "fractional": True,
            "overlap": overlap,
            "tile": tile,
            "price_per_megapixel": facts.price_per_megapixel,
            "licence": facts.licence,
            "licence_url": facts.licence_url,
            "source_url": facts.source_url,
        }
        return write_latent_entry(directory, as_entry(entry, Model), folder), exported.differences


def _offered(weights: LatentWeights | CreativeWeights) -> dict[str, object]:
    """What an entry says of a model that only its weights know."""
    if isinstance(weights, CreativeWeights):
        return {"family": "creative", "factors": [2], "parameters": weights.offered}
    left_out = {"strength"} if weights.spread != 2 else {"noiseLevel"}
    return {
        "family": "latent",
        "factors": list(range(2, weights.scale + 1)),
        "parameters": [each for each in _LATENT_PARAMETERS if each not in left_out],
    }


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
