"""A network in ncnn's format, given back as an ONNX graph.

What the layers compute is defined by ncnn's reference implementations; the files named in docstrings
are those of https://github.com/Tencent/ncnn. The layer types that Real-ESRGAN, SPAN and waifu2x networks
consist of are known, each by one function in `_LAYERS`. Anything else is refused by name, down to a single
parameter: a layer that is guessed makes wrong pixels silently.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_models.errors import NcnnFormatError, UnsupportedLayerError
from onnx_models.ncnn_file import BinReader, Float32, Layer, parse_param

__all__ = ["convert"]

OPSET = 17
"""Every operator used here and in `graph.py` has its present meaning since then or before."""
IR_VERSION = 8
"""The version of the ONNX file format that came with that opset."""


class _Graph:
    """The ONNX graph under construction."""

    def __init__(self, numbers: BinReader) -> None:
        self.numbers = numbers
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: dict[str, str] = {}
        """The ONNX value that each ncnn blob is."""
        self.unread: dict[str, None] = {}
        """Values that no layer has read yet, oldest first."""

    def read(self, layer: Layer, count: int) -> list[str]:
        """Return the values of a layer's inputs, of which there must be `count`."""
        if len(layer.inputs) != count:
            raise layer.unsupported(f"taking {len(layer.inputs)} blobs")
        missing = [blob for blob in layer.inputs if blob not in self.values]
        if missing:
            raise NcnnFormatError(
                f"ncnn layer {layer.name} reads {missing[0]}, which no layer before it writes"
            )
        values = [self.values[blob] for blob in layer.inputs]
        for value in values:
            self.unread.pop(value, None)
        return values

    def write(self, layer: Layer, value: str) -> None:
        """Make `value` what the layer's only output is."""
        if len(layer.outputs) != 1:
            raise layer.unsupported(f"giving {len(layer.outputs)} blobs")
        self.values[layer.outputs[0]] = value
        self.unread[value] = None

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Append a node and return the value it computes."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: Float32) -> str:
        """Append an initializer and return its value."""
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def _input(layer: Layer, graph: _Graph) -> None:
    """An image; the sides that the file may give are those it was made with, and ncnn ignores them."""
    layer.pop(0, 0), layer.pop(1, 0)
    if (channels := int(layer.pop(2, 0))) not in (0, 3):
        raise layer.unsupported(f"an image of {channels} channels")
    graph.write(layer, layer.outputs[0])


def _split(layer: Layer, graph: _Graph) -> None:
    """One blob under several names: ncnn counts readers, ONNX does not need to."""
    (source,) = graph.read(layer, 1)
    graph.values.update(dict.fromkeys(layer.outputs, source))


def _memory_data(layer: Layer, graph: _Graph) -> None:
    """A constant of width, height and channels (`src/layer/memorydata.cpp`), stored as bare fp32 numbers."""
    width, height, channels = (int(layer.pop(number, 0)) for number in range(3))
    if min(width, height, channels) < 1:
        raise layer.unsupported(f"a constant of {width} x {height} x {channels}")
    numbers = graph.numbers.read_float32(width * height * channels, layer)
    graph.write(layer, graph.constant(layer.name, numbers.reshape(1, channels, height, width)))


def _convolution(layer: Layer, graph: _Graph) -> None:
    inputs, kernel, pad = _kernels(layer, graph)
    value = graph.add("Conv", inputs, layer.name, kernel_shape=[kernel, kernel], pads=[pad] * 4)
    graph.write(layer, _activated(value, layer, graph))


def _deconvolution(layer: Layer, graph: _Graph) -> None:
    """Each pixel adds its kernel to the result (`src/layer/deconvolution.cpp`), whose border is cut off."""
    stride = int(layer.pop(3, 1))
    (image, weights, *bias), kernel, pad = _kernels(layer, graph, transposed=True)
    value = graph.add(
        "ConvTranspose",
        [image, weights, *bias],
        layer.name,
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[pad] * 4,
    )
    graph.write(layer, _activated(value, layer, graph))


def _kernels(layer: Layer, graph: _Graph, *, transposed: bool = False) -> tuple[list[str], int, int]:
    """A convolution's inputs, with its square kernels and its bias, the kernels' side and the padding."""
    channels, kernel, pad = int(layer.pop(0, 0)), int(layer.pop(1, 0)), int(layer.pop(4, 0))
    has_bias, size = layer.pop(5, 0) == 1, int(layer.pop(6, 0))
    if min(channels, kernel, size) < 1 or size % (channels * kernel * kernel):
        raise NcnnFormatError(f"ncnn layer {layer.name}: {size} weights do not fill {channels} kernels")
    if pad < 0:
        raise layer.unsupported(f"padding {pad}")
    inputs = graph.read(layer, 1)
    weights = graph.numbers.read_tagged(size, layer).reshape(channels, -1, kernel, kernel)
    if transposed:  # ncnn has the output's channels first in both kinds of layers, ONNX in one
        weights = np.ascontiguousarray(weights.transpose(1, 0, 2, 3))
    inputs.append(graph.constant(f"{layer.name}.weight", weights))
    if has_bias:
        inputs.append(graph.constant(f"{layer.name}.bias", graph.numbers.read_float32(channels, layer)))
    return inputs, kernel, pad


def _activated(value: str, layer: Layer, graph: _Graph) -> str:
    """What the activation that is part of a convolution makes of its result."""
    activation, arguments = int(layer.pop(9, 0)), layer.pop_array(10, ())
    match activation, arguments:
        case 0, ():
            return value
        case 2, (slope,):
            return graph.add("LeakyRelu", [value], f"{layer.name}.activation", alpha=slope)
        case _:
            raise layer.unsupported(f"activation {activation} with {len(arguments)} arguments")


def _prelu(layer: Layer, graph: _Graph) -> None:
    slopes = graph.numbers.read_float32(int(layer.pop(0, 0)), layer)
    slope = graph.constant(f"{layer.name}.slope", slopes.reshape(-1, 1, 1))
    graph.write(layer, graph.add("PRelu", [*graph.read(layer, 1), slope], layer.name))


def _sigmoid(layer: Layer, graph: _Graph) -> None:
    graph.write(layer, graph.add("Sigmoid", graph.read(layer, 1), layer.name))


def _swish(layer: Layer, graph: _Graph) -> None:
    """Each number times its sigmoid (`src/layer/swish.cpp`)."""
    (value,) = graph.read(layer, 1)
    gate = graph.add("Sigmoid", [value], f"{layer.name}.gate")
    graph.write(layer, graph.add("Mul", [value, gate], layer.name))


def _concat(layer: Layer, graph: _Graph) -> None:
    """Along the channels: ncnn counts axes without the batch, and its first is ONNX's second."""
    axis = int(layer.pop(0, 0)) + 1
    graph.write(layer, graph.add("Concat", graph.read(layer, len(layer.inputs)), layer.name, axis=axis))


def _eltwise(layer: Layer, graph: _Graph) -> None:
    """The weighted sum of two blobs (`op_type` 1 of `src/layer/eltwise.h`)."""
    operation = int(layer.pop(0, 0))
    if operation != 1:
        raise layer.unsupported(f"operation {operation}")
    values = graph.read(layer, 2)
    coefficients = layer.pop_array(1, (1.0, 1.0))
    if len(coefficients) != len(values):
        raise layer.unsupported(f"a sum with {len(coefficients)} coefficients")
    for index, coefficient in enumerate(coefficients):
        if coefficient != 1:
            factor = graph.constant(f"{layer.name}.coefficient{index}", np.array(coefficient, np.float32))
            values[index] = graph.add("Mul", [values[index], factor], f"{layer.name}.term{index}")
    graph.write(layer, graph.add("Add", values, layer.name))


_OPERATIONS = {0: "Add", 1: "Sub", 2: "Mul"}
"""The first of `OperationType` in `src/layer/binaryop.h`."""


def _binary_op(layer: Layer, graph: _Graph) -> None:
    """A sum, difference or product of two blobs, or of a blob and a number."""
    operation, with_number, number = int(layer.pop(0, 0)), layer.pop(1, 0) == 1, layer.pop(2, 0.0)
    if operation not in _OPERATIONS:
        raise layer.unsupported(f"operation {operation}")
    values = graph.read(layer, 1 if with_number else 2)
    if with_number:
        values.append(graph.constant(f"{layer.name}.number", np.array(number, np.float32)))
    graph.write(layer, graph.add(_OPERATIONS[operation], values, layer.name))


def _pixel_shuffle(layer: Layer, graph: _Graph) -> None:
    """Channels to space; mode 0 of `src/layer/pixelshuffle.cpp` keeps a colour's channels together."""
    factor, mode = int(layer.pop(0, 1)), int(layer.pop(1, 0))
    order = {0: "CRD", 1: "DCR"}.get(mode)
    if order is None:
        raise layer.unsupported(f"mode {mode}")
    graph.write(
        layer, graph.add("DepthToSpace", graph.read(layer, 1), layer.name, blocksize=factor, mode=order)
    )


def _interp(layer: Layer, graph: _Graph) -> None:
    """Resize, as `src/layer/interp.cpp` does without `align_corner`.

    Nearest takes the source pixel floor(x / scale). Cubic puts pixels at half coordinates, has
    a = -0.75, repeats the edge and does not widen its kernel when it reduces.
    """
    kind, height, width = int(layer.pop(0, 0)), layer.pop(1, 1.0), layer.pop(2, 1.0)
    attributes: dict[int, dict[str, object]] = {
        1: {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        3: {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.75},
    }
    if kind not in attributes:
        raise layer.unsupported(f"resize type {kind}")
    scales = graph.constant(f"{layer.name}.scales", np.array([1, 1, height, width], np.float32))
    inputs = [*graph.read(layer, 1), "", scales]  # the empty one is `roi`, which these modes do not use
    graph.write(layer, graph.add("Resize", inputs, layer.name, **attributes[kind]))


_LAYERS: dict[str, Callable[[Layer, _Graph], None]] = {
    "BinaryOp": _binary_op,
    "Concat": _concat,
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "Eltwise": _eltwise,
    "Input": _input,
    "Interp": _interp,
    "MemoryData": _memory_data,
    "PReLU": _prelu,
    "PixelShuffle": _pixel_shuffle,
    "Sigmoid": _sigmoid,
    "Split": _split,
    "Swish": _swish,
}


def convert(param: bytes, numbers: bytes) -> onnx.ModelProto:
    """Convert an ncnn network with one image in and one image out.

    Args:
        param: The content of the `.param` file.
        numbers: The content of the `.bin` file.

    Returns:
        An ONNX model from (N, 3, H, W) to (N, 3, scale x H, scale x W), both float32 RGB with [0, 1] as
        the nominal range (the output may leave it), N, H and W dynamic.

    Raises:
        UnsupportedLayerError: A layer or a parameter has no ONNX form here; the message names it.
        NcnnFormatError: The files are malformed, or do not belong together.
    """
    layers = parse_param(param)
    graph = _Graph(BinReader(numbers))
    for layer in layers:
        if layer.type not in _LAYERS:
            raise UnsupportedLayerError(f"ncnn layer {layer.name}: the type {layer.type} is not supported")
        _LAYERS[layer.type](layer, graph)
        if layer.params:
            raise layer.unsupported(f"parameter {min(layer.params)}")
    if not graph.numbers.exhausted:
        raise NcnnFormatError("the .bin file holds more numbers than the layers of the .param file take")
    inputs = [layer.outputs[0] for layer in layers if layer.type == "Input"]
    if len(inputs) != 1 or len(graph.unread) != 1:
        raise NcnnFormatError(
            f"the network has {len(inputs)} inputs and {len(graph.unread)} outputs; one of each is needed"
        )
    (output,) = graph.unread
    core = helper.make_graph(
        graph.nodes,
        "core",
        [helper.make_tensor_value_info(inputs[0], TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 3, None, None])],
        graph.initializers,
    )
    return helper.make_model(core, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
