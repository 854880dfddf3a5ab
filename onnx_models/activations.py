"""How large the values of a network get on their way through it."""

import math
from pathlib import Path

import onnx
from onnx import shape_inference

from onnx_models.graph import INPUT

__all__ = ["largest_activation"]

_SIZES = 1024
"""Numbers of a constant from which on it holds weights; smaller ones may be sizes, which decide on shapes."""


def largest_activation(path: Path, height: int, width: int) -> int:
    """The elements of the largest value of a network that computes one image, the image included.

    Shapes are inferred by ONNX; a value whose shape cannot be inferred does not count.

    Args:
        path: An ONNX file that takes `INPUT`, as `wrap_uint8` gives it.
        height: Of the image, in pixels.
        width: Likewise.
    """
    network = onnx.load(path)
    for tensor in network.graph.initializer:
        if math.prod(tensor.dims) >= _SIZES:
            tensor.ClearField("raw_data")
    for image in network.graph.input:
        if image.name == INPUT:
            for dim, side in zip(image.type.tensor_type.shape.dim, (1, height, width, 3), strict=True):
                dim.dim_value = side
    for result in network.graph.output:
        result.type.tensor_type.ClearField("shape")  # named there, not counted
    graph = shape_inference.infer_shapes(network, data_prop=True).graph
    shapes = [value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.input, *graph.output)]
    largest: int = max(math.prod(dim.dim_value for dim in shape) for shape in shapes)
    return max(largest, 3 * height * width)
