"""Stable Diffusion's latent upscalers (diffusers directories) as ONNX files.

A pipeline has a text encoder (CLIP), a VAE that turns images into latents and back, and a UNet that removes
noise from latents. Each becomes a file of its own, its tokenizer one more; `LatentWeights` says what is in
each. Only numbers are read from the directory, no code. The packages that read it are large and come with
`pip install 'tilewire[export]'`.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.diffusers.folder import check_files, read_json
from onnx_models.diffusers.latent_x2 import LATENT_X2
from onnx_models.diffusers.part import Arrays, Components, Kind, Part
from onnx_models.diffusers.schedule import Schedule, read_schedule
from onnx_models.diffusers.x4 import X4
from onnx_models.errors import DownloadError, MissingConverterError, UnsuitableModelError, one_line
from onnx_models.files import sha256_of
from onnx_models.model import LatentWeights, WeightFile
from onnx_models.probe import OpenPart
from onnx_models.quiet import quietly

__all__ = ["Exported", "export_latent_upscaler", "kind_of", "located"]

log = logging.getLogger(__name__)

_KINDS = {kind.pipeline: kind for kind in (LATENT_X2, X4)}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_OPSET = 18
_LARGEST = 1_500_000_000  # bytes; protobuf's limit is 2 GB, with the graph
_TOLERANCE = {False: 1e-3, True: 5e-2}
"""By whether it is in half precision: the largest difference to PyTorch, relative to the largest value."""

Step = Callable[[str], None]


class Exported(Struct, frozen=True):
    """What was written, and how far its files are from PyTorch."""

    weights: LatentWeights
    differences: dict[str, float]
    """By component: the largest one, relative to the largest value."""


def export_latent_upscaler(
    pipeline: Path,
    directory: Path,
    open_part: OpenPart,
    *,
    half: bool = False,
    on_progress: Step = lambda _step: None,
) -> Exported:
    """Write the ONNX files of a pipeline into a directory, and compare each with PyTorch.

    Args:
        pipeline: A diffusers directory.
        directory: Where to; it exists.
        open_part: The runtime to compare with PyTorch.
        half: Whether to compute in half precision, which needs half the memory.
        on_progress: Called with each step, in words.

    Raises:
        MissingConverterError: PyTorch, diffusers or transformers is not installed.
        UnsuitableModelError: It is no such pipeline, or not one that can be run here.

    """
    kind = kind_of(pipeline)
    schedule = read_schedule(pipeline, kind.schedulers, kind.predictions)
    variants = check_files(pipeline)
    _require()
    on_progress("reading")
    with quietly(), _as_unsuitable("it cannot be read"):
        found = _read(pipeline, schedule, variants)
        tokenizer = _tokenizer_json(found.tokenizer)
    with _as_unsuitable("its components do not fit together"):
        _check_architecture(found, kind)
        layout = kind.layout(found)
    parts = kind.parts(found, half)
    files: dict[str, tuple[WeightFile, ...]] = {}
    differences: dict[str, float] = {}
    for part in _each(parts):
        on_progress(f"exporting {part.name}")
        with quietly(), _as_unsuitable(f"its {part.name} cannot be exported"):
            expected = [_run(part.module, example) for example in part.examples]
            _export(part, directory, half=half)
        differences[part.name] = _difference(open_part, directory, part, expected)
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
    weights = LatentWeights(
        **layout,
        scale=kind.scale,
        text_encoder=files["text_encoder"],
        vae_encoder=files["vae_encoder"],
        unet=files["unet"],
        vae_decoder=files["vae_decoder"],
        tokenizer=WeightFile(file.name, sha256_of(file)),
        channels=found.vae.config.latent_channels,
        multiple=2 ** (len(found.unet.config.block_out_channels) - 1),
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


def _require() -> None:
    try:
        import torch  # noqa: F401, PLC0415, I001 - the first: the others look whether it is there
        import onnxscript  # noqa: F401, PLC0415
        import transformers  # noqa: F401, PLC0415
        import diffusers  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingConverterError(
            f"to export a diffusers pipeline takes PyTorch, diffusers and transformers ({error.name} is "
            "missing): pip install 'tilewire[export]'"
        ) from error


def located(source: str, on_progress: Step) -> Path:
    """The directory of a pipeline.

    Args:
        source: The directory, or the id of one on the Hugging Face hub, which is then fetched.
        on_progress: Called with each step, in words.

    Raises:
        MissingConverterError: What fetches it is not installed.
        DownloadError: It cannot be fetched.
        UnsuitableModelError: There is no such directory.

    """
    if Path(source).exists():
        return Path(source)
    if not _HUB_ID.fullmatch(source):
        raise UnsuitableModelError("there is no such directory")
    _require()
    import huggingface_hub  # noqa: PLC0415 - comes with diffusers

    on_progress("fetching")
    wanted = ["*.json", "*.txt", *(f"{name}/*.safetensors" for name in ("text_encoder", "unet", "vae"))]
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=wanted))
    except Exception as error:  # of its HTTP client, its own, or OSError
        raise DownloadError(
            f"there is no such directory, and the Hugging Face hub does not give it: {one_line(error, 300)}"
        ) from error


def kind_of(pipeline: Path) -> Kind:
    """Tell a pipeline from anything else by its index.

    Raises:
        UnsuitableModelError: It is no pipeline that can be exported.

    """
    index = read_json(pipeline / "model_index.json", "it is not a directory of diffusers")
    found = index.get("_class_name")
    if not isinstance(found, str) or found not in _KINDS:
        raise UnsuitableModelError(f"it is a {found}, not a {' or '.join(_KINDS)}")
    for name in _KINDS[found].components:
        if not (pipeline / name).is_dir() or not index.get(name):
            raise UnsuitableModelError(f"its component {name} is missing")
    return _KINDS[found]


def _read(pipeline: Path, schedule: Schedule, variants: Mapping[str, str | None]) -> Components:
    import diffusers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    def load(kind: Any, name: str) -> Any:
        folder, variant = pipeline / name, variants[name]
        model, info = kind.from_pretrained(
            folder, variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        if missing := sorted(info["missing_keys"]):  # which these packages fill with random numbers
            raise UnsuitableModelError(f"its {name} lacks {len(missing)} weights, such as {missing[0]}")
        return model.float().eval()

    return Components(
        pipeline,
        schedule,
        load(transformers.CLIPTextModel, "text_encoder"),
        transformers.CLIPTokenizerFast.from_pretrained(pipeline / "tokenizer", local_files_only=True),
        load(diffusers.UNet2DConditionModel, "unet"),
        load(diffusers.AutoencoderKL, "vae"),
    )


def _check_architecture(found: Components, kind: Kind) -> None:
    """See that the components fit together as those of the kind do."""
    tokens = found.text_encoder.config.max_position_embeddings, found.tokenizer.model_max_length
    for what, (has, must) in (kind.architecture(found) | {"text_encoder's tokens": tokens}).items():
        if has != must:
            raise UnsuitableModelError(f"wrong architecture: {what}: {has}, not {must}")


def _run(module: Any, inputs: Arrays) -> list[NDArray[Any]]:
    """What PyTorch computes."""
    import torch  # noqa: PLC0415

    with torch.inference_mode():
        found = module(*map(torch.from_numpy, inputs))
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def _export(part: Part, directory: Path, *, half: bool) -> None:
    import torch  # noqa: PLC0415

    size = sum(each.numel() for each in part.module.parameters()) * (2 if half else 4)
    shapes = {name: dict.fromkeys(part.axes[name], torch.export.Dim.DYNAMIC) for name in part.inputs}
    with torch.inference_mode():
        torch.onnx.export(
            part.module,
            tuple(map(torch.from_numpy, part.examples[0])),
            directory / f"{part.name}.onnx",
            input_names=part.inputs,
            output_names=part.outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=_OPSET,
            external_data=size > _LARGEST,
            verbose=False,
        )


def _difference(open_part: OpenPart, directory: Path, part: Part, expected: Sequence[Arrays]) -> float:
    """How far the file is from PyTorch: the largest difference, relative to the largest value."""
    try:
        run = open_part(directory / f"{part.name}.onnx")
        found = [run(each) for each in part.examples]
    except Exception as error:  # whatever the runtime raises
        raise UnsuitableModelError(f"its {part.name} does not run as ONNX: {one_line(error, 300)}") from error
    worst = 0.0
    for sizes in zip(found, expected, strict=True):
        for computed, reference in zip(*sizes, strict=True):
            if computed.shape != reference.shape:
                return float("inf")
            difference = np.abs(computed - reference).max() / max(np.abs(reference).max(), 1e-6)
            worst = float(np.fmax(worst, difference)) if np.isfinite(difference) else float("inf")
    return worst


def _tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer's file, with what CLIP does about length: cut, or filled up, to 77 tokens."""
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(tokenizer.model_max_length)
    backend.enable_padding(
        length=tokenizer.model_max_length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
    )
    content: str = backend.to_str(pretty=True)
    return content


def _each(parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, whose making fails where components do not fit together."""
    while True:
        with quietly(), _as_unsuitable("its components do not fit together"):
            part = next(parts, None)
        if part is None:
            return
        yield part


@contextlib.contextmanager
def _as_unsuitable(what: str) -> Iterator[None]:
    try:
        yield
    except UnsuitableModelError:
        raise
    except Exception as error:  # whatever the packages raise
        raise UnsuitableModelError(f"{what}: {one_line(error, 300)}") from error
