"""Yahoo's open_nsfw as an ONNX graph that takes uint8 pictures and gives one score.

Mahadeokar and Pesavento, Open Sourcing a Deep Learning Solution for Detecting NSFW Images, 2016
(https://github.com/yahoo/open_nsfw): 0 is suitable for work, 1 is not; "scores < 0.2 indicate that the image
is likely to be safe with high probability, scores > 0.8 that it is highly probable to be NSFW".
"""

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from onnx.checker import ValidationError

from onnx_models.errors import UnsuitableModelError

__all__ = ["SIDE", "convert"]

SIDE = 224
"""Pixels of the picture that it looks at, which is square."""

_MEAN = (104.0, 117.0, 123.0)
"""Of what it was trained on: blue, green, red."""


def convert(content: bytes) -> onnx.ModelProto:
    """Put around the network what it needs before it, and take one of its two numbers.

    What it becomes takes `picture`, (N, 224, 224, 3) uint8 RGB, and gives `score`, (N,) float32.

    Args:
        content: An ONNX file that takes (N, 224, 224, 3) float32, BGR without the mean, and gives (N, 2).

    Raises:
        UnsuitableModelError: It is no such file.
    """
    try:
        network = onnx.load_model_from_string(content)
        onnx.checker.check_model(network)
        (given,), (made,) = network.graph.input, network.graph.output
    except (DecodeError, ValidationError, ValueError) as error:
        raise UnsuitableModelError("it is not open_nsfw as an ONNX file") from error
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    classes = [dim.dim_value for dim in made.type.tensor_type.shape.dim]
    if shape[1:] != [SIDE, SIDE, 3] or classes[1:] != [2]:
        raise UnsuitableModelError(f"open_nsfw takes (N, {SIDE}, {SIDE}, 3) and gives (N, 2)")
    graph = network.graph
    constants = {
        "tilewire/bgr": np.array([2, 1, 0], np.int64),
        "tilewire/mean": np.array(_MEAN, np.float32),
        "tilewire/second": np.array(1, np.int64),
    }
    before = [
        helper.make_node("Cast", ["picture"], ["tilewire/float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["tilewire/float", "tilewire/bgr"], ["tilewire/reversed"], axis=3),
        helper.make_node("Sub", ["tilewire/reversed", "tilewire/mean"], [given.name]),
    ]
    after = helper.make_node("Gather", [made.name, "tilewire/second"], ["score"], axis=1)
    wrapped = helper.make_graph(
        [*before, *graph.node, after],
        "open_nsfw",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"])],
        [*graph.initializer, *(numpy_helper.from_array(each, name) for name, each in constants.items())],
    )
    result = helper.make_model(wrapped, opset_imports=network.opset_import, ir_version=network.ir_version)
    onnx.checker.check_model(result)
    return result
