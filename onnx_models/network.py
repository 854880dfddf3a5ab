"""A single network as devices load it: its verified file, and its parts where its end can run in blocks.

The parts of `NAME-4x.onnx` are `NAME-4x.body.onnx` and `NAME-4x.tail.onnx`. They are made when the model is
built, beside their manifest `NAME-4x.parts.json`, and again whenever they are not what that describes.
"""

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from onnx_models.build import ensure_built, sha256_of_built
from onnx_models.errors import ModelBuildError
from onnx_models.files import sha256_of, write_atomically
from onnx_models.model import DiffusionWeights, Model, OnnxWeights, Weights

__all__ = ["BuiltNetwork", "Split", "ensure_network"]

_VERSION = 1
"""Goes up whenever the same network is split in another way; parts of other versions are made again."""


class Split(Struct, frozen=True):
    """A network in two files: `body` from the image to `cut`, `tail` from there to the result."""

    cut: str
    """The value between them, as the network calls it: (N, C, H, W) float32, of the input's resolution."""
    body: Path
    tail: Path
    halo: int
    """How many pixels of `cut` beyond its own place a pixel of the result depends on, on each side."""
    bytes_per_pixel: int
    """What the tail holds at once for each pixel of `cut`: what one layer reads and writes."""


class BuiltNetwork(Struct, frozen=True):
    """A network that is ready to run."""

    path: Path
    """The whole of it; see `ensure_built`."""
    sha256: str
    split: Split | None
    """None if it is best run whole."""


class _Facts(Struct, frozen=True):
    cut: str
    halo: int
    bytes_per_pixel: int
    body_sha256: str
    tail_sha256: str


class _Manifest(Struct, frozen=True):
    version: int
    network_sha256: str
    split: _Facts | None


def ensure_network(
    model: Model,
    weights: Weights,
    directory: Path,
) -> BuiltNetwork:
    """Give a network ready to run; build it, and its parts, if they are not as they should be.

    Args:
        model: An entry of the catalogue.
        weights: One of `model.weights`; of one network, not of a latent or creative upscaler.
        directory: Where ONNX files are kept; made if it is missing.

    Raises:
        ModelBuildError: See `ensure_built`; also if the parts cannot be written.
    """
    if isinstance(weights, DiffusionWeights):
        raise TypeError(f"{model.name} has more than one network")
    path = ensure_built(model, weights, directory)
    sha256 = weights.file.sha256 if isinstance(weights, OnnxWeights) else sha256_of_built(path)
    stem = directory / f"{model.name}-{weights.label}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return BuiltNetwork(path, sha256, _ensure_split(path, sha256, weights.scale, stem))
    except OSError as error:
        raise ModelBuildError(f"the parts of {path} cannot be written: {error}") from error


def _ensure_split(path: Path, sha256: str, scale: int, stem: Path) -> Split | None:
    body, tail, manifest = (Path(f"{stem}.{end}") for end in ("body.onnx", "tail.onnx", "parts.json"))
    made = _read(manifest)
    wanted = (_VERSION, sha256)
    if made is None or (made.version, made.network_sha256) != wanted or not _is_intact(made, body, tail):
        made = _make(path, sha256, scale, body, tail, manifest)
    if made.split is None:
        return None
    return Split(made.split.cut, body, tail, made.split.halo, made.split.bytes_per_pixel)


def _read(manifest: Path) -> _Manifest | None:
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=_Manifest)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_intact(made: _Manifest, body: Path, tail: Path) -> bool:
    if made.split is None:
        return True
    try:
        return (sha256_of(body), sha256_of(tail)) == (made.split.body_sha256, made.split.tail_sha256)
    except FileNotFoundError:
        return False


def _make(path: Path, sha256: str, scale: int, body: Path, tail: Path, manifest: Path) -> _Manifest:
    from onnx_models.split import split_file  # noqa: PLC0415 - brings onnx, which takes memory

    parts = split_file(path, scale)
    facts = None
    if parts is not None:
        contents = [part.SerializeToString(deterministic=True) for part in (parts.body, parts.tail)]
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        facts = _Facts(parts.cut, parts.halo, parts.bytes_per_pixel, *digests)
        for file, content in zip((body, tail), contents, strict=True):
            write_atomically(file, content)
    made = _Manifest(_VERSION, sha256, facts)
    write_atomically(manifest, msgspec.json.format(msgspec.json.encode(made)))
    return made
