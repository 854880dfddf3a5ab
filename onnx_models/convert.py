"""A file of weights, made into a network that the server can run, and what must be known to run it.

1. A `.pth`, `.ckpt` or `.safetensors` file becomes an ONNX graph (`spandrel`), an `.onnx` file is read.
2. The graph takes and gives uint8 images (`graph`), of any size (`sizes`).
3. Running it shows whether it can be used, and with which overlap (`probe`).
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models import face_restorer, probe, spandrel
from onnx_models.errors import UnsuitableModelError, one_line
from onnx_models.folding import fold_factors
from onnx_models.graph import wrap_uint8
from onnx_models.onnx_file import read_onnx, tidy
from onnx_models.probe import OpenNetwork, OpenPart, Run, Seam
from onnx_models.sizes import SizeRule, fit_sizes
from onnx_models.split import split_network

__all__ = ["Converted", "convert_core", "convert_file"]

PARITY = 1e-4
"""How far the ONNX graph may be from PyTorch, relative to the largest value (or to 1, if that is more)."""

BATCHING = 1e-5
"""How far results in a batch may be from results one by one, relative to the same. That is much less: the
same computation runs, and a graph for which the batch is a constant may be wrong by little."""

_SMALL = 2_000_000  # numbers; networks below that take little memory
_RULES = (
    SizeRule(),
    *(SizeRule(multiple, multiple) for multiple in (2, 4, 8, 16)),
    SizeRule(1, 16),
    SizeRule(8, 32),
    SizeRule(1, 64),
    SizeRule(32, 32),
    SizeRule(8, 64),
    SizeRule(64, 64),
)


class Converted(Struct, frozen=True):
    """A network that is ready to run, and what was measured on it."""

    network: bytes
    """The ONNX file: uint8 NHWC in and out, N, H and W dynamic."""
    architecture: str | None
    """The architecture's name, if it is known."""
    scale: int
    rule: SizeRule
    """Which sizes it takes without being padded."""
    seam: Seam
    tile: int
    difference: float | None
    """The largest difference from PyTorch, before rounding; None where there was nothing to compare with."""


class _Candidate(Struct, frozen=True):
    """A graph that may be what is wanted."""

    graph: onnx.ModelProto
    pixels: bool
    difference: float | None
    rule: SizeRule


def convert_file(
    file: Path,
    open_network: OpenNetwork,
    on_progress: Callable[[str], None] = lambda _step: None,
    open_part: OpenPart | None = None,
    *,
    accept_licence: bool = False,
) -> Converted | face_restorer.Restorer:
    """Make a network of a file, and check it.

    Args:
        file: `.pth`, `.ckpt`, `.safetensors` or `.onnx`.
        open_network: The runtime to try it with.
        on_progress: Called with each step, in words.
        open_part: The same for networks of several inputs; without it face restorers are refused.
        accept_licence: Whether the user has accepted a licence for non-commercial use only.

    Raises:
        LicenceError: The licence of a face restorer's architecture has to be accepted first.
        MissingConverterError: PyTorch or spandrel is needed and not installed.
        UnsuitableModelError: The file is broken, or no network that upscales RGB images or restores faces.
    """
    suffix = file.suffix.lower()
    if suffix not in (*spandrel.SUFFIXES, ".onnx"):
        raise UnsuitableModelError(f"only {', '.join(spandrel.SUFFIXES)} and .onnx files can be added")
    if not file.is_file():
        raise UnsuitableModelError("there is no such file")
    on_progress("reading")
    with tempfile.TemporaryDirectory(prefix="tilewire-") as directory:
        opener = _Opener(Path(directory), open_network)
        scratch = Path(directory) / "face.onnx"
        if suffix == ".onnx":
            restorer = face_restorer.from_onnx(file, scratch, open_part) if open_part else None
            if restorer is None:
                return _from_onnx(file, opener, on_progress)
            face_restorer.check_licence(restorer.architecture, accepted=accept_licence)
            return restorer
        checkpoint = spandrel.read_checkpoint(file)
        if isinstance(checkpoint, spandrel.Checkpoint):
            return _from_checkpoint(checkpoint, opener, on_progress)
        if open_part is None:
            raise UnsuitableModelError(
                f"it is a {checkpoint.architecture} network, which restores faces; an upscaler is needed"
            )
        face_restorer.check_licence(checkpoint.architecture, accepted=accept_licence)
        return face_restorer.from_checkpoint(checkpoint, scratch, open_part, on_progress)


def convert_core(
    core: onnx.ModelProto,
    scale: int,
    open_network: OpenNetwork,
    on_progress: Callable[[str], None] = lambda _step: None,
) -> Converted:
    """Make a network of a graph whose scale is known, and check it.

    Args:
        core: From (N, 3, H, W) to (N, 3, scale x H, scale x W), float32 RGB in [0, 1].
        scale: Output side / input side.
        open_network: The runtime to try it with.
        on_progress: Called with each step, in words.

    Raises:
        UnsuitableModelError: It does not upscale images by that scale.
    """
    with tempfile.TemporaryDirectory(prefix="tilewire-") as directory:
        opener = _Opener(Path(directory), open_network)
        return _finish(_Candidate(core, False, None, SizeRule()), scale, None, opener, on_progress)


def _from_onnx(file: Path, opener: "_Opener", on_progress: Callable[[str], None]) -> Converted:
    foreign = read_onnx(file)
    on_progress("checking")
    run = opener.open(foreign.network)
    scale = probe.find_uint8_scale(run) if foreign.pixels else probe.find_scale(run)
    candidate = _Candidate(foreign.network, foreign.pixels, None, SizeRule())
    return _finish(candidate, scale, None, opener, on_progress)


def _from_checkpoint(
    checkpoint: spandrel.Checkpoint, opener: "_Opener", on_progress: Callable[[str], None]
) -> Converted:
    on_progress(f"exporting {checkpoint.architecture}")
    _refuse_chance(checkpoint)
    reason = "PyTorch cannot export it"
    for graph in checkpoint.graphs():
        on_progress("comparing with PyTorch")
        try:
            candidate = _compared(checkpoint, graph, opener)
            return _finish(candidate, checkpoint.scale, checkpoint.architecture, opener, on_progress)
        except UnsuitableModelError as error:
            reason = str(error)
        on_progress(f"exporting {checkpoint.architecture} in another way")
    raise UnsuitableModelError(f"{checkpoint.architecture} cannot be made into ONNX: {reason}")


def _refuse_chance(checkpoint: spandrel.Checkpoint) -> None:
    """Refuse a network that draws random numbers: neither could it be compared, nor would its tiles fit."""
    sides = checkpoint.rule.fitted(64, 64)
    image = probe.texture(*sides).transpose(2, 0, 1)[np.newaxis].astype(np.float32) / np.float32(255)
    if not np.allclose(checkpoint.run(image), checkpoint.run(image), atol=PARITY, equal_nan=True):
        raise UnsuitableModelError(f"{checkpoint.architecture} networks give another output each time")


def _compared(checkpoint: spandrel.Checkpoint, graph: onnx.ModelProto, opener: "_Opener") -> _Candidate:
    """Find the sizes with which the graph computes what PyTorch does."""
    tidied = tidy(graph).network
    run = opener.open(tidied)
    if probe.find_scale(run, checkpoint.rule.fitted(64, 64)[0]) != checkpoint.scale:
        raise UnsuitableModelError(f"it does not upscale by {checkpoint.scale}")
    reason = ""
    for rule in _rules_from(checkpoint.rule):
        try:
            return _Candidate(tidied, False, _difference(checkpoint, run, rule), rule)
        except UnsuitableModelError as error:
            reason = reason or str(error)
    raise UnsuitableModelError(reason)


def _difference(checkpoint: spandrel.Checkpoint, run: Run, rule: SizeRule) -> float:
    random = np.random.default_rng(1)
    worst = apart = 0.0
    for count, height, width in ((1, 1, 1), (1, 23, 41), (2, 64, 33), (1, 75, 50)):
        shape = (count, 3, *rule.fitted(height, width))
        batch: NDArray[np.float32] = random.random(shape, np.float32)
        try:
            expected = checkpoint.run(batch)
        except Exception as error:
            raise UnsuitableModelError(f"PyTorch cannot run it with {shape}: {error}") from error
        found = probe.run_network(run, batch)
        if not np.isfinite(expected).all():
            raise UnsuitableModelError("its output has values that are not finite (NaN or infinity)")
        if found.shape != expected.shape:
            raise UnsuitableModelError(f"of {shape} it makes {found.shape}, PyTorch {expected.shape}")
        largest = max(1.0, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(found - expected).max() / largest))
        if count > 1:
            alone = np.concatenate([probe.run_network(run, image[np.newaxis]) for image in batch])
            apart = max(apart, float(np.abs(found - alone).max() / largest))
    if worst > PARITY or apart > BATCHING:
        raise UnsuitableModelError(f"it differs from PyTorch by {worst:.1e}, in a batch by {apart:.1e}")
    return worst


def _finish(
    candidate: _Candidate,
    scale: int,
    architecture: str | None,
    opener: "_Opener",
    on_progress: Callable[[str], None],
) -> Converted:
    """Make the graph take any image, and measure it."""
    on_progress("checking sizes")
    content, run, rule = _fitted(candidate, scale, opener)
    probe.check_batches(run)
    on_progress("measuring the overlap")
    seam = probe.find_overlap(run, scale)
    tile = _tile(content, scale, seam.overlap)
    return Converted(content, architecture, scale, rule, seam, tile, candidate.difference)


def _tile(content: bytes, scale: int, overlap: int) -> int:
    """Return the side of tiles: two cover 1024 pixels, unless the network takes too much memory for that."""
    network = onnx.load_from_string(content)
    numbers = sum(int(np.prod(weight.dims)) for weight in network.graph.initializer)
    if numbers < _SMALL or split_network(network, scale) is not None:
        return 512 + overlap
    return max(384, 8 * overlap)


def _fitted(candidate: _Candidate, scale: int, opener: "_Opener") -> tuple[bytes, Run, SizeRule]:
    reason = ""
    for rule in _rules_from(candidate.rule):
        network = onnx.ModelProto()
        network.CopyFrom(candidate.graph)
        fold_factors(network)
        network = fit_sizes(network if candidate.pixels else wrap_uint8(network, scale), scale, rule)
        network.producer_name = "tilewire"
        content: bytes = network.SerializeToString(deterministic=True)
        try:
            run = opener.open_bytes(content)
            probe.check_sizes(run, scale)
        except UnsuitableModelError as error:
            reason = reason or str(error)
        else:
            return content, run, rule
    raise UnsuitableModelError(reason)


def _rules_from(known: SizeRule) -> Iterator[SizeRule]:
    """Rules to try, beginning with what is known; each asks for as much as that, or more."""
    yield known
    for rule in _RULES:
        multiple = int(np.lcm(rule.multiple, known.multiple))
        minimum = -(-max(rule.minimum, known.minimum) // multiple) * multiple
        if (multiple, minimum) != (known.multiple, known.minimum):
            yield SizeRule(multiple, minimum, known.square)


class _Opener:
    """Opens graphs by way of files, one after the other."""

    def __init__(self, directory: Path, open_network: OpenNetwork) -> None:
        self._file = directory / "network.onnx"
        self._open = open_network

    def open(self, graph: onnx.ModelProto) -> Run:
        content: bytes = graph.SerializeToString()
        return self.open_bytes(content)

    def open_bytes(self, content: bytes) -> Run:
        self._file.write_bytes(content)
        try:
            return self._open(self._file)
        except Exception as error:  # a runtime's errors share no base class
            raise UnsuitableModelError(f"it cannot be loaded: {one_line(error)}") from error
