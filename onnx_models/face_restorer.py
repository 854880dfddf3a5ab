"""Networks that restore a face, upright on 512 × 512 pixels, as ONNX graphs that take and give uint8.

They take `face`, (N, 512, 512, 3) uint8 RGB, and give `restored`, the same. CodeFormer also takes `weight`,
(N) float32: how near the face stays to what is seen, from 0 to 1. GFPGAN, RestoreFormer and CodeFormer all
compute on (N, 3, 512, 512) in [-1, 1] (`inference_gfpgan.py` and `inference_codeformer.py` of their authors).

A `.pth` file goes through spandrel and PyTorch; an ONNX file is known by one image of 512 × 512 in and out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from msgspec import Struct
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from onnx_models import probe
from onnx_models.errors import LicenceError, UnsuitableModelError, one_line
from onnx_models.probe import OpenPart
from onnx_models.spandrel import FaceCheckpoint

__all__ = ["LICENCES", "Licence", "Restorer", "check_licence", "from_checkpoint", "from_onnx"]

SIDE: Final = 512
_PARITY: Final = 1e-3
"""How far the graph may be from PyTorch: an eighth of a level."""

_BATCHING: Final = 2  # levels
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}


class Licence(Struct, frozen=True):
    """Whose terms the weights of an architecture are under."""

    name: str
    url: str
    non_commercial: bool = False


LICENCES: Final = {
    "CodeFormer": Licence(
        "S-Lab License 1.0 (non-commercial)",
        "https://github.com/sczhou/CodeFormer/blob/master/LICENSE",
        non_commercial=True,
    ),
}
"""Of architectures that only their authors publish weights of."""


class Restorer(Struct, frozen=True):
    """A face restorer that is ready to run, and what was measured on it."""

    network: bytes
    """The ONNX file."""
    architecture: str | None
    takes_weight: bool
    batches: bool
    """Whether it gives the same for several faces at once."""
    difference: float | None
    """The largest difference from PyTorch; None where there was nothing to compare with."""


def check_licence(architecture: str | None, *, accepted: bool) -> None:
    """See that the licence of an architecture's weights is accepted, where that is needed.

    Raises:
        LicenceError: It excludes commercial use, and nobody has accepted it.
    """
    known = LICENCES.get(architecture or "")
    if known is not None and known.non_commercial and not accepted:
        raise LicenceError(
            f"it is a {architecture} network, whose licence, {known.name}, excludes commercial use; "
            f"read {known.url} and, to accept it, add --accept-licence"
        )


def from_checkpoint(
    checkpoint: FaceCheckpoint,
    file: Path,
    open_part: OpenPart,
    on_progress: Callable[[str], None] = lambda _step: None,
) -> Restorer:
    """Make a restorer of a checkpoint, and compare it with PyTorch.

    Args:
        checkpoint: As spandrel has read it.
        file: Where the graph may be written to be opened.
        open_part: The runtime to try it with.
        on_progress: Called with each step, in words.

    Raises:
        UnsuitableModelError: PyTorch cannot export it, or it computes something else.
    """
    on_progress(f"exporting {checkpoint.architecture}")
    try:
        core = checkpoint.graph(SIDE)
    except Exception as error:  # whatever a network does that ONNX cannot
        raise UnsuitableModelError(
            f"{checkpoint.architecture} cannot be made into ONNX: {one_line(error, 200)}"
        ) from error
    on_progress("comparing with PyTorch")
    difference = _difference(checkpoint, core, file, open_part)
    if not difference <= _PARITY:
        raise UnsuitableModelError(f"{checkpoint.architecture} differs from PyTorch by {difference:.1e}")
    content = _wrapped(core, batch=True).SerializeToString(deterministic=True)
    run = _opened(content, file, open_part)
    batches = _batches(run, probe.texture(SIDE, SIDE), 0.5 if checkpoint.takes_weight else None)
    return Restorer(content, checkpoint.architecture, checkpoint.takes_weight, batches, difference)


def _difference(checkpoint: FaceCheckpoint, core: onnx.ModelProto, file: Path, open_part: OpenPart) -> float:
    """How far the graph is from PyTorch, relative to the largest value (or to 1, if that is more)."""
    run = _opened(core.SerializeToString(), file, open_part)
    face = _as_signed(probe.texture(SIDE, SIDE))
    worst = 0.0
    for weight in (0.0, 0.5, 1.0) if checkpoint.takes_weight else (None,):
        expected = checkpoint.run(face, weight)
        if not np.isfinite(expected).all():
            raise UnsuitableModelError("its output has values that are not finite (NaN or infinity)")
        beside = () if weight is None else (np.array([weight], np.float32),)
        found = run((face[np.newaxis], *beside))[0][0]
        largest = max(1.0, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(found - expected).max()) / largest)
    return worst


def from_onnx(path: Path, file: Path, open_part: OpenPart) -> Restorer | None:
    """Make a restorer of an ONNX file; None if it is none.

    It must take one image of 512 × 512 in [-1, 1] and give one, as those do that face programs share; a
    second input, of one number, is CodeFormer's weight.

    Args:
        path: Of the ONNX file.
        file: Where the graph may be written to be opened.
        open_part: The runtime to try it with.

    Raises:
        UnsuitableModelError: It looks like one, but does not run.
    """
    try:
        network = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError):
        return None  # what reads upscalers says why
    graph = network.graph
    stored = {weight.name for weight in graph.initializer}
    images = [value for value in graph.input if value.name not in stored and _sides(value) == (SIDE, SIDE)]
    others = [value for value in graph.input if value.name not in stored and value not in images]
    if len(images) != 1 or len(others) > 1 or not graph.output or _sides(graph.output[0]) != (SIDE, SIDE):
        return None
    if others and (others[0].type.tensor_type.elem_type not in _FLOATS or len(_dims(others[0])) > 1):
        return None
    batch = not isinstance(_dims(images[0])[0], int)
    content = _wrapped(network, batch=batch).SerializeToString(deterministic=True)
    run = _opened(content, file, open_part)
    face, weight = probe.texture(SIDE, SIDE), 0.5 if others else None
    restored = _run(run, face[np.newaxis], weight)
    if restored.min() == restored.max():
        raise UnsuitableModelError("it gives a face of one colour")
    batches = batch and _batches(run, face, weight)
    return Restorer(content, "CodeFormer" if others else None, bool(others), batches, None)


def _wrapped(core: onnx.ModelProto, *, batch: bool) -> onnx.ModelProto:
    """Let a graph take and give uint8 faces, and a weight where it has a second input."""
    core = compose.add_prefix(core, "core/")
    graph = core.graph
    stored = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    image = next(value for value in inputs if len(_dims(value)) == 4)
    weights = [value for value in inputs if value is not image]
    result = graph.output[0]
    takes, gives = image.type.tensor_type.elem_type, result.type.tensor_type.elem_type
    count: str | int = "batch" if batch else 1
    constants: dict[str, NDArray[np.generic]] = {
        "half": np.array(127.5, np.float32),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "most": np.array(255, np.float32),
    }
    before = [
        helper.make_node("Transpose", ["face"], ["wrap.nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["wrap.nchw"], ["wrap.levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["wrap.levels", "half"], ["wrap.double"]),
        helper.make_node("Sub", ["wrap.double", "one"], ["wrap.signed"]),
        helper.make_node("Cast", ["wrap.signed"], [image.name], to=takes),
    ]
    for weight in weights:
        dims = _dims(weight)
        constants["weight.shape"] = np.array([-1] if dims else [], np.int64)
        kind = weight.type.tensor_type.elem_type
        before += [
            helper.make_node("Reshape", ["weight", "weight.shape"], ["weight.shaped"]),
            helper.make_node("Cast", ["weight.shaped"], [weight.name], to=kind),
        ]
    after = [
        helper.make_node("Cast", [result.name], ["wrap.result"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wrap.result", "one"], ["wrap.positive"]),
        helper.make_node("Mul", ["wrap.positive", "half"], ["wrap.scaled"]),
        helper.make_node("Clip", ["wrap.scaled", "zero", "most"], ["wrap.clipped"]),
        helper.make_node("Round", ["wrap.clipped"], ["wrap.rounded"]),
        helper.make_node("Cast", ["wrap.rounded"], ["wrap.bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["wrap.bytes"], ["restored"], perm=[0, 2, 3, 1]),
    ]
    assert gives in _FLOATS, gives
    sizes = [count, SIDE, SIDE, 3]
    ends = [helper.make_tensor_value_info("face", TensorProto.UINT8, sizes)]
    if weights:
        ends.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [count]))
    wrapped = helper.make_graph(
        [*before, *graph.node, *after],
        "face_restorer",
        ends,
        [helper.make_tensor_value_info("restored", TensorProto.UINT8, sizes)],
        [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    return helper.make_model(
        wrapped,
        opset_imports=core.opset_import,
        ir_version=max(core.ir_version, 4),
        producer_name="tilewire",
        functions=core.functions,
    )


def _opened(content: bytes, file: Path, open_part: OpenPart) -> probe.RunPart:
    file.write_bytes(content)
    try:
        return open_part(file)
    except Exception as error:  # a runtime's errors share no base class
        raise UnsuitableModelError(f"it cannot be loaded: {one_line(error)}") from error


def _run(run: probe.RunPart, faces: NDArray[np.uint8], weight: float | None) -> NDArray[np.uint8]:
    beside = () if weight is None else (np.full(len(faces), weight, np.float32),)
    try:
        (restored,) = run((faces, *beside))
    except Exception as error:
        raise UnsuitableModelError(f"it does not run: {one_line(error, 200)}") from error
    if restored.shape != faces.shape or restored.dtype != np.uint8:
        raise UnsuitableModelError(f"of {faces.shape} it makes {restored.shape}")
    result: NDArray[np.uint8] = restored
    return result


def _batches(run: probe.RunPart, face: NDArray[np.uint8], weight: float | None) -> bool:
    """Whether two faces at once come out as they do one by one."""
    pair = np.stack([face, face[::-1, ::-1]])
    try:
        together = _run(run, pair, weight)
    except UnsuitableModelError:
        return False
    alone = np.concatenate([_run(run, pair[:1], weight), _run(run, pair[1:], weight)])
    return bool(np.abs(together.astype(np.int16) - alone).max() <= _BATCHING)


def _as_signed(face: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(512, 512, 3) uint8 as (3, 512, 512) in [-1, 1]."""
    signed: NDArray[np.float32] = face.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1
    return signed


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


def _sides(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Height and width of an image, (N, 3, H, W) of some float type; nothing of other values."""
    dims = _dims(value)
    is_image = len(dims) == 4 and dims[1] == 3 and value.type.tensor_type.elem_type in _FLOATS
    return tuple(dims[2:]) if is_image else ()
