"""The pixels' way into and out of a network, as part of the ONNX graph.

A network computes on float32 NCHW in [0, 1]; images are uint8 NHWC. With the conversion inside the
graph a quarter of the bytes crosses the bus to a GPU, and every runtime rounds alike.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "FROM_UNIT",
    "INPUT",
    "OUTPUT",
    "TO_FLOAT",
    "TO_NCHW",
    "TO_NHWC",
    "TO_UINT8",
    "TO_UNIT",
    "wrap_uint8",
]

INPUT = "image"
"""The wrapped graph's input: (N, H, W, 3) uint8 RGB."""
OUTPUT = "upscaled"
"""The wrapped graph's output: (N, scale x H, scale x W, 3) uint8 RGB."""

TO_NCHW, TO_FLOAT, TO_UNIT = "wrap.to_nchw", "wrap.to_float", "wrap.to_unit"
"""The nodes before the core of a wrapped graph, by name and in order."""
FROM_UNIT, TO_UINT8, TO_NHWC = "wrap.from_unit", "wrap.to_uint8", "wrap.to_nhwc"
"""The nodes after its core; between the first two the values are clipped and rounded."""


def wrap_uint8(core: onnx.ModelProto, scale: int) -> onnx.ModelProto:
    """Make a core network take and give uint8 images.

    The output is clip(255 y, 0, 255) rounded to the nearest level, halves to the even one, as ONNX
    `Round` and `numpy.rint` do. The layout is changed while the pixels are bytes, the cheaper side.

    Args:
        core: From (N, 3, H, W) to (N, 3, scale x H, scale x W), float32 RGB in [0, 1].
        scale: Output side / input side, a whole number.

    Returns:
        A model from `INPUT` to `OUTPUT`; N, H and W stay dynamic.
    """
    graph = core.graph
    before, after = graph.input[0].name, graph.output[0].name
    constants = {"wrap.255": np.float32(255), "wrap.0": np.float32(0)}
    nodes = [
        helper.make_node("Transpose", [INPUT], ["wrap.nchw"], TO_NCHW, perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["wrap.nchw"], ["wrap.levels"], TO_FLOAT, to=TensorProto.FLOAT),
        helper.make_node("Div", ["wrap.levels", "wrap.255"], [before], TO_UNIT),
        *graph.node,
        helper.make_node("Mul", [after, "wrap.255"], ["wrap.scaled"], FROM_UNIT),
        helper.make_node("Clip", ["wrap.scaled", "wrap.0", "wrap.255"], ["wrap.clipped"], "wrap.clip"),
        helper.make_node("Round", ["wrap.clipped"], ["wrap.rounded"], "wrap.round"),
        helper.make_node("Cast", ["wrap.rounded"], ["wrap.bytes"], TO_UINT8, to=TensorProto.UINT8),
        helper.make_node("Transpose", ["wrap.bytes"], [OUTPUT], TO_NHWC, perm=[0, 2, 3, 1]),
    ]
    shape_in = ["batch", "height", "width", 3]
    shape_out = ["batch", f"{scale}*height", f"{scale}*width", 3]
    wrapped = helper.make_graph(
        nodes,
        "uint8_nhwc",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape_in)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, shape_out)],
        [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    return helper.make_model(wrapped, opset_imports=core.opset_import, ir_version=core.ir_version)
