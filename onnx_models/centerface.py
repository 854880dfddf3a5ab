"""CenterFace, freed of the size that its file was exported with.

Its reference is https://github.com/Star-Clouds/CenterFace. The file takes ten images of 32 × 32 pixels as
float32, RGB from 0 to 255; nothing in its graph depends on that number or size.
"""

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from onnx_models.errors import UnsuitableModelError

__all__ = ["convert"]

_CHANNELS = (1, 2, 2, 10)


def convert(content: bytes) -> onnx.ModelProto:
    """Make the network of its file.

    It takes `image`, (N, H, W, 3) uint8 RGB, with sides that are multiples of 32. For each 4 × 4 pixels it
    gives float32: `heatmap` (N, 1, h, w), `size` and `offset` (N, 2, h, w), `points` (N, 10, h, w).

    Raises:
        UnsuitableModelError: It is not CenterFace's file.
    """
    try:
        network = onnx.load_from_string(content)
    except DecodeError as error:
        raise UnsuitableModelError("it is no ONNX file") from error
    graph = network.graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    channels = tuple(value.type.tensor_type.shape.dim[1].dim_value for value in graph.output)
    if len(inputs) != 1 or channels != _CHANNELS:
        raise UnsuitableModelError("its inputs and outputs are not those of CenterFace")
    names = ("heatmap", "size", "offset", "points")
    given = [value.name for value in graph.output]
    graph.node.insert(0, helper.make_node("Transpose", ["image"], ["image.nchw"], perm=[0, 3, 1, 2]))
    graph.node.insert(1, helper.make_node("Cast", ["image.nchw"], [inputs[0]], to=TensorProto.FLOAT))
    graph.node.extend(
        helper.make_node("Identity", [old], [new]) for old, new in zip(given, names, strict=True)
    )
    del graph.input[:]
    del graph.output[:]
    del graph.value_info[:]
    graph.input.append(
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    )
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, None, None])
        for name, count in zip(names, _CHANNELS, strict=True)
    )
    return network
