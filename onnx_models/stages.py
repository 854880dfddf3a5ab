"""Networks that a picture goes through one after the other, as one network; and those that eat its border."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

__all__ = ["in_stages", "with_margin"]


def in_stages(cores: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Make one network of several.

    Between them nothing is rounded or clipped, as it would be if the picture were stored.

    Args:
        cores: Each with one input and one output, (N, 3, H, W) float32, of one opset.
    """
    first, *others = cores
    if not others:
        return first
    whole = compose.add_prefix(first, "stage1/")
    for number, core in enumerate(others, start=2):
        stage = compose.add_prefix(core, f"stage{number}/")
        ends = (whole.graph.output[0].name, stage.graph.input[0].name)
        whole = compose.merge_models(whole, stage, [ends])
    return whole


def with_margin(core: onnx.ModelProto, margin: int) -> onnx.ModelProto:
    """Let a network that takes away a margin of its input give the whole picture: its border is repeated.

    Args:
        core: From (N, 3, H, W) to (N, 3, scale x (H - 2 margin), scale x (W - 2 margin)), float32.
        margin: Pixels at each side.
    """
    if not margin:
        return core
    graph = core.graph
    image, inner = "margin.image", graph.input[0].name
    pads = numpy_helper.from_array(np.array([0, 0, margin, margin] * 2, np.int64), "margin.pads")
    pad = helper.make_node("Pad", [image, pads.name], [inner], "margin.pad", mode="edge")
    graph.node.insert(0, pad)
    graph.initializer.append(pads)
    graph.input[0].name = image
    return core
