"""A network in two parts, so that the end of it can run in blocks.

An ESRGAN computes nearly everything at the input's resolution; its last layers enlarge that and refine it.
They see only a few pixels far, and need most of the memory. Cut where they begin, they can run on one block
after the other: a block with `Split.halo` pixels more on its cut sides comes out as it does in the whole.

What each operator reads is defined by https://onnx.ai/onnx/operators/. One that is not known here, or does
not compute alike everywhere, ends the search: such a network stays whole.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from onnx_models.errors import ModelBuildError
from onnx_models.graph import INPUT, OUTPUT

__all__ = ["Parts", "split_file", "split_network"]

_WORTH_IT = 8
"""How many times more than its input the end of a network must need at once to be worth a part of its own."""

_NEAR = 8
"""The largest halo; blocks with more would compute much of their neighbours again."""

_POINTWISE = {"Add", "Clip", "Identity", "LeakyRelu", "Mul", "PRelu", "Relu", "Round", "Sub"}
_TO_NHWC = [0, 2, 3, 1]
_FLOAT32 = 4  # bytes


class Parts(NamedTuple):
    """Two ONNX models that give, one after the other, what the whole network gives."""

    cut: str
    """The value between them, as the network calls it: (N, C, H, W) float32, of the input's resolution."""
    body: onnx.ModelProto
    """From `INPUT` to `cut`."""
    tail: onnx.ModelProto
    """From `cut` to `OUTPUT`; N, H and W stay dynamic."""
    halo: int
    """How many pixels of `cut` beyond its own place a pixel of the result depends on, on each side."""
    bytes_per_pixel: int
    """What the tail holds at once for each pixel of `cut`: what one layer reads and writes."""


def split_file(path: Path, scale: int) -> Parts | None:
    """`split_network` of an ONNX file.

    Raises:
        ModelBuildError: It is none.
    """
    try:
        return split_network(onnx.load(path), scale)
    except DecodeError as error:
        raise ModelBuildError(f"{path} is no ONNX file") from error


def split_network(network: onnx.ModelProto, scale: int) -> Parts | None:
    """Split a network where the last layers begin that enlarge; None if it has none, or they need little.

    Args:
        network: From `INPUT` to `OUTPUT`, as `wrap_uint8` gives it, with its weights.
        scale: Output side / input side.
    """
    graph = network.graph
    tail = _find_tail(graph, scale)
    if tail is None:
        return None
    cut, needs = tail.cut
    if not 0 < needs.reach <= _NEAR or tail.bytes_per_pixel < _WORTH_IT * needs.bytes_per_pixel:
        return None
    between = helper.make_tensor_value_info(
        cut, TensorProto.FLOAT, ["batch", needs.channels, "height", "width"]
    )
    return Parts(
        cut,
        _part(network, _nodes_before(graph, cut), graph.input[0], between),
        _part(network, tail.nodes, between, graph.output[0]),
        needs.reach,
        tail.bytes_per_pixel,
    )


class _Needs(NamedTuple):
    """What the result needs of a value, (N, channels, scale x H, scale x W)."""

    channels: int
    scale: int
    """Its resolution / the input's."""
    reach: int
    """How many of its pixels beyond its own place a pixel of the result depends on, on each side."""

    @property
    def bytes_per_pixel(self) -> int:
        """Its size for each pixel of the input's resolution."""
        return _FLOAT32 * self.channels * self.scale**2

    def before(self, factor: int, channels: int) -> "_Needs | None":
        """Of the value that this one was made of by enlarging it."""
        if factor < 1 or self.scale % factor:
            return None
        return _Needs(channels, self.scale // factor, -(-self.reach // factor))


class _Tail(NamedTuple):
    """The last nodes of a graph, which compute the result from one value."""

    nodes: list[onnx.NodeProto]
    cut: tuple[str, _Needs]
    bytes_per_pixel: int


def _find_tail(graph: onnx.GraphProto, scale: int) -> _Tail | None:
    """Walk back from the result until all depends on one value of the input's resolution."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    needed = {OUTPUT: _Needs(3, scale, 0)}
    nodes: list[onnx.NodeProto] = []
    peak = 0
    for node in reversed(graph.node):
        if not needed.keys() & set(node.output):
            continue
        result = needed.pop(node.output[0], None)
        read = None if result is None else _read(node, result, constants)
        if result is None or read is None or INPUT in read:
            return None
        nodes.insert(0, node)
        peak = max(peak, sum(needs.bytes_per_pixel for needs in (result, *read.values())))
        for name, needs in read.items():
            known = needed.get(name, needs)
            if known[:2] != needs[:2]:
                return None
            needed[name] = max(known, needs)
        if len(needed) == 1 and all(needs.scale == 1 for needs in needed.values()):
            return _Tail(nodes, needed.popitem(), peak)
    return None


def _read(
    node: onnx.NodeProto, result: _Needs, constants: dict[str, TensorProto]
) -> dict[str, _Needs] | None:
    """What a node needs of each value that it reads; None if that is not known."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    values = [name for name in node.input if name and name not in constants]
    needs: _Needs | None = None
    match node.op_type:
        case "Conv" if len(values) == 1 and node.input[0] == values[0]:
            needs = _before_convolution(attributes, constants[node.input[1]], result)
        case "Resize" if len(values) == 1 and len(node.input) == 3:
            needs = result.before(_enlarges(attributes, constants[node.input[2]]), result.channels)
        case "DepthToSpace":
            factor = int(attributes["blocksize"])
            needs = result.before(factor, result.channels * factor**2)
        case "Cast" if attributes["to"] == TensorProto.UINT8:
            needs = result
        case "Transpose" if attributes.get("perm") == _TO_NHWC and node.output[0] == OUTPUT:
            needs = result
        case kind if kind in _POINTWISE and all(
            _is_flat(constants[name]) for name in node.input if name in constants
        ):
            needs = result
    return None if needs is None else dict.fromkeys(values, needs)


def _before_convolution(attributes: dict[str, Any], weights: TensorProto, result: _Needs) -> _Needs | None:
    """Of the input of a convolution that keeps the size, padding with zeros."""
    _, channels, *kernel = weights.dims
    dilations = attributes.get("dilations", [1] * len(kernel))
    reaches = [dilation * (side - 1) // 2 for dilation, side in zip(dilations, kernel, strict=True)]
    keeps_size = (
        weights.data_type == TensorProto.FLOAT
        and len(kernel) == 2
        and all(side % 2 for side in kernel)
        and attributes.get("pads", [0, 0, 0, 0]) == reaches * 2
        and attributes.get("strides", [1, 1]) == [1, 1]
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    )
    if not keeps_size:
        return None
    return _Needs(channels * int(attributes.get("group", 1)), result.scale, result.reach + max(reaches))


def _enlarges(attributes: dict[str, Any], scales: TensorProto) -> int:
    """The factor by which a Resize repeats pixels; 0 if it does anything else."""
    repeats = (
        list(scales.dims) == [4]
        and attributes.get("mode") == b"nearest"
        and attributes.get("coordinate_transformation_mode") == b"asymmetric"
        and attributes.get("nearest_mode") == b"floor"
    )
    if not repeats:
        return 0
    factors = numpy_helper.to_array(scales).tolist()
    factor = int(factors[-1])
    return factor if factors == [1, 1, factor, factor] else 0


def _is_flat(constant: TensorProto) -> bool:
    """Whether it is one number for each channel at most, and so the same for all pixels."""
    return int(np.prod(constant.dims[-2:])) == 1


def _nodes_before(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    """The nodes that compute a value, in the order of execution."""

    def walk() -> Iterator[onnx.NodeProto]:
        needed = {value}
        for node in reversed(graph.node):
            if needed & set(node.output):
                needed.update(node.input)
                yield node

    return list(walk())[::-1]


def _part(
    network: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    takes: onnx.ValueInfoProto,
    gives: onnx.ValueInfoProto,
) -> onnx.ModelProto:
    """Give a model of some of the network's nodes, with the constants that they read."""
    nodes = list(nodes)
    read = {name for node in nodes for name in node.input}
    constants = [constant for constant in network.graph.initializer if constant.name in read]
    graph = helper.make_graph(nodes, network.graph.name, [takes], [gives], constants)
    return helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
