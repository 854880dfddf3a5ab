"""ONNX files that others made: what they take and give, and their names out of the way of ours."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from msgspec import Struct
from onnx import TensorProto, compose, helper, inliner, version_converter

from onnx_models.errors import UnsuitableModelError, one_line
from onnx_models.graph import INPUT, OUTPUT

__all__ = ["Foreign", "read_onnx", "tidy"]

OPSET = 17
"""Older files are brought to it; it is what `ncnn` uses, too."""

_LARGEST = 2**31 - 2**20  # bytes; protobuf's limit, less what is wrapped around the network
_KNOWN_DOMAINS = {"", "ai.onnx", "com.microsoft"}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}


class Foreign(Struct, frozen=True):
    """A network from an ONNX file."""

    network: onnx.ModelProto
    pixels: bool
    """Whether it takes and gives uint8 NHWC already; otherwise it is float32 NCHW in [0, 1]."""


def read_onnx(path: Path) -> Foreign:
    """Read an ONNX file with one image in and one image out.

    Raises:
        UnsuitableModelError: It is broken, or its inputs and outputs are not those of an upscaler.
    """
    try:
        network = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise UnsuitableModelError(f"it is broken, or a part is missing: {one_line(error)}") from error
    if network.ByteSize() > _LARGEST:
        raise UnsuitableModelError("it is larger than 2 GB, which one ONNX file cannot be")
    return tidy(network)


def tidy(network: onnx.ModelProto) -> Foreign:
    """Check the inputs and outputs of a network, make it float32, and give its values names of its own.

    Raises:
        UnsuitableModelError: They are not those of an upscaler, or it uses operators that nobody here knows.
    """
    graph = network.graph
    if not graph.node:
        raise UnsuitableModelError("it is no ONNX file, or an empty one")
    image, result = _ends(graph)
    kind, channels = _interface(image), _interface(result)
    pixels = kind[0] == TensorProto.UINT8
    if pixels != (channels[0] == TensorProto.UINT8):
        raise UnsuitableModelError("its input and output must both be uint8, or both float")
    try:
        network = _current(_without_functions(network))
        network = compose.add_prefix(network, "core/")
    except Exception as error:  # the converters of ONNX raise what they like
        raise UnsuitableModelError(f"it cannot be read: {one_line(error, 200)}") from error
    if pixels:
        _rename(network.graph, f"core/{image.name}", INPUT, f"core/{result.name}", OUTPUT)
    else:
        _as_float32(network.graph, kind[0], channels[0])
    return Foreign(network, pixels)


def _ends(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if (len(inputs), len(graph.output)) != (1, 1):
        raise UnsuitableModelError(
            f"it has {len(inputs)} inputs and {len(graph.output)} outputs; one image and one image are needed"
        )
    del graph.input[:]
    graph.input.extend(inputs)
    return inputs[0], graph.output[0]


def _interface(value: onnx.ValueInfoProto) -> tuple[int, int]:
    """The type of a value's elements, and its channels; 0 if they are not told."""
    kind = value.type.tensor_type
    dims = kind.shape.dim
    pixels = kind.elem_type == TensorProto.UINT8
    told = len(dims) == 4
    channels = dims[3 if pixels else 1].dim_value if told else 0
    if (kind.elem_type not in _FLOATS and not pixels) or (len(dims) not in (0, 4)) or channels not in (0, 3):
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        shape = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
        raise UnsuitableModelError(
            f"{value.name} is {name} ({shape}); needed is float (N, 3, H, W) in [0, 1] or uint8 (N, H, W, 3)"
        )
    return kind.elem_type, channels


def _without_functions(network: onnx.ModelProto) -> onnx.ModelProto:
    network = inliner.inline_local_functions(network) if network.functions else network
    unknown = {node.domain for node in network.graph.node} - _KNOWN_DOMAINS
    if unknown:
        node = next(node for node in network.graph.node if node.domain in unknown)
        raise UnsuitableModelError(
            f"it uses the operator {node.op_type} of {node.domain}, which is not known"
        )
    return network


def _current(network: onnx.ModelProto) -> onnx.ModelProto:
    opset = max((each.version for each in network.opset_import if each.domain in ("", "ai.onnx")), default=0)
    return network if opset >= OPSET else version_converter.convert_version(network, OPSET)


def _rename(graph: onnx.GraphProto, image: str, as_image: str, result: str, as_result: str) -> None:
    """Give the ends of the graph our names, by way of nodes that do nothing."""
    graph.node.insert(0, helper.make_node("Identity", [as_image], [image]))
    graph.node.append(helper.make_node("Identity", [result], [as_result]))
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info(as_image, TensorProto.UINT8, ["batch", "height", "width", 3])
    )
    graph.output[0].CopyFrom(
        helper.make_tensor_value_info(as_result, TensorProto.UINT8, ["batch", None, None, 3])
    )
    del graph.value_info[:]


def _as_float32(graph: onnx.GraphProto, takes: int, gives: int) -> None:
    """Let a half-precision network take and give single precision; forget the sizes of its export."""
    image, result = graph.input[0].name, graph.output[0].name
    if takes == TensorProto.FLOAT16:
        graph.node.insert(0, helper.make_node("Cast", ["core/image32"], [image], to=TensorProto.FLOAT16))
        image = "core/image32"
    if gives == TensorProto.FLOAT16:
        graph.node.append(helper.make_node("Cast", [result], ["core/result32"], to=TensorProto.FLOAT))
        result = "core/result32"
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info(image, TensorProto.FLOAT, ["batch", 3, "height", "width"])
    )
    graph.output[0].CopyFrom(
        helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", 3, None, None])
    )
    del graph.value_info[:]
