"""Small upscalers as ONNX files, and others that are none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from onnx_models import Run

FREE = ("n", 3, "h", "w")


def open_network(path: Path) -> Run:
    """Run a file on the CPU; ONNX Runtime keeps quiet when that fails."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def network(
    nodes: Sequence[onnx.NodeProto],
    values: dict[str, Any] | None = None,
    *,
    takes: tuple[int, Sequence[int | str | None]] = (TensorProto.FLOAT, FREE),
    gives: tuple[int, Sequence[int | str | None]] = (TensorProto.FLOAT, ("n", 3, None, None)),
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph from x to y."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", *takes)],
        [helper.make_tensor_value_info("y", *gives)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (values or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def upscaler(scale: int = 2, reach: int = 3, **more: Any) -> onnx.ModelProto:
    """Each pixel `scale` x `scale` times, with a little of what lies up to `reach` pixels away."""
    side = 2 * reach + 1
    kernel = np.full((3 * scale * scale, 3, side, side), 0.3 / (3 * side * side), np.float32)
    for channel in range(3):
        kernel[channel * scale * scale : (channel + 1) * scale * scale, channel, reach, reach] += 0.7
    kind = more.pop("kind", np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["wide"], pads=[reach] * 4),
        helper.make_node("DepthToSpace", ["wide"], ["y"], blocksize=scale, mode="CRD"),
    ]
    return network(nodes, {"kernel": kernel.astype(kind)}, **more)


def in_windows(side: int) -> onnx.ModelProto:
    """An upscaler that takes only whole windows of `side` pixels, and blurs within each."""
    nodes = [
        helper.make_node("SpaceToDepth", ["x"], ["windows"], blocksize=side),
        helper.make_node("DepthToSpace", ["windows"], ["image"], blocksize=side),
        helper.make_node("Resize", ["image", "", "scales"], ["y"], mode="nearest"),
    ]
    return network(nodes, {"scales": np.array([1, 1, 2, 2], np.float32)})


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
