"""Images of any size for networks that take only some.

Many networks want sides that are multiples of their window, or that are not too small. The image is made
larger inside the graph, at its right and bottom border, and the result cut to what belongs to the image.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from msgspec import Struct
from onnx import helper, numpy_helper

from onnx_models.graph import INPUT, OUTPUT

__all__ = ["SizeRule", "fit_sizes"]

_IMAGE, _RESULT = "sizes.image", "sizes.result"


class SizeRule(Struct, frozen=True):
    """Which sizes a network takes: sides of at least `minimum`, multiples of `multiple`, perhaps equal."""

    multiple: int = 1
    minimum: int = 1
    square: bool = False

    @property
    def any_size(self) -> bool:
        """Whether there is nothing to do."""
        return self.multiple == 1 and self.minimum <= 1 and not self.square

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest size that the network takes and the image fits in."""
        height, width = (
            -(-max(side, self.minimum) // self.multiple) * self.multiple for side in (height, width)
        )
        return (max(height, width),) * 2 if self.square else (height, width)


def fit_sizes(network: onnx.ModelProto, scale: int, rule: SizeRule) -> onnx.ModelProto:
    """Make a network take images of any size.

    An image whose size follows the rule passes unchanged, so there the result is exactly the network's. Any
    other is continued beyond its right and bottom border by its reflection, and beyond that by its edge, as
    spandrel's `pad_tensor` does (https://github.com/chaiNNer-org/spandrel, `__helpers/size_req.py`).

    Args:
        network: From `INPUT` to `OUTPUT`, as `wrap_uint8` gives it.
        scale: Output side / input side.
        rule: Which sizes it takes.
    """
    if rule.any_size:
        return network
    graph = network.graph
    for node in graph.node:
        node.input[:] = [_IMAGE if name == INPUT else name for name in node.input]
        node.output[:] = [_RESULT if name == OUTPUT else name for name in node.output]
    constants = {
        "sizes.zero": 0,
        "sizes.one": 1,
        "sizes.minimum": rule.minimum,
        "sizes.multiple": rule.multiple,
        "sizes.almost": rule.multiple - 1,
        "sizes.scale": scale,
        "sizes.row_axis": 1,
        "sizes.column_axis": 2,
        "sizes.axes": [1, 2],
        "sizes.from": [0, 0],
        "sizes.vector": [1],
    }
    nodes = [
        helper.make_node("Shape", [INPUT], ["sizes.shape"]),
        *_measure("row"),
        *_measure("column"),
    ]
    targets = {"row": "sizes.row_target", "column": "sizes.column_target"}
    if rule.square:
        nodes.append(helper.make_node("Max", list(targets.values()), ["sizes.side"]))
        targets = dict.fromkeys(targets, "sizes.side")
    nodes += [
        *_reflect("row", targets["row"], INPUT, "sizes.rows", axis=1),
        *_reflect("column", targets["column"], "sizes.rows", _IMAGE, axis=2),
        *graph.node,
        helper.make_node("Concat", ["sizes.row_end", "sizes.column_end"], ["sizes.to"], axis=0),
        helper.make_node("Slice", [_RESULT, "sizes.from", "sizes.to", "sizes.axes"], [OUTPUT]),
    ]
    fitted = helper.make_graph(
        nodes,
        graph.name,
        graph.input,
        graph.output,
        [
            *graph.initializer,
            *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()),
        ],
    )
    return helper.make_model(fitted, opset_imports=network.opset_import, ir_version=network.ir_version)


def _measure(side: str) -> Iterator[onnx.NodeProto]:
    """One side of the image, where its result ends, and what it is made as long as."""
    name = f"sizes.{side}"
    yield helper.make_node("Gather", ["sizes.shape", f"{name}_axis"], [f"{name}_length"])
    yield helper.make_node("Mul", [f"{name}_length", "sizes.scale"], [f"{name}_scaled"])
    yield helper.make_node("Reshape", [f"{name}_scaled", "sizes.vector"], [f"{name}_end"])
    yield helper.make_node("Max", [f"{name}_length", "sizes.minimum"], [f"{name}_least"])
    yield helper.make_node("Add", [f"{name}_least", "sizes.almost"], [f"{name}_above"])
    yield helper.make_node("Div", [f"{name}_above", "sizes.multiple"], [f"{name}_count"])
    yield helper.make_node("Mul", [f"{name}_count", "sizes.multiple"], [f"{name}_target"])


def _reflect(side: str, target: str, image: str, longer: str, *, axis: int) -> Iterator[onnx.NodeProto]:
    """Pixel i of n comes from max(0, (n - 1) - |i - (n - 1)|)."""
    name = f"sizes.{side}"
    yield helper.make_node("Range", ["sizes.zero", target, "sizes.one"], [f"{name}_indices"])
    yield helper.make_node("Sub", [f"{name}_length", "sizes.one"], [f"{name}_last"])
    yield helper.make_node("Sub", [f"{name}_indices", f"{name}_last"], [f"{name}_beyond"])
    yield helper.make_node("Abs", [f"{name}_beyond"], [f"{name}_distance"])
    yield helper.make_node("Sub", [f"{name}_last", f"{name}_distance"], [f"{name}_reflected"])
    yield helper.make_node("Max", [f"{name}_reflected", "sizes.zero"], [f"{name}_source"])
    yield helper.make_node("Gather", [image, f"{name}_source"], [longer], axis=axis)
