"""Diffusers pipelines as ONNX files: latent upscalers, and Stable Diffusion for creative ones.

A pipeline has a text encoder (CLIP), a VAE that turns images into latents and back, and a UNet that removes
noise from latents; creative ones may have a ControlNet and an IP-Adapter's image encoder beside. Each becomes
a file of its own, its tokenizer one more; `LatentWeights` and `CreativeWeights` say what is in each.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from onnx_models.diffusers.additions import Additions
from onnx_models.diffusers.creative import STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from onnx_models.diffusers.folder import check_files, read_json
from onnx_models.diffusers.latent_x2 import LATENT_X2
from onnx_models.diffusers.onnx_parts import compute, difference, write
from onnx_models.diffusers.part import Components, Kind, Part
from onnx_models.diffusers.reading import as_unsuitable, located, read, require, tokenizer_json
from onnx_models.diffusers.schedule import read_schedule
from onnx_models.diffusers.x4 import X4
from onnx_models.errors import UnsuitableModelError
from onnx_models.files import sha256_of
from onnx_models.model import CreativeWeights, LatentWeights, WeightFile
from onnx_models.probe import OpenPart
from onnx_models.quiet import quietly

__all__ = ["Exported", "export_pipeline", "kind_of", "located"]

_KINDS = {
    name: kind for kind in (LATENT_X2, X4, STABLE_DIFFUSION, STABLE_DIFFUSION_XL) for name in kind.pipelines
}
_TOLERANCE = {False: 1e-3, True: 5e-2}
"""By whether it is in half precision: the largest difference to PyTorch, relative to the largest value."""

Step = Callable[[str], None]


class Exported(Struct, frozen=True):
    """What was written, and how far its files are from PyTorch."""

    weights: LatentWeights | CreativeWeights
    differences: dict[str, float]
    """By component: the largest one, relative to the largest value."""


def export_pipeline(
    pipeline: Path,
    directory: Path,
    open_part: OpenPart,
    *,
    additions: Additions | None = None,
    half: bool = False,
    on_progress: Step = lambda _step: None,
) -> Exported:
    """Write the ONNX files of a pipeline into a directory, and compare each with PyTorch.

    Args:
        pipeline: A diffusers directory.
        directory: Where to; it exists.
        open_part: The runtime to compare with PyTorch.
        additions: What belongs to it beside: see `additions.find_additions`.
        half: Whether to compute in half precision, which needs half the memory.
        on_progress: Called with each step, in words.

    Raises:
        MissingConverterError: PyTorch, diffusers or transformers is not installed.
        UnsuitableModelError: It is no such pipeline, or not one that can be run here.
    """
    kind, additions = kind_of(pipeline), additions or Additions()
    schedule = read_schedule(pipeline, kind.schedulers, kind.predictions, kind.other_schedulers)
    folders = {name: pipeline / name for name in kind.components}
    if additions.controlnet is not None:
        folders["controlnet"] = additions.controlnet
    if additions.ip_adapter is not None:
        folders["image_encoder"] = additions.ip_adapter.image_encoder
    files_of = check_files(folders)
    require()
    on_progress("reading")
    with quietly(), as_unsuitable("it cannot be read"):
        found = read(pipeline, kind, schedule, folders, files_of, additions)
        tokenizer = tokenizer_json(found.tokenizer)
    with as_unsuitable("its components do not fit together"):
        _check_architecture(found, kind)
        layout = kind.layout(found)
    files: dict[str, Any] = {}
    differences: dict[str, float] = {}
    for part in _each(kind.parts(found, half)):
        on_progress(f"exporting {part.name}")
        with quietly(), as_unsuitable(f"its {part.name} cannot be exported"):
            expected = [compute(part, example) for example in part.examples]
            write(part, directory, half=half)
        differences[part.name] = difference(open_part, directory, part, expected)
        if not differences[part.name] <= _TOLERANCE[half]:  # nor with NaN
            raise UnsuitableModelError(
                f"its {part.name} computes something else than PyTorch: "
                f"they differ by {differences[part.name]:.1e} of the largest value"
            )
        names = [f"{part.name}.onnx", f"{part.name}.onnx.data"]
        files[part.name] = tuple(
            WeightFile(name, sha256_of(directory / name)) for name in names if (directory / name).exists()
        )
    file = directory / "tokenizer.json"
    file.write_text(tokenizer, encoding="utf-8")
    weights = kind.weights(
        **layout,
        **files,
        tokenizer=WeightFile(file.name, sha256_of(file)),
        channels=found.vae.config.latent_channels,
        multiple=found.multiple,
        scaling_factor=found.vae.config.scaling_factor,
        beta_start=schedule.training.beta_start,
        beta_end=schedule.training.beta_end,
        curve=schedule.training.curve,
        noise_steps=schedule.training.noise_steps,
        spacing=schedule.spacing,
        steps_offset=schedule.steps_offset,
        last_noise=schedule.last_noise,
        default_scheduler=schedule.scheduler,
    )
    return Exported(weights, differences)


def kind_of(pipeline: Path) -> Kind:
    """Tell a pipeline from anything else by its index.

    Raises:
        UnsuitableModelError: It is no pipeline that can be exported.
    """
    index = read_json(pipeline / "model_index.json", "it is not a directory of diffusers")
    found = index.get("_class_name")
    if not isinstance(found, str) or found not in _KINDS:
        known = dict.fromkeys(kind.pipelines[0] for kind in _KINDS.values())
        raise UnsuitableModelError(f"it is a {found}, not a {' or '.join(known)}")
    for name in _KINDS[found].components:
        if not (pipeline / name).is_dir() or not index.get(name):
            raise UnsuitableModelError(f"its component {name} is missing")
    return _KINDS[found]


def _check_architecture(found: Components, kind: Kind) -> None:
    """See that the components fit together as those of the kind do."""
    tokens = found.text_encoder.config.max_position_embeddings, found.tokenizer.model_max_length
    for what, (has, must) in (kind.architecture(found) | {"text_encoder's tokens": tokens}).items():
        if has != must:
            raise UnsuitableModelError(f"wrong architecture: {what}: {has}, not {must}")


def _each(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, whose making fails where components do not fit together."""
    while True:
        with quietly(), as_unsuitable("its components do not fit together"):
            part = next(parts, None)
        if part is None:
            return
        yield part
