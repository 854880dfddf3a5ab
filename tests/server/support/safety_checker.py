"""A server's directory of models, with a checker that is quick to run: the redder, the worse."""

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_models import Auxiliary
from onnx_models.open_nsfw import convert
from tests.server.support.auxiliaries import add_auxiliary

__all__ = ["add_checker", "red_network"]


def red_network(side: int = 224) -> ModelProto:
    """Takes (N, side, side, 3) BGR without the mean, as open_nsfw does; gives (0, 1) for the most red."""
    red = np.zeros((3, 2), np.float32)
    red[2] = -1 / 132, 1 / 132
    nodes = [
        helper.make_node("ReduceMean", ["input:0"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "red"], ["made"]),
        helper.make_node("Clip", ["made"], ["outputs"], min=0.0, max=1.0),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("input:0", TensorProto.FLOAT, ["n", side, side, 3])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(red, "red")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)


def add_checker(directory: Path) -> Auxiliary:
    network = convert(red_network().SerializeToString())
    return add_auxiliary(directory, "safetyChecker", "tiny-checker", network)
