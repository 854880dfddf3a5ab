"""Networks for tests in place of CenterFace and of face restorers."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 512
BOX = 64
"""The side of the faces that the detector finds, in pixels."""

TEMPLATE = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)


def _graph(nodes: list[Any], takes: list[Any], gives: list[Any], values: dict[str, Any]) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "faces", takes, gives, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def like_centerface() -> onnx.ModelProto:
    """Finds an upright face of 64 pixels around each cell of pure red; laid out as CenterFace's file."""
    float32 = TensorProto.FLOAT
    points = np.array([part for x, y in TEMPLATE for part in (y / SIDE, x / SIDE)], np.float32)
    red = np.array([1 / 255, -1, -1], np.float32).reshape(1, 3, 1, 1) / 16
    kernel = np.ascontiguousarray(np.broadcast_to(red, (1, 3, 4, 4)))
    like = np.zeros((15, 1, 1, 1), np.float32)
    bias = np.concatenate([np.full(2, np.log(BOX / 4)), np.zeros(3), points]).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input.1", "kernel"], ["red"], strides=[4, 4]),
        helper.make_node("Sub", ["red", "half"], ["doubt"]),
        helper.make_node("Mul", ["doubt", "much"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["537"]),
        helper.make_node("Conv", ["red", "zeros", "bias"], ["all"]),
        helper.make_node("Split", ["all"], ["538", "offsets", "540"], axis=1, split=[2, 3, 10]),
        helper.make_node("Split", ["offsets"], ["539", "unused"], axis=1, split=[2, 1]),
    ]
    values = {
        "kernel": kernel,
        "half": np.float32(0.9),
        "much": np.float32(50),
        "zeros": like,
        "bias": bias,
    }
    gives = [
        helper.make_tensor_value_info(name, float32, [10, count, 8, 8])
        for name, count in (("537", 1), ("538", 2), ("539", 2), ("540", 10))
    ]
    return _graph(nodes, [helper.make_tensor_value_info("input.1", float32, [10, 3, 32, 32])], gives, values)


def restorer(
    *, lighter: float = 0.0, weight: bool = False, batch: int | str = "n", kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Gives a face back, lighter by a part of [-1, 1]; with a weight, the less the more of it there is."""
    size: list[int | str] = [batch, 3, SIDE, SIDE]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    takes = [helper.make_tensor_value_info("input", kind, size)]
    values: dict[str, Any] = {"lighter": np.asarray(lighter, dtype)}
    nodes = [helper.make_node("Add", ["input", "lighter"], ["output"])]
    if weight:
        takes.append(helper.make_tensor_value_info("weight", TensorProto.DOUBLE, [1]))
        values["one"] = np.asarray(1, dtype)
        nodes = [
            helper.make_node("Cast", ["weight"], ["w"], to=kind),
            helper.make_node("Sub", ["one", "w"], ["less"]),
            helper.make_node("Mul", ["less", "lighter"], ["some"]),
            helper.make_node("Add", ["input", "some"], ["output"]),
        ]
    return _graph(nodes, takes, [helper.make_tensor_value_info("output", kind, size)], values)
