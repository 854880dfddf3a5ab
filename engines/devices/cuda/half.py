"""Networks in half precision: half the memory and its traffic, and the matrix units of a GPU.

ONNX Runtime's own converter does it (`onnxruntime.transformers.float16`), with the core of a network: scaling
and rounding stay in fp32, as in fp16 the levels above 128 are 1/8 apart. Whether the result is exact enough
is measured each time that a network is loaded (`engines.devices.parity`): values may overflow, at 65504.
"""

import importlib
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from engines.errors import ModelError
from onnx_models import FROM_UNIT, TO_UNIT, one_line

__all__ = ["halve", "halved"]


def halved(path: Path) -> bytes:
    """The ONNX file, with all between its first and its last multiplication in fp16.

    Takes a second for a network of 67 MB, so it is done anew each time: a file would have to be kept true.

    Raises:
        ModelError: if it cannot be converted; the message says why.
    """
    return halve(onnx.load(path), path.name)


def halve(network: onnx.ModelProto, name: str) -> bytes:
    """A network, as `halved` gives it.

    Args:
        network: with its weights.
        name: for messages.

    Raises:
        ModelError: see `halved`.
    """
    nodes = list(network.graph.node)
    names = [node.name for node in nodes]
    if TO_UNIT not in names or FROM_UNIT not in names:
        raise ModelError(f"{name} has no fp16 form: it takes pixels in a way of its own")
    begin, end = nodes[names.index(TO_UNIT)].output[0], nodes[names.index(FROM_UNIT)].input[0]
    core = _between(nodes, begin, end)
    made = {name for node in core for name in node.output}
    rest = [node for node in nodes if made.isdisjoint(node.output)]
    head = rest.index(nodes[names.index(TO_UNIT)]) + 1
    try:
        converted = _converted(network, core, begin, end)
    except Exception as error:  # the converter raises what it likes
        raise ModelError(f"{name} has no fp16 form: {one_line(error)}") from error
    graph = helper.make_graph(
        [*rest[:head], *_sorted(converted.graph.node), *rest[head:]],
        network.graph.name,
        network.graph.input,
        network.graph.output,
        converted.graph.initializer,
    )
    model = helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
    content: bytes = model.SerializeToString()
    return content


def _between(nodes: list[Any], begin: str, end: str) -> list[Any]:
    """The nodes that `end` is computed by, from `begin` on, in the order of execution."""
    needed = {end}
    found: list[Any] = []
    for node in reversed(nodes):
        if needed & set(node.output) and begin not in node.output:
            needed.update(node.input)
            found.insert(0, node)
    return found


def _converted(network: Any, core: Iterable[Any], begin: str, end: str) -> Any:
    """A model of its own from `begin` to `end`, which stay fp32."""
    graph = helper.make_graph(
        core,
        network.graph.name,
        [helper.make_tensor_value_info(begin, TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", 3, None, None])],
        network.graph.initializer,
    )
    model = helper.make_model(graph, opset_imports=network.opset_import, ir_version=network.ir_version)
    return _converter().convert_float_to_float16(model, keep_io_types=True)


def _sorted(nodes: Iterable[Any]) -> list[Any]:
    """The nodes in an order of execution, which ONNX wants: the converter puts its casts at the end."""
    nodes = list(nodes)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    needs = {
        index: {makers[name] for name in node.input if name in makers} for index, node in enumerate(nodes)
    }
    return [nodes[index] for index in TopologicalSorter(needs).static_order()]


def _converter() -> Any:
    """The module; its package puts itself on the path, where its `benchmark` and `models` would be found."""
    before = list(sys.path)
    try:
        return importlib.import_module("onnxruntime.transformers.float16")
    finally:
        sys.path[:] = before
