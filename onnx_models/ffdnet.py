"""FFDNet as an ONNX graph: it removes noise of a strength that is given with each picture.

Zhang, Zuo and Zhang, FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising, 2018
(https://arxiv.org/abs/1710.04026). Its reference is `models/network_ffdnet.py` of https://github.com/cszn/KAIR.

The network packs each 2 × 2 pixels into one cell, and its tiles must begin where a cell does: so it takes
cells, which `onnx_models.cells.pack` makes of a picture.
"""

import re
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_models.cells import CELL, CHANNELS
from onnx_models.errors import UnsuitableModelError

__all__ = ["convert"]

OPSET = 17
_IR_VERSION = 8


def convert(tensors: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Make the network of its weights.

    It takes `cells`, (N, h, w, 12) uint8, and `sigma`, (N) float32: the standard deviation of the noise in
    levels of 255, 0 to 75 as it was trained. It gives `denoised`, (N, 2 h, 2 w, 3) uint8.

    Args:
        tensors: `model.0.weight`, `model.0.bias`, `model.2.weight` and so on.

    Raises:
        UnsuitableModelError: They are not those of an FFDNet for colours.
    """
    layers = _layers(tensors)
    constants = {
        "255": np.float32(255),
        "0": np.float32(0),
        "axes": np.array([1, 2, 3], np.int64),
        "plane": np.array([1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["cells"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["levels", "255"], ["unit"]),
        helper.make_node("Div", ["sigma", "255"], ["noise"]),
        helper.make_node("Unsqueeze", ["noise", "axes"], ["noise.1"]),
        helper.make_node("Shape", ["unit"], ["sides"], start=2),
        helper.make_node("Concat", ["plane", "sides"], ["everywhere"], axis=0),
        helper.make_node("Expand", ["noise.1", "everywhere"], ["map"]),
        helper.make_node("Concat", ["unit", "map"], ["layer.0"], axis=1),
    ]
    value = "layer.0"
    for number, (weight, bias) in enumerate(layers, start=1):
        constants |= {f"weight.{number}": weight, f"bias.{number}": bias}
        after = f"layer.{number}"
        inputs = [value, f"weight.{number}", f"bias.{number}"]
        nodes.append(helper.make_node("Conv", inputs, [after], kernel_shape=[3, 3], pads=[1] * 4))
        value = after
        if number < len(layers):
            value = f"{after}.relu"
            nodes.append(helper.make_node("Relu", [after], [value]))
    nodes += [
        helper.make_node("DepthToSpace", [value], ["picture"], blocksize=CELL, mode="CRD"),
        helper.make_node("Mul", ["picture", "255"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "0", "255"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["denoised"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "ffdnet",
        [
            helper.make_tensor_value_info("cells", TensorProto.UINT8, ["batch", "height", "width", CHANNELS]),
            helper.make_tensor_value_info("sigma", TensorProto.FLOAT, ["batch"]),
        ],
        [helper.make_tensor_value_info("denoised", TensorProto.UINT8, ["batch", None, None, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="tilewire")


def _layers(
    tensors: Mapping[str, NDArray[np.float32]],
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weight and bias of each convolution, in order; between two there is a ReLU, which has no numbers."""
    found = sorted(
        int(match[1]) for name in tensors if (match := re.fullmatch(r"model\.(\d+)\.weight", name))
    )
    if not found or found != list(range(0, 2 * len(found), 2)) or len(tensors) != 2 * len(found):
        raise UnsuitableModelError("its tensors are not those of an FFDNet")
    try:
        layers = [(tensors[f"model.{number}.weight"], tensors[f"model.{number}.bias"]) for number in found]
    except KeyError as error:
        raise UnsuitableModelError(f"{error} is missing") from error
    channels = CHANNELS + 1  # the last is the strength
    for weight, bias in layers:
        if weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            raise UnsuitableModelError("its tensors have not the shapes of an FFDNet for colours")
        channels = weight.shape[0]
    if channels != CHANNELS:
        raise UnsuitableModelError("its tensors have not the shapes of an FFDNet for colours")
    return layers
